"""What an operator of a QDQ graph reads and writes, as integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from studio.graph.edit import add_constant, array_of, input_of, int_attribute, only_consumer
from studio.graph.quantized.found import (
    BITS_NOTE,
    WEIGHT_BITS_NOTE,
    is_dequantize,
    is_quantize,
)

CONTRIB = "com.microsoft"
BYTES = (ir.DataType.INT8, ir.DataType.UINT8)


@dataclass(frozen=True, eq=False)
class Integers:
    """Integers with the scale and zero point that make them real numbers; `axis` of the scales of
    channels, `block_size` of blocks along it. `zero_point` None stands for 0. `bits` is noted where
    they use a part of their type."""

    value: ir.Value
    scale: ir.Value
    zero_point: ir.Value | None
    axis: int | None
    block_size: int | None
    dtype: ir.DataType
    bits: str | None = None

    @property
    def bytes(self) -> bool:
        """True for 8-bit integers with one scale, or one a channel."""
        return self.dtype in BYTES and self.block_size is None

    @property
    def single(self) -> bool:
        """True for 8-bit integers with one scale."""
        return self.bytes and self.axis is None

    @property
    def operands(self) -> list[ir.Value | None]:
        return [self.value, self.scale, self.zero_point]

    def alike(self, other: Integers) -> bool:
        """True if the same integers are the same real numbers."""
        return (
            self.dtype == other.dtype
            and self.axis == other.axis
            and self.block_size == other.block_size
            and _equal(self.scale, other.scale)
            and _equal(self.zero_point, other.zero_point)
        )


def _equal(one: ir.Value | None, other: ir.Value | None) -> bool:
    if one is other:
        return True
    first, second = array_of(one), array_of(other)
    return first is not None and second is not None and np.array_equal(first, second)


def dequantized(value: ir.Value | None) -> Integers | None:
    """The integers whose real numbers `value` are, else None."""
    node = None if value is None else value.producer()
    if value is None or node is None or not is_dequantize(node):
        return None
    return integers_of(node, node.inputs[0])


def integers_of(node: ir.Node, data: ir.Value | None) -> Integers | None:
    scale = input_of(node, 1)
    if data is None or scale is None or data.dtype is None:
        return None
    array = array_of(scale)
    single = array is None or array.ndim == 0
    axis = None if single else int_attribute(node, "axis", 1)
    return Integers(
        data,
        scale,
        input_of(node, 2),
        axis,
        int_attribute(node, "block_size", 0) or None,
        data.dtype,
        node.metadata_props.get(BITS_NOTE),
    )


@dataclass(frozen=True, eq=False)
class Result:
    """What becomes of a float result that is only rounded: `steps` are the Relu and Clip nodes
    between it and `quantize`; `limits` the lowest and highest integer that they leave."""

    quantize: ir.Node
    integers: Integers
    steps: tuple[ir.Node, ...]
    limits: tuple[int, int]


def rounded(value: ir.Value) -> Result | None:
    """How `value` is rounded, if nothing else reads it and it gets one scale of 8-bit integers."""
    steps: list[ir.Node] = []
    bounds: list[tuple[float, float]] = []
    while True:
        node = only_consumer(value)
        if node is None:
            return None
        if is_quantize(node):
            break
        bound = _bounds(node)
        if bound is None or node.inputs[0] is not value:
            return None
        steps.append(node)
        bounds.append(bound)
        value = node.outputs[0]
    integers = integers_of(node, node.outputs[0])
    if integers is None or not integers.single or node.inputs[0] is not value:
        return None
    return Result(node, integers, tuple(steps), _limits(integers, bounds))


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """Where the activation `node` cuts off; None for any other node."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip" or node.domain not in ("", "ai.onnx"):
        return None
    ends = []
    for index, default in ((1, -np.inf), (2, np.inf)):
        value = input_of(node, index)
        array = array_of(value)
        if value is not None and array is None:
            return None
        ends.append(default if array is None else float(array.reshape(())))
    return ends[0], ends[1]


