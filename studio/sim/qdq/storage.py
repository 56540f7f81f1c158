"""In which ONNX types quantized numbers are stored, and which opset has them."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from studio.errors import ExportError
from studio.quant.grid import FloatGrid, Grid
from studio.sim.plan import Plan, Role, TensorPlan

INTEGERS = {
    (2, True): (ir.DataType.INT2, ml_dtypes.int2),
    (2, False): (ir.DataType.UINT2, ml_dtypes.uint2),
    (4, True): (ir.DataType.INT4, ml_dtypes.int4),
    (4, False): (ir.DataType.UINT4, ml_dtypes.uint4),
    (8, True): (ir.DataType.INT8, np.int8),
    (8, False): (ir.DataType.UINT8, np.uint8),
    (16, True): (ir.DataType.INT16, np.int16),
    (16, False): (ir.DataType.UINT16, np.uint16),
    (32, True): (ir.DataType.INT32, np.int32),
}
FLOATS = {
    "float16": (ir.DataType.FLOAT16, np.float16),
    "bfloat16": (ir.DataType.BFLOAT16, ml_dtypes.bfloat16),
    "float8e4m3fn": (ir.DataType.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
    "float8e4m3fnuz": (ir.DataType.FLOAT8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz),
    "float8e5m2": (ir.DataType.FLOAT8E5M2, ml_dtypes.float8_e5m2),
    "float8e5m2fnuz": (ir.DataType.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz),
    "float4e2m1": (ir.DataType.FLOAT4E2M1, ml_dtypes.float4_e2m1fn),
}
CONTRIB_BITS = (4, 16)
"""Integer types that QuantizeLinear of com.microsoft has at any opset."""


@dataclass(frozen=True)
class Storage:
    """How a file stores what a plan quantizes.

    weight_bits, activation_bits: smallest integer type of constants and of activations; narrower
    activations get a Clip between Q and DQ (QCDQ). float_bias: biases are written as the rounded
    floats they stand for. opset: of the file; None takes the lowest that the types need. contrib:
    4- and 16-bit integers below opset 21 by Q/DQ of com.microsoft (onnxruntime).
    """

    weight_bits: int = 8
    activation_bits: int = 8
    float_bias: bool = False
    opset: int | None = None
    contrib: bool = False


BYTES = Storage()
"""Nothing is stored in fewer than 8 bits."""


def is_constant(role: Role) -> bool:
    return role in (Role.WEIGHT, Role.BIAS, Role.CONSTANT)


def container_bits(row: TensorPlan, storage: Storage) -> int:
    """Bits of the ONNX integer type that holds the integers of `row`; as in the file it came in."""
    assert row.spec is not None
    grid = row.spec.grid
    if isinstance(grid, FloatGrid):
        return grid.bits
    if row.spec.storage_bits is not None:
        return row.spec.storage_bits
    smallest = storage.weight_bits if is_constant(row.role) else storage.activation_bits
    size = next(size for size in (2, 4, 8, 16, 32) if size >= max(grid.bits, smallest))
    narrowed = grid.bits < size or grid.strict
    # Clip knows no type of fewer than 8 bits.
    return 8 if size < 8 and narrowed and not is_constant(row.role) else size


def types_of(grid: Grid | FloatGrid, bits: int) -> tuple[ir.DataType, type]:
    """The ONNX and the array type of numbers of `grid` in `bits` bits."""
    if isinstance(grid, FloatGrid):
        return FLOATS[grid.format]
    return INTEGERS[bits, grid.signed]


def is_cast(grid: Grid | FloatGrid) -> bool:
    """True for floating-point formats that are not scaled: Cast goes there and back."""
    return isinstance(grid, FloatGrid) and grid.bits == 16


def needed_opset(row: TensorPlan, storage: Storage) -> tuple[int, str]:
    """Lowest opset that can express `row`, and what in it needs that.

    (ONNX operators QuantizeLinear-10, -13, -19, -21, -23, -25; DynamicQuantizeLinear-11, Clip-12.)
    """
    spec = row.spec
    assert spec is not None
    needs = [(10, "8-bit integers")]
    if row.dynamic:
        needs.append((11, "ranges taken at every inference"))
    grid, bits = spec.grid, container_bits(row, storage)
    if isinstance(grid, FloatGrid):
        opset = {16: 13, 8: 19, 4: 23}[grid.bits]
        needs.append((opset, grid.format))
    elif bits in (2, 4, 16) and not (storage.contrib and bits in CONTRIB_BITS):
        needs.append((25 if bits == 2 else 21, f"{bits}-bit integers"))
    if not is_constant(row.role) and isinstance(grid, Grid) and grid.bits < 8:
        needs.append((12, "limited integers"))
    if spec.axis is not None:
        needs.append((13, "scales for channels"))
    if spec.block_size is not None:
        needs.append((21, "scales for blocks"))
    return max(needs)


def required_opset(plan: Plan, storage: Storage) -> int:
    """Lowest opset with everything `plan` needs: 10 to 25."""
    rows = [row for row in plan.tensors.values() if row.spec is not None]
    return max((needed_opset(row, storage)[0] for row in rows), default=10)


def check_opset(plan: Plan, storage: Storage) -> None:
    """Raise ExportError if `storage.opset` is below what the types need, naming tensor and type."""
    if storage.opset is None:
        return
    needs = [
        (*needed_opset(row, storage), row.name)
        for row in plan.tensors.values()
        if row.spec is not None
    ]
    opset, what, name = max(needs, default=(0, "", ""))
    if opset > storage.opset:
        count = sum(need[0] > storage.opset for need in needs)
        more = f" and {count - 1} more tensors" if count > 1 else ""
        raise ExportError(
            f"Opset {storage.opset} cannot express {name}{more}: {what} need opset {opset}.",
            f"Export with opset {opset} or later, or leave the opset to the studio.",
        )
