"""The conditions on which onnxruntime turns a layer between Q and DQ into an integer kernel.

They are those of its CPU provider on x86-64 with default session options (onnxruntime 1.31,
core/optimizer/qdq_transformer); tests/analysis/test_forecast.py holds them against the graphs that
the installed onnxruntime makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx_ir as ir

from studio.graph.model import ModelGraph, is_constant
from studio.quant.encoding import Encoding
from studio.quant.grid import Grid
from studio.sim import op_rules
from studio.sim.plan import Layer, Plan, Role, TensorPlan
from studio.sim.qdq import Storage
from studio.sim.qdq.storage import container_bits, types_of


class Runs(StrEnum):
    """INTEGER: a kernel that computes in integers, or moves them. WEIGHTS: integer weights and
    float activations (MatMulNBits). FLOAT: a float kernel, between conversions. ABSORBED: no kernel
    of its own; it is part of another, or a constant."""

    INTEGER = "integer"
    WEIGHTS = "integer weights"
    FLOAT = "float"
    ABSORBED = "absorbed"


@dataclass(frozen=True)
class Kernel:
    """The operator that does a layer's work; `reason` and `hint` where that is not in integers,
    `warning` where it computes something else than the simulation."""

    runs: Runs
    name: str
    reason: str = ""
    hint: str = ""
    warning: str = ""


_MOVES_16_BITS = frozenset(
    ["Gather", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice", "Tile"]
)
_CARRYING = frozenset(["Reshape", "Squeeze", "Transpose", "Unsqueeze"])
_UNARY = {
    "AveragePool": "QLinearAveragePool",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
    "LeakyRelu": "QLinearLeakyRelu",
    "Sigmoid": "QLinearSigmoid",
    "Softmax": "QLinearSoftmax",
}
_JOINING = {"Add": "QLinearAdd", "Mul": "QLinearMul", "Concat": "QLinearConcat"}
_OF_WEIGHTS = ("int2", "uint2", "int4", "uint4", "int8", "uint8")
_UNSIGNED = "Use unsigned activations, or set session.qdqisint8allowed."
_ROUNDED_INSIDE = (
    "written as Q/DQ, ONNX Runtime rounds the activations to 8 bits inside MatMulNBits unless "
    "session.qdq_matmulnbits_accuracy_level is 1"
)
_EPSILON = float(np.finfo(np.float32).eps)


class Rounded:
    """The type in which each tensor is stored in the exported file."""

    def __init__(
        self,
        graph: ModelGraph,
        plan: Plan,
        storage: Storage,
        encodings: Mapping[str, Encoding],
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.encodings = encodings
        self._storage = storage
        self._layers = {node: layer for layer in plan.layers for node in layer.nodes}

    def row(self, name: str) -> TensorPlan:
        return self.plan.tensors[name]

    def type(self, name: str, layer: Layer | None = None) -> str:
        """`uint8`, `int4`, `float8e4m3fn`, ...; `dynamic`; "" for a tensor that is read as it is
        (by `layer`, if given)."""
        row = self.row(name)
        as_it_is = row.read_by is not None and (layer is None or not row.read_by & set(layer.nodes))
        if row.spec is None or as_it_is:
            source = self._carried(name)
            return "" if source is None else self.type(*source)
        if row.dynamic:
            return "dynamic"
        dtype, _ = types_of(row.spec.grid, container_bits(row, self._storage))
        return dtype.name.lower()

    def _carried(self, name: str) -> tuple[str, Layer] | None:
        """What an operator that only moves values makes `name` of, and its layer: onnxruntime
        carries Q and DQ through it."""
        value = self.graph.value(name)
        producer = value.producer()
        if producer is None or producer.op_type not in _CARRYING or producer.inputs[0] is None:
            return None
        moved = self._layers.get(producer.name or "")
        if moved is None or value.is_graph_output():
            return None
        return producer.inputs[0].name or "", moved

    def in_kernel(self, name: str, layer: Layer | None = None) -> str:
        """The type after onnxruntime's rewriting: int8 of a tensor with one reader becomes uint8
        (session.qdqisint8allowed is off on x86); behind more readers, or a Clip, it stays."""
        kind, row = self.type(name, layer), self.row(name)
        if kind != "int8" or row.role in (Role.WEIGHT, Role.CONSTANT):
            return kind
        if row.spec is None:
            source = self._carried(name)
            return kind if source is None else self.in_kernel(*source)
        value = self.graph.value(name)
        readers = len({use.node for use in value.uses()}) + value.is_graph_output()
        return "uint8" if readers == 1 and row.spec.grid.bits == 8 else "int8"

    def why_float(self, name: str, layer: Layer) -> str:
        """Why `layer` reads or makes the tensor in float; "" if it is quantized."""
        row = self.row(name)
        if self.type(name, layer):
            return ""
        if row.spec is None:
            return f"{name} is not quantized: {row.reason}"
        if name not in layer.outputs:
            return f"{name} is read as it is"
        return ""

    def bits(self, name: str) -> int:
        """Bits of the grid of a quantized tensor."""
        spec = self.row(name).spec
        assert spec is not None
        return spec.grid.bits

    def lowest(self, name: str, kind: str) -> bool | None:
        """True if the zero point is the lowest integer of the type `kind`, so that no value below
        0 is left; from the encoding or, before there is one, from the grid."""
        row = self.row(name)
        assert row.spec is not None and isinstance(row.spec.grid, Grid)
        grid = row.spec.grid
        floor = -(2 ** (int(kind.removeprefix("int")) - 1)) if grid.signed else 0
        known = self.encodings.get(name)
        if known is not None:
            return bool((known.zero_point == floor).all())
        if grid.symmetric and not grid.unsigned_symmetric:
            return False
        return grid.qmin == floor


def onnxruntime_kernel(graph: ModelGraph, layer: Layer, rounded: Rounded) -> Kernel:
    """What onnxruntime's CPU provider makes of `layer`, whose operator has an integer kernel."""
    head = graph.node(layer.nodes[0])
    op = head.op_type
    if op in ("Conv", "Gemm", "MatMul"):
        return _product(graph, layer, head, rounded)
    made = [value.name for value in head.outputs if value.name]
    if len(made) > 1 and op != "Split":
        return Kernel(Runs.FLOAT, op, f"ONNX Runtime moves integers in a {op} of one output only")
    read = [head.inputs[slot] for slot in op_rules.data_slots(head) if slot < len(head.inputs)]
    data = [value.name or "" for value in read if value is not None]
    if op == "Gather" and rounded.type(data[0], layer).endswith("4"):
        return Kernel(Runs.FLOAT, op, f"{data[0]} is stored in 4 bits", "Store it in 8 bits.")
    for name in (*data, layer.output):
        why = rounded.why_float(name, layer)
        if why:
            return Kernel(Runs.FLOAT, op, why)
    names = (*data, layer.output)
    kinds = [rounded.in_kernel(name, layer) for name in names]
    if len(set(kinds)) > 1:
        return _mixed(op, names, kinds, [rounded.type(name, layer) for name in names])
    kind = kinds[0]
    moves = kind.endswith("int16") and op in _MOVES_16_BITS
    if moves and rounded.bits(layer.output) < 16:
        text = f"{layer.output} has {rounded.bits(layer.output)} bits: they are clipped in float"
        return Kernel(Runs.FLOAT, op, text, "Use 16 bits.")
    if not kind.endswith("int8") and not moves:
        return _no_kernel_for(op, kind)
    if len(layer.nodes) > 1:
        kept = _activation_that_stays(graph, layer, rounded)
        if kept is not None:
            return Kernel(Runs.FLOAT, op, *kept)
    return Kernel(Runs.INTEGER, _UNARY.get(op) or _JOINING.get(op, op))


