"""What a file says about the quantization of one tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from studio.graph.edit import array_of, input_of, int_attribute, is_op

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

FLOAT_FORMATS = {
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.FLOAT8E4M3FN: "float8e4m3fn",
    ir.DataType.FLOAT8E4M3FNUZ: "float8e4m3fnuz",
    ir.DataType.FLOAT8E5M2: "float8e5m2",
    ir.DataType.FLOAT8E5M2FNUZ: "float8e5m2fnuz",
    ir.DataType.FLOAT4E2M1: "float4e2m1",
}
"""Names of the small floating-point types."""

CAST_TYPES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
"""Those that are not scaled: Cast goes there and back."""

BITS_NOTE = "quantization.bits"
"""Metadata of a DequantizeLinear node: bits of its integers where they use a part of their type; of
a Cast: that it is there for rounding."""

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

    dynamic: ranged at every inference, as DynamicQuantizeLinear does; scale and zero point are 1
    and 0 and mean nothing.
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
    dynamic: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for tensors that are rounded alike."""
        grid = (self.bits, self.signed, self.strict, self.storage_bits, self.float_format)
        place = (self.axis, self.block_size, self.dynamic, self.scale.shape)
        return (grid, place, self.scale.tobytes(), self.zero_point.tobytes())


RANGED = FoundQuantization(
    np.ones((), np.float32), np.zeros((), np.int64), None, 8, False, 8, dynamic=True
)
"""A tensor behind DynamicQuantizeLinear."""


class NotLiftableError(Exception):
    """Why a node's quantization cannot be taken out of the graph, for people."""


@dataclass(frozen=True, eq=False)
class Parameters:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear node."""

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int | None
    dtype: ir.DataType
    block_size: int | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for nodes that round alike."""
        place = (self.axis, self.block_size, self.scale.shape)
        return (self.dtype, place, self.scale.tobytes(), self.zero_point.tobytes())

    @property
    def float_format(self) -> str | None:
        """Name of the floating-point type; None for integers."""
        return FLOAT_FORMATS.get(self.dtype)

    def found(
        self, bits: int | None = None, integers: npt.NDArray[np.int64] | None = None
    ) -> FoundQuantization:
        """The record of a tensor rounded like this; `bits` if only a part of the type is used."""
        storage, signed = INTEGER_BITS.get(self.dtype, (self.dtype.bitwidth, True))
        return FoundQuantization(
            self.scale,
            self.zero_point,
            self.axis,
            bits or storage,
            signed,
            storage,
            integers,
            float_format=self.float_format,
            block_size=self.block_size,
        )


def is_quantize(node: ir.Node | None) -> bool:
    return _is(node, "QuantizeLinear")


def is_dequantize(node: ir.Node | None) -> bool:
    return _is(node, "DequantizeLinear")


def is_dynamic_quantize(node: ir.Node | None) -> bool:
    return node is not None and is_op(node, "DynamicQuantizeLinear")


def _is(node: ir.Node | None, op: str) -> bool:
    return (
        node is not None and node.op_type == op and node.domain in ("", "ai.onnx", "com.microsoft")
    )


def read_parameters(node: ir.Node, *, upright: bool = True) -> Parameters:
    """Parameters of a Q or DQ node; NotLiftableError says what is unusual about them: a scale that
    is negative or zero, if they are to be `upright`."""
    data, scale = input_of(node, 0), array_of(input_of(node, 1))
    zero_value = input_of(node, 2)
    zero_point = array_of(zero_value)
    if scale is None or (zero_value is not None and zero_point is None):
        raise NotLiftableError("its scale or zero point is computed while the model runs")
    dtype = _number_type(node, data, zero_value)
    if dtype not in INTEGER_BITS and dtype not in FLOAT_FORMATS:
        raise NotLiftableError(f"its values are {dtype.name.lower()}")
    if dtype in FLOAT_FORMATS and not int_attribute(node, "saturate", 1):
        raise NotLiftableError("it does not saturate")
    wanted = int_attribute(node, "output_dtype", 0)
    if is_dequantize(node) and wanted not in (0, ir.DataType.FLOAT):
        raise NotLiftableError(f"its result is {ir.DataType(wanted).name.lower()}")
    if scale.dtype != np.float32:
        raise NotLiftableError(f"its scale is {scale.dtype}, not float32")
    if not np.isfinite(scale).all() or (upright and (scale <= 0).any()):
        raise NotLiftableError("its scale is not a positive number")
    block_size = int_attribute(node, "block_size", 0)
    if scale.ndim > 1 and not block_size:
        raise NotLiftableError(f"its scale has the shape {list(scale.shape)}")
    if zero_point is None:
        zero_point = np.zeros(scale.shape, dtype=np.int64)
    zero_point = zero_point.astype(np.int64)
    if dtype in FLOAT_FORMATS and zero_point.any():
        raise NotLiftableError("it has a zero point between floating-point numbers")
    if zero_point.size != scale.size:
        raise NotLiftableError(f"it has {scale.size} scales and {zero_point.size} zero points")
    if block_size:
        axis = _blocked_axis(node, data, scale, block_size)
        return Parameters(scale, zero_point.reshape(scale.shape), axis, dtype, block_size)
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


def _blocked_axis(node: ir.Node, data: ir.Value | None, scale: npt.NDArray, block_size: int) -> int:
    """The axis along which blocks of elements share a scale. (ONNX QuantizeLinear-21.)"""
    if data is None or data.shape is None:
        raise NotLiftableError("its scales belong to blocks of a tensor of unknown shape")
    rank, axis = len(data.shape), int_attribute(node, "axis", 1)
    if block_size < 1 or scale.ndim != rank or not -rank <= axis < rank:
        raise NotLiftableError(f"its scale of shape {list(scale.shape)} fits no blocks of its data")
    axis %= rank
    for position, size in enumerate(data.shape):
        blocks = block_size if position == axis else 1
        if isinstance(size, int) and -(-size // blocks) != scale.shape[position]:
            raise NotLiftableError(f"its scales of shape {list(scale.shape)} do not fit its data")
    return axis


def _number_type(node: ir.Node, data: ir.Value | None, zero_point: ir.Value | None) -> ir.DataType:
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if is_dequantize(node):
        known = None if data is None else data.dtype
    else:
        known = node.outputs[0].dtype or ir.DataType(
            int_attribute(node, "output_dtype", 0) or ir.DataType.UINT8
        )
    if known is None:
        raise NotLiftableError("the type of its numbers is not known")
    return known
