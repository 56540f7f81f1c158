"""The proof that the exported file computes what the simulation computed.

Layer by layer on equal inputs the integers must agree to the last step. End to end, the order of
float summation flips single steps and the flips add up, so there SQNR, cosine and top-1 agreement
are stated, with onnxruntime's optimisations off and on, beside what these make of each other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch

from studio.analysis.evaluate import OutputMeter, tensor_outputs
from studio.analysis.forecast import Forecast, forecast
from studio.analysis.pair_overflow import pair_overflows
from studio.errors import ModelError
from studio.exporting.kernels import LayerKernel, count_kernels, layer_kernels
from studio.exporting.latency import measure_latency
from studio.exporting.layer_checks import LayerComparison
from studio.exporting.other_runtimes import check_other_runtimes
from studio.exporting.stored_constants import different_constants, wrong_bias_scales
from studio.exporting.summary import EndToEnd, KernelCheck, OutputCheck, RuntimeCheck, Verification
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress
from studio.quant.encoding import Encoding
from studio.runtime.budget import samples
from studio.runtime.session import Optimizations, Session
from studio.sim.plan import Plan
from studio.sim.qdq import Storage
from studio.sim.qdq.storage import BYTES
from studio.sim.target import load_target

_RUNTIME = "onnxruntime"
"""Whatever the target: the file is verified in onnxruntime, which fuses by its own rules."""

LAYER_SAMPLES = 4
"""Samples the layers are compared on (or one batch, where that is more)."""


def verify(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    path: Path,
    batches: Iterable[Mapping[str, np.ndarray]],
    total: int,
    *,
    storage: Storage = BYTES,
    float_path: Path | None = None,
    other_runtimes: bool = False,
    emit: Emit,
    cancel: CancelToken,
) -> Verification:
    """Compare the file at `path` with the simulation of (`graph`, `plan`, `encodings`).

    `batches` are model inputs, `total` samples in all. `storage` is that of the file. `float_path`
    is the float model that the latency is compared with; without it, none is measured.
    `other_runtimes` asks those that are installed as well, on the first batch. Raises ModelError if
    onnxruntime refuses the file with all its optimisations off.
    """
    comparison = LayerComparison(graph, plan, encodings, _tensors(path))
    plain = Session(path, optimizations=Optimizations.NONE, outputs=comparison.readable)
    optimized, optimized_path, refused = _optimized(path)
    integer_nodes, float_nodes, kernels = 0, 0, {}
    try:
        if not refused:
            integer_nodes, float_nodes = count_kernels(optimized_path)
            kernels = layer_kernels(graph, plan, optimized_path)
    finally:
        optimized_path.unlink(missing_ok=True)
        optimized_path.parent.rmdir()
    readable = None if refused else _readable(path, comparison.results)
    meters = {name: _OutputMeters() for name in tensor_outputs(graph)}
    names, done, first = list(meters), 0, None
    for batch in batches:
        cancel.check()
        first = first or batch
        with torch.inference_mode():
            simulated = comparison.executor.run(batch, names)
        off, on = plain.run(batch, names), optimized.run(batch, names)
        for name, meter in meters.items():
            meter.add(simulated[name].numpy(), off[name], on[name])
        if done < LAYER_SAMPLES:
            comparison.add(plain, readable, batch)
        done += samples(batch)
        emit(Progress("Verifying", done, total, f"{len(comparison)} layers in onnxruntime"))
    outputs = tuple(meter.result(name) for name, meter in meters.items())
    target = load_target(_RUNTIME)
    expected = forecast(graph, plan, target, encodings, storage=storage)
    latency = None
    if float_path is not None and first is not None and not refused:
        latency = measure_latency(float_path, path, first, cancel=cancel)
    others: tuple[RuntimeCheck, ...] = ()
    if other_runtimes and first is not None:
        others = check_other_runtimes(graph, plan, encodings, path, [first], cancel=cancel)
    return Verification(
        samples=done,
        layers=comparison.layer_checks(),
        plain=outputs[0].plain,
        optimized=outputs[0].optimized,
        integer_nodes=integer_nodes,
        float_nodes=float_nodes,
        different_constants=different_constants(graph, plan, encodings, path),
        wrong_bias_scales=wrong_bias_scales(plan, path),
        float_layers=comparison.float_layer_checks(),
        outputs=outputs,
        kernels=_kernel_checks(expected, kernels),
        latency=latency,
        other_runtimes=others,
        pair_overflows=pair_overflows(graph, plan, target, encodings),
        refused=refused,
    )


class _OutputMeters:
    """One output of the file, without and with optimisations."""

    def __init__(self) -> None:
        self.plain, self.optimized, self.itself = OutputMeter(), OutputMeter(), OutputMeter()

    def add(self, simulated: np.ndarray, off: np.ndarray, on: np.ndarray) -> None:
        self.plain.add(simulated, off)
        self.optimized.add(simulated, on)
        self.itself.add(off, on)

    def result(self, name: str) -> OutputCheck:
        return OutputCheck(
            name,
            _end_to_end(self.plain, optimizations=False),
            _end_to_end(self.optimized, optimizations=True),
            _end_to_end(self.itself, optimizations=True),
        )


def _end_to_end(meter: OutputMeter, *, optimizations: bool) -> EndToEnd:
    return EndToEnd(optimizations, meter.distance.result(), meter.agreement.result())


def _optimized(path: Path) -> tuple[Session, Path, str]:
    """The file with all optimisations, the graph they gave, and why they were refused: then the
    session has no integer kernels, and there is no graph."""
    written = Path(tempfile.mkdtemp(prefix="quantization-studio-")) / "optimized.onnx"
    try:
        # Level 2 has all integer kernels; level 3 only turns the memory layout, and names with it.
        Session(path, optimizations=Optimizations.KERNELS, optimized_path=written)
        return Session(path), written, ""
    except ModelError as error:
        return _without_kernels(path), written, str(error)


def _without_kernels(path: Path) -> Session:
    try:
        return Session(path, optimizations=Optimizations.FLOAT)
    except ModelError:
        return Session(path, optimizations=Optimizations.NONE)


def _readable(path: Path, outputs: list[str]) -> Session | None:
    """The file with all optimisations and inner tensors readable, if onnxruntime can do both."""
    try:
        return Session(path, outputs=outputs)
    except ModelError:
        return None


def _tensors(path: Path) -> frozenset[str]:
    """Names of all tensors of the file, constants apart."""
    graph = onnx.load(str(path), load_external_data=False).graph
    made = [name for node in graph.node for name in node.output if name]
    return frozenset([*made, *(value.name for value in graph.input)])


def _kernel_checks(
    expected: Forecast, kernels: Mapping[str, LayerKernel]
) -> tuple[KernelCheck, ...]:
    rows = expected.layers if kernels else ()
    return tuple(
        KernelCheck(
            row.layer,
            row.runs,
            row.kernel,
            kernels[row.layer].runs,
            kernels[row.layer].kernel,
            row.reason,
        )
        for row in rows
    )
