"""How long onnxruntime takes for the float and for the quantized model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from studio.exporting.summary import Latency
from studio.jobs.events import CancelToken
from studio.runtime.budget import samples

ROUNDS = 20
FEWEST_ROUNDS = 5
SECONDS = 6.0
"""Rounds end after this time, but not before `FEWEST_ROUNDS`."""


def measure_latency(
    float_path: Path,
    quantized_path: Path,
    inputs: Mapping[str, np.ndarray],
    *,
    cancel: CancelToken | None = None,
) -> Latency:
    """Latency of two models for `inputs`, with all optimisations, on one thread.

    They take turns, so that a drift of the machine's speed meets both; the first run of each warms
    up and does not count.
    """
    runs = [_run(path) for path in (float_path, quantized_path)]
    for run in runs:
        run(inputs)
    times: list[list[float]] = [[], []]
    begin = time.perf_counter()
    while len(times[0]) < ROUNDS:
        if len(times[0]) >= FEWEST_ROUNDS and time.perf_counter() - begin > SECONDS:
            break
        if cancel is not None:
            cancel.check()
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run(inputs)
            taken.append(1000 * (time.perf_counter() - start))
    float_ms, quantized_ms = map(statistics.median, times)
    return Latency(float_ms, quantized_ms, len(times[0]), samples(inputs))


def _run(path: Path) -> Callable[[Mapping[str, np.ndarray]], object]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))
