"""Weights and biases: integers behind DequantizeLinear, or floats between Q and DQ."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    add_constant,
    array_of,
    input_of,
    int_attribute,
    ints_attribute,
    is_op,
)
from studio.graph.quantized.found import (
    BITS_NOTE,
    CAST_TYPES,
    INTEGER_BITS,
    FoundQuantization,
    NotLiftableError,
    Parameters,
    is_dequantize,
    is_quantize,
    read_parameters,
)

if TYPE_CHECKING:
    from studio.graph.quantized.lift import Notes

ENDINGS = (
    "_quantized",
    "_quantized_blocks",
    "_quantized_transposed",
    "_DequantizeLinear_Output",
    "_dequantized",
    "_qdq",
)
"""What quantizers append to the name of a constant."""

Records = dict[ir.Value, FoundQuantization]


def lift_constants(graph: ir.Graph, names: Names, records: Records, notes: Notes) -> None:
    """Replace every DequantizeLinear of a constant, and every Q/DQ pair on one, by a float constant
    with its record; a Transpose behind it is done at once."""
    known: dict[tuple[object, ...], ir.Value] = {}
    for node in list(graph):
        if not is_dequantize(node):
            continue
        constant = _from_integers(node, graph, names, records, notes, known)
        if constant is None:
            constant = _from_pair(node, graph, names, records, known)
        if constant is None:
            continue
        for use in list(node.outputs[0].uses()):
            use.node.replace_input_with(use.idx, constant)
        if not node.outputs[0].is_graph_output():  # else it stays for that alone
            graph.remove(node, safe=True)
    for node in list(graph):
        _transpose(node, graph, names, records)


def _from_integers(
    node: ir.Node,
    graph: ir.Graph,
    names: Names,
    records: Records,
    notes: Notes,
    known: dict[tuple[object, ...], ir.Value],
) -> ir.Value | None:
    data = node.inputs[0]
    integers = array_of(data)
    if data is None or integers is None:
        return None
    try:
        parameters = read_parameters(node, upright=False)
        key = (id(data), parameters.key)
        if key in known:
            return known[key]
        _check_fit(parameters, integers.shape)
        numbers, parameters = _upright(integers, parameters)
        floats, kept = _floats(numbers, parameters)
    except NotLiftableError as problem:
        unusual = _unusual(node, integers)
        if unusual is None:
            return None
        notes.add(f"The constants of {{}} became float and stay float ({problem}).", node)
        return add_constant(graph, _name(node, data, names), unusual)
    value = add_constant(graph, _name(node, data, names), floats)
    bits = int(node.metadata_props.get(BITS_NOTE, 0)) or None
    records[value] = parameters.found(bits, kept)
    known[key] = value
    return value


def _floats(
    numbers: npt.NDArray, parameters: Parameters
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None]:
    """Float values of stored `numbers`, and the integers where rounding would not give them back.

    Raises NotLiftableError where it would not give floating-point numbers back: infinity.
    """
    if parameters.float_format is not None:
        floats = dequantize(numbers, parameters)
        again = quantize(floats, parameters).astype(np.float32)
        if not np.array_equal(again, numbers.astype(np.float32), equal_nan=True):
            raise NotLiftableError("its numbers are not what rounding gives")
        return floats, None
    whole = numbers.astype(np.int64)
    floats = dequantize(whole, parameters)
    return floats, None if np.array_equal(quantize(floats, parameters), whole) else whole


def _from_pair(
    node: ir.Node,
    graph: ir.Graph,
    names: Names,
    records: Records,
    known: dict[tuple[object, ...], ir.Value],
) -> ir.Value | None:
    """Float constant -> Q -> DQ: the constant stays what it is."""
    data = node.inputs[0]
    quantize_node = None if data is None else data.producer()
    if quantize_node is None or not is_quantize(quantize_node):
        return None
    source = quantize_node.inputs[0]
    floats = array_of(source)
    if source is None or floats is None or floats.dtype != np.float32:
        return None
    try:
        parameters, before = read_parameters(node), read_parameters(quantize_node)
        _check_fit(parameters, floats.shape)
    except NotLiftableError:
        return None
    if parameters.key != before.key:
        return None
    key = (id(source), parameters.key)
    if key not in known:
        # other readers of the constant keep the unrounded one
        alone = len(source.uses()) == 1
        value = source if alone else add_constant(graph, names.fresh(f"{source.name}_1"), floats)
        records[value] = parameters.found(int(node.metadata_props.get(BITS_NOTE, 0)) or None)
        known[key] = value
    return known[key]


def _upright(numbers: npt.NDArray, parameters: Parameters) -> tuple[npt.NDArray, Parameters]:
    """The same real numbers with positive scales.

    onnxruntime's 4-bit quantizer uses the lowest integer for the largest number by a negative
    scale, and scale 0 for zeros: (q - z) * s is (z - q) * -s, with the integers counted from above.
    """
    scale = parameters.scale
    if (scale > 0).all():
        return numbers, parameters
    if parameters.dtype == ir.DataType.INT32:
        raise NotLiftableError("its scale is not a positive number")

    def spread(array: npt.NDArray) -> npt.NDArray:
        return _spread(array, parameters.axis, parameters.block_size, numbers.shape)

    bits, signed = INTEGER_BITS.get(parameters.dtype, (0, True))
    ends = (-1 if signed else 2**bits - 1) if bits else 0  # lowest and highest integer together
    wide = numbers.astype(np.int64 if bits else np.float32)
    zero_point = np.where(scale < 0, ends - parameters.zero_point, parameters.zero_point)
    turned = np.where(spread(scale < 0), ends - wide, wide)
    turned = np.where(spread(scale == 0), spread(zero_point), turned)
    positive = np.where(scale == 0, np.finfo(np.float32).tiny, np.abs(scale))
    return turned.astype(numbers.dtype), replace(parameters, scale=positive, zero_point=zero_point)


def _check_fit(parameters: Parameters, shape: tuple[int, ...]) -> None:
    """NotLiftableError if the scales are not for a constant of `shape`, whatever the file claims
    that to be."""
    try:
        spread = _spread(parameters.scale, parameters.axis, parameters.block_size, shape)
        fits = np.broadcast_shapes(spread.shape, shape) == shape
    except (IndexError, ValueError):
        fits = False
    if not fits:
        raise NotLiftableError("its scales do not fit its numbers")


def dequantize(numbers: npt.NDArray, parameters: Parameters) -> npt.NDArray[np.float32]:
    """Float values of `numbers` (int64, or of the float type) in float32, as onnxruntime computes
    them."""
    scale, zero_point = (
        _spread(array, parameters.axis, parameters.block_size, numbers.shape)
        for array in (parameters.scale, parameters.zero_point)
    )
    plain = numbers if parameters.float_format is not None else numbers - zero_point
    result: npt.NDArray[np.float32] = plain.astype(np.float32) * scale
    return result


def quantize(floats: npt.NDArray[np.float32], parameters: Parameters) -> npt.NDArray:
    """Numbers of `floats`, int64 or of the float type: divide in float32, round half to even,
    saturate."""
    scale, zero_point = (
        _spread(array, parameters.axis, parameters.block_size, floats.shape)
        for array in (parameters.scale, parameters.zero_point)
    )
    if parameters.float_format is not None:
        kind = parameters.dtype.numpy()
        quotients = np.divide(floats, scale, dtype=np.float32)
        if parameters.dtype not in CAST_TYPES:
            largest = float(ml_dtypes.finfo(kind).max)
            quotients = np.clip(quotients, -largest, largest)
        return quotients.astype(kind)
    bits, signed = INTEGER_BITS[parameters.dtype]
    low = -(2 ** (bits - 1)) if signed else 0
    steps = np.rint(np.divide(floats, scale, dtype=np.float32)).astype(np.float64) + zero_point
    return np.clip(steps, low, low + 2**bits - 1).astype(np.int64)


def _spread(
    array: npt.NDArray, axis: int | None, block_size: int | None, shape: tuple[int, ...]
) -> npt.NDArray:
    """Scales or zero points with the shape `shape`, or one that broadcasts to it."""
    if axis is None or array.size == 1:
        return array.reshape(())
    if block_size:
        return np.take(np.repeat(array, block_size, axis=axis), range(shape[axis]), axis=axis)
    return array.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])


def _unusual(node: ir.Node, values: np.ndarray) -> np.ndarray | None:
    """Float values of constants that cannot be put back as they are: with a float16 scale."""
    scale, zero_point = array_of(input_of(node, 1)), array_of(input_of(node, 2))
    if scale is None or (input_of(node, 2) is not None and zero_point is None):
        return None
    axis, block = int_attribute(node, "axis", 1), int_attribute(node, "block_size", 0)
    dtype = np.dtype(scale.dtype)
    wanted = int_attribute(node, "output_dtype", 0)
    if wanted:
        dtype = ir.DataType(wanted).numpy()

    try:
        plain = values.astype(np.float32)
        if zero_point is not None:
            plain = plain - _spread(zero_point.astype(np.float32), axis, block, values.shape)
        factor = _spread(scale.astype(np.float32), axis, block, values.shape)
        return (plain * factor).astype(dtype)
    except (IndexError, ValueError):
        return None  # shapes that do not fit together; the node stays


def _name(node: ir.Node, data: ir.Value, names: Names) -> str:
    """The constant's name before it was quantized, as far as that can be told."""
    output, stored = node.outputs[0].name or "", data.name or ""
    for name in (stored, output):
        plain = plain_name(name)
        if plain and plain != output:
            return names.fresh(plain)
    if not output or node.outputs[0].is_graph_output():
        return names.fresh(plain_name(stored) or stored)
    node.outputs[0].name = None  # the constant takes it over
    return output


def plain_name(name: str) -> str:
    """`name` without what a quantizer appended to it; empty if it appended nothing."""
    ending = next((ending for ending in ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending) if ending else ""


def _transpose(node: ir.Node, graph: ir.Graph, names: Names, records: Records) -> None:
    source = input_of(node, 0)
    if not is_op(node, "Transpose") or source is None or source not in records:
        return
    array, record, output = array_of(source), records[source], node.outputs[0]
    if array is None or output.is_graph_output():
        return
    order = ints_attribute(node, "perm") or list(range(array.ndim))[::-1]
    axis = None if record.axis is None else order.index(record.axis)
    value = add_constant(
        graph,
        names.fresh(f"{source.name}_transposed"),
        np.ascontiguousarray(array.transpose(order)),
    )
    integers = None if record.integers is None else record.integers.transpose(order)
    scale, zero_point = record.scale, record.zero_point
    if record.block_size is not None:
        scale, zero_point = scale.transpose(order), zero_point.transpose(order)
    records[value] = replace(
        record, scale=scale, zero_point=zero_point, axis=axis, integers=integers
    )
    output.replace_all_uses_with(value)
    graph.remove(node, safe=True)
