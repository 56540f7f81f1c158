"""What a file says about the quantization of one tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from studio.graph.edit import array_of, input_of, int_attribute

INTEGER_BITS = {
    ir.DataType.INT2: (2, True),
    ir.DataType.UINT2: (2, False),
    ir.DataType.INT4: (4, True),
    ir.DataType.UINT4: (4, False),
    ir.DataType.INT8: (8, True),
    ir.DataType.UINT8: (8, False),
    ir.DataType.INT16: (16, True),
    ir.DataType.UINT16: (16, False),
    ir.DataType.INT32: (32, True),
}
"""(bits, signed) of the integer types quantized numbers are stored in."""

BITS_NOTE = "quantization.bits"
"""Metadata of a DequantizeLinear node: bits of its integers where they use a part of their type."""

WEIGHT_BITS_NOTE = "quantization.weight_bits"
"""The same of an integer operator: bits of its weight."""


@dataclass(frozen=True, eq=False)
class FoundQuantization:
    """`real = (integer - zero_point) * scale`, as a file states it for one tensor.

    scale: float32, shape () per tensor, (channels,) along `axis`, or the shape of the blocks of
    `block_size` values along `axis`; positive and finite. zero_point: int64, same shape. bits,
    signed: the grid. storage_bits: size of the integer type in the file, `bits` or more (None: the
    file does not say). integers: those of a constant, only where rounding its float values
    again would not give exactly them (int32 biases beyond 2**24, scales below float32's range).

    The rest is known where an encodings file says it. symmetric: None if that follows from the zero
    points. strict, unsigned_symmetric, power_of_two: kinds of grids. float_format: numbers of that
    format instead of integers. integer_scale: int64, low-power blocks.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int | None
    bits: int
    signed: bool
    storage_bits: int | None
    integers: npt.NDArray[np.int64] | None = None
    symmetric: bool | None = None
    strict: bool = False
    unsigned_symmetric: bool = False
    power_of_two: bool = False
    float_format: str | None = None
    block_size: int | None = None
    integer_scale: npt.NDArray[np.int64] | None = None


class NotLiftableError(Exception):
    """Why a node's quantization cannot be taken out of the graph, for people."""


@dataclass(frozen=True, eq=False)
class Parameters:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear node."""

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int | None
    dtype: ir.DataType

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for nodes that round alike."""
        scale, zero_point = self.scale, self.zero_point
        return (self.dtype, self.axis, scale.shape, scale.tobytes(), zero_point.tobytes())

    def found(
        self, bits: int | None = None, integers: npt.NDArray[np.int64] | None = None
    ) -> FoundQuantization:
        """The record of a tensor rounded like this; `bits` if only a part of the type is used."""
        storage, signed = INTEGER_BITS[self.dtype]
        return FoundQuantization(
            self.scale, self.zero_point, self.axis, bits or storage, signed, storage, integers
        )


def is_quantize(node: ir.Node | None) -> bool:
    return _is(node, "QuantizeLinear")


def is_dequantize(node: ir.Node | None) -> bool:
    return _is(node, "DequantizeLinear")


def _is(node: ir.Node | None, op: str) -> bool:
    return (
        node is not None and node.op_type == op and node.domain in ("", "ai.onnx", "com.microsoft")
    )


def read_parameters(node: ir.Node) -> Parameters:
    """Parameters of a Q or DQ node; NotLiftableError says what is unusual about them."""
    data, scale = input_of(node, 0), array_of(input_of(node, 1))
    zero_value = input_of(node, 2)
    zero_point = array_of(zero_value)
    if scale is None or (zero_value is not None and zero_point is None):
        raise NotLiftableError("its scale or zero point is computed while the model runs")
    if int_attribute(node, "block_size", 0):
        raise NotLiftableError("its scales belong to blocks of elements")
    dtype = _integer_type(node, data, zero_value)
    if dtype not in INTEGER_BITS:
        raise NotLiftableError(f"its values are {dtype.name.lower()}, not integers")
    if scale.dtype != np.float32:
        raise NotLiftableError(f"its scale is {scale.dtype}, not float32")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise NotLiftableError("its scale is not a positive number")
    if scale.ndim > 1:
        raise NotLiftableError(f"its scale has the shape {list(scale.shape)}")
    if zero_point is None:
        zero_point = np.zeros(scale.shape, dtype=np.int64)
    zero_point = zero_point.astype(np.int64)
    if zero_point.size != scale.size:
        raise NotLiftableError(f"it has {scale.size} scales and {zero_point.size} zero points")
    if scale.size == 1:
        return Parameters(scale.reshape(()), zero_point.reshape(()), None, dtype)
    if data is None or data.shape is None:
        raise NotLiftableError("it has a scale for each channel of a tensor of unknown shape")
    rank = len(data.shape)
    axis = int_attribute(node, "axis", 1)
    if not -rank <= axis < rank:
        raise NotLiftableError(f"its axis {axis} does not exist")
    channels = data.shape[axis]
    if isinstance(channels, int) and channels != scale.size:
        raise NotLiftableError(f"it has {scale.size} scales for {channels} channels")
    return Parameters(scale, zero_point, axis % rank, dtype)


def _integer_type(node: ir.Node, data: ir.Value | None, zero_point: ir.Value | None) -> ir.DataType:
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if is_dequantize(node):
        known = None if data is None else data.dtype
    else:
        known = node.outputs[0].dtype or ir.DataType(
            int_attribute(node, "output_dtype", 0) or ir.DataType.UINT8
        )
    if known is None:
        raise NotLiftableError("the type of its integers is not known")
    return known
