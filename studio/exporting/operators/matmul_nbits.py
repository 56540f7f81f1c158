"""MatMulNBits of onnxruntime: weights in blocks of 2, 4 or 8 bits, everything else in float.

(docs/ContribOperators.md, com.microsoft.MatMulNBits: B (N, blocks, bytes) holds the transposed
weight, low bits first; w = (q - zero_point) * scale for each block, q without sign.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from studio.exporting.operators.integers import (
    CONTRIB,
    Integers,
    dequantized,
    note_bits,
    take_place,
)
from studio.graph.edit import add_constant, array_of, float_attribute, input_of, int_attribute
from studio.graph.prepare.dead_code import remove_dead_code

BLOCK_SIZES = (16, 32, 64, 128, 256)
BITS = {
    ir.DataType.INT2: 2,
    ir.DataType.UINT2: 2,
    ir.DataType.INT4: 4,
    ir.DataType.UINT4: 4,
    ir.DataType.INT8: 8,
    ir.DataType.UINT8: 8,
}
SIGNED = (ir.DataType.INT2, ir.DataType.INT4, ir.DataType.INT8)
FLOAT32 = 1
"""accuracy_level: activations are multiplied in float32, as in the simulation."""


def use_matmul_nbits(model: ir.Model) -> None:
    """Write every MatMul and Gemm of `model` whose weight comes in blocks as MatMulNBits; others
    stay behind DequantizeLinear."""
    graph = model.graph
    known: dict[ir.Value, list[ir.Value]] = {}
    for node in list(graph):
        if node.domain in ("", "ai.onnx") and node.op_type in ("MatMul", "Gemm"):
            _replace(graph, node, known)
    remove_dead_code(model)
    if any(node.domain == CONTRIB for node in graph):
        model.opset_imports.setdefault(CONTRIB, 1)
    graph.sort()


def _replace(graph: ir.Graph, node: ir.Node, known: dict[ir.Value, list[ir.Value]]) -> None:
    weight = dequantized(node.inputs[1])
    if weight is None or not _fits(node, weight):
        return
    integers = array_of(weight.value)
    assert integers is not None
    rows_first = bool(int_attribute(node, "transB", 0))
    depth, columns = integers.shape[::-1] if rows_first else integers.shape
    if weight.value not in known:
        known[weight.value] = _packed(graph, weight, rows_first)
    stored = known[weight.value]
    inputs: list[ir.Value | None] = [node.inputs[0], *stored]
    bias = input_of(node, 2)
    if bias is not None:
        inputs += [None] * (5 - len(inputs)) + [bias]
    note_bits(node, weight)
    new = ir.node(
        "MatMulNBits",
        inputs,
        {
            "K": depth,
            "N": columns,
            "bits": BITS[weight.dtype],
            "block_size": weight.block_size,
            "accuracy_level": FLOAT32,
        },
        domain=CONTRIB,
        name=node.name,
    )
    new.metadata_props.update(node.metadata_props)
    graph.insert_before(node, new)
    take_place(node.outputs[0], new.outputs[0])
    graph.remove(node, safe=True)


def _fits(node: ir.Node, weight: Integers) -> bool:
    """A matrix in blocks along the summed axis; of a Gemm, one that only multiplies and adds."""
    integers, scale = array_of(weight.value), array_of(weight.scale)
    if integers is None or scale is None or integers.ndim != 2 or weight.dtype not in BITS:
        return False
    if weight.block_size not in BLOCK_SIZES:
        return False
    if node.op_type == "MatMul":
        return weight.axis == 0
    bias = input_of(node, 2)
    one_row = bias is None or (bias.shape is not None and len(bias.shape) == 1)
    plain = (
        float_attribute(node, "alpha", 1.0) == 1.0
        and float_attribute(node, "beta", 1.0) == 1.0
        and not int_attribute(node, "transA", 0)
    )
    return one_row and plain and weight.axis == (1 if int_attribute(node, "transB", 0) else 0)


def _packed(graph: ir.Graph, weight: Integers, rows_first: bool) -> list[ir.Value]:
    """B, scales and, where a zero point is not the middle, zero points."""
    bits, block = BITS[weight.dtype], weight.block_size
    assert block is not None
    middle = 2 ** (bits - 1)

    def unsigned(array: npt.NDArray) -> npt.NDArray[np.uint8]:
        """Integers with the columns of the result first, moved to the unsigned type."""
        plain = array.astype(np.int64) + (middle if weight.dtype in SIGNED else 0)
        return np.ascontiguousarray(plain if rows_first else plain.T).astype(np.uint8)

    integers, scale = array_of(weight.value), array_of(weight.scale)
    zero_point = array_of(weight.zero_point)
    assert integers is not None
    assert scale is not None
    rows = unsigned(integers)
    columns, depth = rows.shape
    blocks = -(-depth // block)
    padded = np.zeros((columns, blocks * block), np.uint8)
    padded[:, :depth] = rows
    name = weight.value.name or ""
    stored = [
        add_constant(graph, f"{name}_blocks", pack(padded, bits).reshape(columns, blocks, -1)),
        add_constant(
            graph, f"{name}_scales", np.ascontiguousarray(scale if rows_first else scale.T)
        ),
    ]
    zeros = np.zeros(scale.shape, np.int64) if zero_point is None else zero_point
    offsets = unsigned(zeros)
    if (offsets != middle).any():
        stored.append(add_constant(graph, f"{name}_zero_points", pack(offsets, bits)))
    return stored


def pack(array: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Rows of integers of `bits` bits as rows of bytes, low bits first; the last is filled up."""
    each = 8 // bits
    rows, length = array.shape
    whole = np.zeros((rows, -(-length // each) * each), np.uint8)
    whole[:, :length] = array
    parts = whole.reshape(rows, -1, each) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(parts, axis=2).astype(np.uint8)
