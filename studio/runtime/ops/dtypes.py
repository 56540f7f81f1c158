"""ONNX element types and torch dtypes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

_T = ir.DataType

# torch has no types of 2 and 4 bits; their values are held in 8 bits.
TORCH_DTYPES: dict[ir.DataType, torch.dtype] = {
    _T.FLOAT: torch.float32,
    _T.DOUBLE: torch.float64,
    _T.FLOAT16: torch.float16,
    _T.BFLOAT16: torch.bfloat16,
    _T.INT8: torch.int8,
    _T.INT16: torch.int16,
    _T.INT32: torch.int32,
    _T.INT64: torch.int64,
    _T.UINT8: torch.uint8,
    _T.UINT16: torch.uint16,
    _T.UINT32: torch.uint32,
    _T.UINT64: torch.uint64,
    _T.BOOL: torch.bool,
    _T.INT4: torch.int8,
    _T.UINT4: torch.uint8,
    _T.INT2: torch.int8,
    _T.UINT2: torch.uint8,
    _T.FLOAT8E4M3FN: torch.float8_e4m3fn,
    _T.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    _T.FLOAT8E5M2: torch.float8_e5m2,
    _T.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    _T.FLOAT8E8M0: torch.float8_e8m0fnu,
    _T.FLOAT4E2M1: torch.float8_e4m3fn,
    _T.COMPLEX64: torch.complex64,
    _T.COMPLEX128: torch.complex128,
}

# The integers each type can hold.
INTEGER_RANGES: dict[ir.DataType, tuple[int, int]] = {
    _T.INT2: (-2, 1),
    _T.UINT2: (0, 3),
    _T.INT4: (-8, 7),
    _T.UINT4: (0, 15),
    _T.INT8: (-128, 127),
    _T.UINT8: (0, 255),
    _T.INT16: (-32768, 32767),
    _T.UINT16: (0, 65535),
    _T.INT32: (-(2**31), 2**31 - 1),
}

NARROW_INTEGERS = frozenset({_T.INT2, _T.UINT2, _T.INT4, _T.UINT4})

# torch stores these but has next to no arithmetic for them.
STORAGE_ONLY = frozenset({torch.uint16, torch.uint32, torch.uint64})

_BIT_VIEWS = {
    "bfloat16": (np.int16, torch.bfloat16),
    "float8_e4m3fn": (np.uint8, torch.float8_e4m3fn),
    "float8_e4m3fnuz": (np.uint8, torch.float8_e4m3fnuz),
    "float8_e5m2": (np.uint8, torch.float8_e5m2),
    "float8_e5m2fnuz": (np.uint8, torch.float8_e5m2fnuz),
    "float8_e8m0fnu": (np.uint8, torch.float8_e8m0fnu),
}
_NARROW = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8, "uint2": np.uint8}


def torch_dtype(dtype: ir.DataType | int) -> torch.dtype:
    """The dtype that holds elements of the ONNX type `dtype`.

    Raises TypeError for types torch cannot hold (strings, 6-bit floats).
    """
    known = TORCH_DTYPES.get(ir.DataType(dtype))
    if known is None:
        raise TypeError(f"torch has no type for ONNX {ir.DataType(dtype).name}")
    return known


def onnx_dtype(dtype: torch.dtype) -> ir.DataType:
    """The ONNX type whose elements `dtype` holds; the wider one where it holds several."""
    return next(known for known, holder in TORCH_DTYPES.items() if holder == dtype)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor with the values of `array`, sharing its memory where that is possible.

    Raises TypeError for types torch cannot hold.
    """
    name = array.dtype.name
    if name in _NARROW:
        return torch.from_numpy(array.astype(_NARROW[name]))
    if name == "float4_e2m1fn":
        return torch.from_numpy(array.astype(np.float32)).to(torch.float8_e4m3fn)
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy(order="C")
    if name in _BIT_VIEWS:
        bits, dtype = _BIT_VIEWS[name]
        return torch.from_numpy(array.view(bits)).view(dtype)
    return torch.from_numpy(array)


def widened(tensor: Tensor) -> Tensor:
    """`tensor` in a type torch can compute with: unsigned 16 to 64 bits become int64."""
    return tensor.to(torch.int64) if tensor.dtype in STORAGE_ONLY else tensor