def _product(graph: ModelGraph, layer: Layer, head: ir.Node, rounded: Rounded) -> Kernel:
    """Conv, Gemm, MatMul."""
    op = head.op_type
    left, right = (value.name or "" for value in head.inputs[:2] if value is not None)
    x, w = rounded.in_kernel(left, layer), rounded.type(right, layer)
    weight = rounded.row(right)
    blocks = weight.spec is not None and weight.spec.block_size is not None
    rounded_at_once = len(layer.nodes) == 1 and rounded.type(layer.output)
    if not x and not rounded_at_once and _weights_alone(head, w):
        return Kernel(Runs.WEIGHTS, "MatMulNBits", warning=_ROUNDED_INSIDE)
    self_rounded = op in ("Conv", "Gemm") and not w and weight.role is Role.WEIGHT
    for name in (left,) if self_rounded else (left, right):
        why = rounded.why_float(name, layer)
        if why:
            return Kernel(Runs.FLOAT, op, why)
    if blocks:
        return Kernel(
            Runs.FLOAT,
            op,
            f"{right} has a scale for each block and {left} is quantized",
            "Use scales per channel, or leave activations in float (weight-only).",
        )
    if x == "dynamic":
        return Kernel(Runs.INTEGER, "ConvInteger" if op == "Conv" else "MatMulInteger")
    for kind in (x, w or "int8"):
        if not kind.endswith("int8"):
            return _no_kernel_for(op, kind)
    if x == "int8" and op != "Gemm":
        text = f"{left} is signed and read more than once, or not of 8 bits"
        return Kernel(Runs.FLOAT, op, text, _UNSIGNED)
    if x == "int8" and w == "uint8":
        text = "ONNX Runtime has no kernel for signed activations and unsigned weights"
        return Kernel(Runs.FLOAT, op, text, "Use signed weights.")
    y = rounded.in_kernel(layer.output)
    kept = _activation_that_stays(graph, layer, rounded) if len(layer.nodes) > 1 else None
    if op == "Conv" and not y:
        return Kernel(Runs.FLOAT, op, rounded.why_float(layer.output, layer))
    if kept is not None and (op == "Conv" or (op == "Gemm" and y)):
        return Kernel(Runs.FLOAT, op, *kept)
    if kept is None and y and y != x:
        names = (left, layer.output)
        return _mixed(op, names, [x, y], [rounded.type(name, layer) for name in names])
    kernel = {"Conv": "QLinearConv", "Gemm": "QGemm", "MatMul": "QLinearMatMul"}[op]
    if op == "MatMul" and (kept is not None or not y):
        kernel = "MatMulIntegerToFloat"
    warning = ""
    if self_rounded:
        warning = f"ONNX Runtime rounds the float weight {right} to 8 bits by itself"
    return Kernel(Runs.INTEGER, kernel, warning=warning)


