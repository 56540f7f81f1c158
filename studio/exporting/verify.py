"""The proof that the exported file computes what the simulation computed.

Layer by layer on equal inputs the integers must agree to the last step. End to end, the order of
float summation flips single steps and the flips add up, so there SQNR, cosine and top-1 agreement
are stated, with onnxruntime's optimisations off and on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch

from studio.analysis.evaluate import OutputMeter, simulated_name
from studio.exporting.stored_constants import different_constants
from studio.exporting.summary import EndToEnd, LayerCheck, Verification
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress
from studio.quant.encoding import Encoding
from studio.runtime.budget import samples
from studio.runtime.executor import Executor
from studio.runtime.session import Optimizations, Session
from studio.sim.plan import Layer, Plan
from studio.sim.qdq import quantized_name
from studio.sim.simulator import simulating_executor

LAYER_SAMPLES = 4
"""Samples the layers are compared on (or one batch, where that is more)."""

FIRST_LAYERS = 32
"""Layers whose inputs and outputs are read together at first; then as many as fit the memory."""

READ_BYTES = 256 * 2**20
"""Bytes of inputs and outputs that are read together, about."""

_INTEGER_OPS = frozenset(
    [
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
    ]
)
_FLOAT_OPS = frozenset(
    ["Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"]
)


def verify(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    path: Path,
    batches: Iterable[Mapping[str, np.ndarray]],
    total: int,
    *,
    emit: Emit,
    cancel: CancelToken,
) -> Verification:
    """Compare the QDQ file at `path` with the simulation of (`graph`, `plan`, `encodings`).

    `batches` are model inputs, `total` samples in all. Raises ModelError if onnxruntime refuses the
    file.
    """
    executor = simulating_executor(graph, plan, encodings)
    layers = [
        layer
        for layer in plan.layers
        if plan.tensors[layer.output].spec is not None and _reads_tensors(graph, layer)
    ]
    plain = Session(path, optimizations=Optimizations.NONE, outputs=_readable(graph, plan, layers))
    with tempfile.TemporaryDirectory(prefix="quantization-studio-") as folder:
        optimized_path = Path(folder) / "optimized.onnx"
        optimized = Session(path, optimized_path=optimized_path)
        integer_nodes, float_nodes = _kernels(optimized_path)
    output = graph.outputs[0].name or ""
    plain_meter, optimized_meter = OutputMeter(), OutputMeter()
    counts = {layer.name: _Counts() for layer in layers}
    done = 0
    for batch in batches:
        cancel.check()
        with torch.inference_mode():
            expected = executor.run(batch, [output])[output].numpy()
        plain_meter.add(expected, plain.run(batch, [output])[output])
        optimized_meter.add(expected, optimized.run(batch, [output])[output])
        if done < LAYER_SAMPLES:
            for layer, values in _layer_values(graph, plan, layers, plain, batch):
                cancel.check()
                simulated = _simulated(graph, plan, encodings, executor, values, layer)
                counts[layer.name].add(values[quantized_name(layer.output)], simulated)
        done += samples(batch)
        emit(Progress("Verifying", done, total, f"{len(layers)} layers in onnxruntime"))
    return Verification(
        samples=done,
        layers=tuple(counts[layer.name].result(layer) for layer in layers),
        plain=_end_to_end(plain_meter, optimizations=False),
        optimized=_end_to_end(optimized_meter, optimizations=True),
        integer_nodes=integer_nodes,
        float_nodes=float_nodes,
        different_constants=different_constants(graph, plan, encodings, path),
    )


def _layer_values(
    graph: ModelGraph,
    plan: Plan,
    layers: list[Layer],
    session: Session,
    batch: Mapping[str, np.ndarray],
) -> Iterator[tuple[Layer, dict[str, np.ndarray]]]:
    """Every layer with the tensors that go into it and come out of it."""
    start, count = 0, FIRST_LAYERS
    while start < len(layers):
        some = layers[start : start + count]
        values = {**batch, **session.run(batch, _readable(graph, plan, some))}
        for layer in some:
            yield layer, values
        start += count
        per_layer = sum(array.nbytes for array in values.values()) / len(some)
        count = max(1, int(READ_BYTES / per_layer))


def _reads_tensors(graph: ModelGraph, layer: Layer) -> bool:
    """False for a layer that reads a sequence of tensors, which cannot be fed to it alone."""
    others = (ir.SequenceType, ir.OptionalType)
    return not any(isinstance(graph.value(name).type, others) for name in layer.inputs)


def _readable(graph: ModelGraph, plan: Plan, layers: list[Layer]) -> list[str]:
    """Tensors of the file that the comparison reads."""
    names = [quantized_name(layer.output) for layer in layers]
    names += [simulated_name(graph, plan, name) for layer in layers for name in layer.inputs]
    inputs = {value.name for value in graph.inputs}
    return [name for name in dict.fromkeys(names) if name not in inputs]


def _simulated(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    executor: Executor,
    values: Mapping[str, np.ndarray],
    layer: Layer,
) -> np.ndarray:
    """The layer's output integers as simulated from the inputs that onnxruntime's layer got."""
    encoding = encodings[layer.output]
    if not layer.nodes:
        return encoding.quantize(values[layer.output])
    inputs = {
        name: torch.from_numpy(values[simulated_name(graph, plan, name)]) for name in layer.inputs
    }
    with torch.inference_mode():
        result = executor.run_nodes(layer.nodes, inputs, [layer.output])[layer.output]
    return encoding.quantize(result.numpy())


class _Counts:
    """How far two sets of integers are apart."""

    def __init__(self) -> None:
        self.values = self.same = self.near = self.largest = 0

    def add(self, actual: np.ndarray, expected: np.ndarray) -> None:
        steps = np.abs(actual.astype(np.int64) - expected)
        self.values += steps.size
        self.same += int((steps == 0).sum())
        self.near += int((steps <= 1).sum())
        self.largest = max(self.largest, int(steps.max(initial=0)))

    def result(self, layer: Layer) -> LayerCheck:
        total = max(self.values, 1)
        return LayerCheck(
            layer.name, layer.output, self.same / total, self.near / total, self.largest
        )


def _end_to_end(meter: OutputMeter, *, optimizations: bool) -> EndToEnd:
    return EndToEnd(optimizations, meter.distance.result(), meter.agreement.result())


def _kernels(path: Path) -> tuple[int, int]:
    """Compute nodes of an optimised graph that run in integers, and in float."""
    integer = plain = 0
    for node in onnx.load(str(path), load_external_data=False).graph.node:
        if node.op_type.startswith("QLinear") or node.op_type in _INTEGER_OPS:
            integer += 1
        elif node.op_type in _FLOAT_OPS:
            plain += 1
    return integer, plain
