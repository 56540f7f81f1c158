"""Do the constants in an exported file say what the encodings say?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.sim.found import constant_integers
from studio.sim.plan import Plan, Role, TensorPlan
from studio.sim.qdq import quantized_name
from studio.sim.qdq.storage import is_cast

_INTEGER_OPERATORS = frozenset(
    [
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    ]
)


def wrong_bias_scales(plan: Plan, path: Path) -> tuple[str, ...]:
    """Names of biases of the file at `path` whose scale is not input scale times weight scale,
    multiplied in float32: onnxruntime's fused kernels compute with that, whatever the file says."""
    stored = {
        name: value.const_value.numpy()
        for name, value in ir.load(path).graph.initializers.items()
        if name.endswith("_scale") and value.const_value is not None
    }
    wrong = []
    for row in plan.tensors.values():
        if row.bias_of is None or row.spec is None:
            continue
        bias, source, weight = (stored.get(f"{name}_scale") for name in (row.name, *row.bias_of))
        if bias is None or source is None or weight is None:
            continue
        if not np.array_equal(bias, np.asarray(source * weight)):
            wrong.append(row.name)
    return tuple(wrong)


def different_constants(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding], path: Path
) -> tuple[str, ...]:
    """Names of constants of the file at `path` that are missing or differ in any bit.

    Looks at every scale, zero point and weight (integers, in blocks of MatMulNBits, or the floats
    in front of QuantizeLinear), and at the weights left in float. A weight that is one step off may
    move no output by more than one step, so running cannot show it. Files with integer operators
    keep some constants in other forms; there, only those found by name are compared.
    """
    model = ir.load(path)
    stored = {name: value.const_value for name, value in model.graph.initializers.items()}
    pairs_alone = all(node.op_type not in _INTEGER_OPERATORS for node in model.graph)

    def differs(name: str, *allowed: np.ndarray) -> bool:
        tensor = stored.get(name)
        if tensor is None:
            return pairs_alone
        array = tensor.numpy()
        return not any(_equal(array, expected) for expected in allowed)

    different = []
    for name in plan.quantized:
        encoding, row = encodings[name], plan.tensors[name]
        packed = stored.get(f"{quantized_name(name)}_blocks")
        if packed is not None:
            different += _different_blocks(graph, row, encoding, stored)
            continue
        constant = row.role in (Role.WEIGHT, Role.BIAS, Role.CONSTANT)
        integers = constant_integers(graph, row, encoding) if constant else None
        if integers is not None and name in stored and quantized_name(name) not in stored:
            rounded = encoding.dequantize(integers)
            different += [name] if differs(name, graph.constant(name), rounded) else []
            if row.role is Role.BIAS:
                continue
        elif integers is not None and differs(quantized_name(name), integers):
            different.append(quantized_name(name))
        if is_cast(encoding.grid):
            continue
        if differs(f"{name}_scale", encoding.scale):
            different.append(f"{name}_scale")
        if row.role is not Role.BIAS and differs(f"{name}_zero_point", encoding.zero_point):
            different.append(f"{name}_zero_point")
    left = [name for name in graph.initializers if name not in plan.quantized and name in stored]
    return (*different, *(name for name in left if differs(name, graph.constant(name))))


def _different_blocks(
    graph: ModelGraph,
    row: TensorPlan,
    encoding: Encoding,
    stored: Mapping[str, ir.TensorProtocol | None],
) -> list[str]:
    """Names of the constants of a MatMulNBits that differ (onnxruntime's contrib operator: rows of
    the result first, low bits first, unsigned integers around the middle)."""
    key = quantized_name(row.name)
    blocks, scales = stored[f"{key}_blocks"], stored.get(f"{key}_scales")
    integers = constant_integers(graph, row, encoding)
    if blocks is None or scales is None or encoding.axis is None:
        return [key]
    packed = blocks.numpy()
    assert encoding.block_size is not None
    bits = 8 * packed.shape[2] // encoding.block_size
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & (2**bits - 1)
    signed = getattr(encoding.grid, "signed", True)
    middle = 2 ** (bits - 1) if signed else 0
    depth = integers.shape[encoding.axis]
    found = codes.reshape(len(packed), -1)[:, :depth].astype(np.int64) - middle
    expected = np.moveaxis(integers, encoding.axis, -1)
    expected_scale = np.moveaxis(encoding.scale, encoding.axis, -1)
    different = [] if np.array_equal(found, expected) else [f"{key}_blocks"]
    if not np.array_equal(scales.numpy().reshape(expected_scale.shape), expected_scale):
        different.append(f"{key}_scales")
    return different


def _equal(array: np.ndarray, expected: np.ndarray) -> bool:
    """The same shape and numbers; integers of any size."""
    if expected.dtype.kind == "i" or array.dtype != expected.dtype:
        return np.array_equal(array.astype(np.float64), expected.astype(np.float64))
    return np.array_equal(array, expected, equal_nan=array.dtype.kind == "f")