def _weights_alone(head: ir.Node, kind: str) -> bool:
    """True if a product of float activations and integer weights becomes a MatMulNBits."""
    weight = head.inputs[1]
    assert weight is not None
    if kind not in _OF_WEIGHTS or not is_constant(weight) or len(weight.shape or ()) != 2:
        return False
    if head.op_type == "Gemm":
        return not any(
            head.attributes[name].value != wanted
            for name, wanted in (("transA", 0), ("transB", 0), ("alpha", 1.0), ("beta", 1.0))
            if name in head.attributes
        )
    return head.op_type == "MatMul"


def _activation_that_stays(
    graph: ModelGraph, layer: Layer, rounded: Rounded
) -> tuple[str, str] | None:
    """(reason, hint) if the nodes behind the head do not disappear in the output's rounding."""
    last = graph.node(layer.nodes[-1])
    kind = rounded.type(layer.output)
    if len(layer.nodes) > 2 or last.op_type not in ("Relu", "Clip") or not kind:
        return f"the {last.op_type} behind it is computed in float", ""
    if not kind.endswith("int8"):
        return f"the output is {kind}", "Use 8 bits."
    if last.op_type == "Relu":
        if rounded.lowest(layer.output, kind):
            return None
        return (
            f"the zero point of {layer.output} is not the lowest integer of {kind}, so that ONNX "
            "Runtime keeps the Relu and computes in float",
            "Use asymmetric activations, or unsigned symmetric ones.",
        )
    low, high = _bounds(last)
    known = rounded.encodings.get(layer.output)
    if known is None:
        whole = rounded.bits(layer.output) == 8
        fits = whole and low == 0 and bool(rounded.lowest(layer.output, kind))
    else:
        step, zero = np.float32(known.scale), int(known.zero_point)
        floor = -128 if kind == "int8" else 0
        below = np.float32(step * np.float32(floor - zero))
        above = np.float32(step * np.float32(floor + 255 - zero))
        fits = low - float(below) <= _EPSILON and float(above) - high <= _EPSILON
    if fits:
        return None
    return (
        f"the {kind} range of {layer.output} goes beyond {low:g} to {high:g}, so that ONNX Runtime "
        "keeps the Clip and computes in float",
        "Use 8 bits and asymmetric activations whose range is that of the Clip.",
    )


def _bounds(clip: ir.Node) -> tuple[float, float]:
    """Constant bounds of a Clip; infinite where there is none."""
    found = [-np.inf, np.inf]
    for index, value in enumerate(clip.inputs[1:3]):
        if value is not None and is_constant(value) and value.const_value is not None:
            found[index] = float(value.const_value.numpy())
    return found[0], found[1]


def _no_kernel_for(op: str, kind: str) -> Kernel:
    text = f"ONNX Runtime has no {op} for {kind}"
    if kind == "dynamic":
        return Kernel(Runs.FLOAT, op, f"ONNX Runtime has no {op} with dynamic ranges")
    return Kernel(Runs.FLOAT, op, text, "Use 8-bit integers.")


def _mixed(op: str, names: Sequence[str], kinds: Sequence[str], stored: Sequence[str]) -> Kernel:
    if len(set(stored)) == 1:
        several = ", ".join(
            name for name, kind in zip(names, kinds, strict=True) if kind == stored[0]
        )
        text = (
            f"ONNX Runtime makes uint8 of signed activations, but not of those that are read more "
            f"than once ({several}), and has no {op} for both"
        )
        return Kernel(Runs.FLOAT, op, text, _UNSIGNED)
    listed = ", ".join(f"{name} {kind}" for name, kind in zip(names, stored, strict=True))
    text = f"ONNX Runtime has no {op} for different types: {listed}"
    return Kernel(Runs.FLOAT, op, text, "Give them the same bits and sign.")