def _limits(integers: Integers, bounds: list[tuple[float, float]]) -> tuple[int, int]:
    """Rounding keeps the order, so cutting off before it and after it is the same."""
    info = np.iinfo(integers.dtype.numpy())
    scale, zero = array_of(integers.scale), array_of(integers.zero_point)
    assert scale is not None
    offset = 0 if zero is None else int(zero.reshape(()))
    low, high = int(info.min), int(info.max)
    for ends in bounds:
        lower, upper = (
            int(np.clip(np.rint(np.float32(end) / scale) + offset, info.min, info.max))
            for end in ends
        )
        low, high = min(max(low, lower), upper), min(max(high, lower), upper)
    return low, high


def replace(
    graph: ir.Graph,
    node: ir.Node,
    result: Result,
    op: str,
    inputs: list[ir.Value | None],
    attributes: dict[str, Any],
    domain: str = "",
) -> None:
    """Put the integer operator `op` in place of `node` and all up to its QuantizeLinear."""
    new = ir.node(op, inputs, attributes, domain=domain, name=node.name)
    new.metadata_props.update(node.metadata_props)
    old, made = result.quantize.outputs[0], new.outputs[0]
    graph.insert_before(result.quantize, new)
    made.type, made.shape = old.type, old.shape
    assert old.dtype is not None
    info = np.iinfo(old.dtype.numpy())
    name = old.name or ""
    if result.limits != (info.min, info.max) and not _clipped(old, result.limits):
        ends = [
            add_constant(graph, f"{name}_{end}", np.array(limit, old.dtype.numpy()))
            for end, limit in zip(("lowest", "highest"), result.limits, strict=True)
        ]
        clip = ir.node("Clip", [made, *ends], name=f"{name}_Clip")
        plain = name.removesuffix("_quantized")
        made.name = f"{name}_unlimited" if plain == name else f"{plain}_saturated"
        graph.insert_before(result.quantize, clip)
        made = clip.outputs[0]
    take_place(old, made)
    for gone in (result.quantize, *reversed(result.steps), node):
        graph.remove(gone, safe=True)


def take_place(old: ir.Value, made: ir.Value) -> None:
    """Readers of `old` read `made`, which takes its name, type and shape."""
    name = old.name
    made.type, made.shape = old.type, old.shape
    old.replace_all_uses_with(made, replace_graph_outputs=True)
    old.name, made.name = None, name


def _clipped(integers: ir.Value, limits: tuple[int, int]) -> bool:
    """True if a Clip that alone reads `integers` leaves no more than `limits`."""
    node = only_consumer(integers)
    bounds = None if node is None else _bounds(node)
    return bounds is not None and limits[0] <= bounds[0] and bounds[1] <= limits[1]


def plain_attributes(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def zero_point_of(graph: ir.Graph, integers: Integers) -> ir.Value:
    """Its zero point, written out as 0 where there is none."""
    if integers.zero_point is not None:
        return integers.zero_point
    name = f"{integers.value.name}_zero"
    known = graph.initializers.get(name)
    return known or add_constant(graph, name, np.zeros((), integers.dtype.numpy()))


def note_bits(node: ir.Node, weight: Integers) -> None:
    """Keep on the operator how many bits its weight uses of their type."""
    if weight.bits is not None:
        node.metadata_props[WEIGHT_BITS_NOTE] = weight.bits


def is_product(bias: ir.Value | None, source: Integers, weight: Integers) -> Integers | None:
    """The int32 integers of `bias` if their scale is that of input times weight, exactly."""
    found = dequantized(bias)
    if found is None or found.dtype != ir.DataType.INT32 or found.zero_point is not None:
        return None
    scales = [array_of(item.scale) for item in (found, source, weight)]
    if any(scale is None for scale in scales):
        return None
    own, first, second = (np.asarray(scale) for scale in scales)
    return found if np.array_equal(own, np.asarray(first * second, np.float32)) else None
