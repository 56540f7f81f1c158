"""MatMulNBits: weights in blocks of 2, 4 or 8 bits, as the weight of a MatMul behind
DequantizeLinear.

(onnxruntime docs/ContribOperators.md, com.microsoft.MatMulNBits: B (N, K / block, bytes) holds the
transposed weight, low bits first; w = (q - zero_point) * scale for each block.)
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from studio.graph.edit import Names, array_of, input_of, int_attribute
from studio.graph.quantized.constants import plain_name
from studio.graph.quantized.dynamic import Expressed
from studio.graph.quantized.found import WEIGHT_BITS_NOTE
from studio.graph.quantized.qlinear import Rewriter

SIGNED = {2: ml_dtypes.int2, 4: ml_dtypes.int4, 8: np.int8}
UNSIGNED = {2: ml_dtypes.uint2, 4: ml_dtypes.uint4, 8: np.uint8}


def express_matmul_nbits(graph: ir.Graph, names: Names) -> Expressed:
    """Write every MatMulNBits whose operands are constants as a MatMul, or with a bias for a matrix
    a Gemm, of a weight in blocks; of a float weight where DequantizeLinear has no such scales or
    zero points."""
    result, rewriter = Expressed(), Rewriter(graph, names)
    layers = []
    known: dict[tuple[object, ...], list[ir.Value]] = {}
    for node in list(graph):
        if node.op_type != "MatMulNBits" or input_of(node, 4) is not None:
            continue  # g_idx reorders the blocks
        blocks = _read(node)
        if blocks is None:
            continue
        result.count("MatMulNBits")
        name = plain_name(blocks.name) or blocks.name.removesuffix("_Q4")
        if blocks.whole:
            key = (*node.inputs[1:4], blocks.size, blocks.bits, blocks.integers.shape)
            if key not in known:
                known[key] = [rewriter.constant(*item) for item in blocks.stored()]
            stored, scale, zero_point = known[key]
            operand = rewriter.dequantize(node, stored, scale, zero_point, 0, blocks.size)
            operand.name = rewriter.names.fresh(f"{name}_dequantized")
        else:
            layers.append(node.name or "")
            operand = rewriter.constant(name, blocks.floats())
        _replace(rewriter, node, operand)
    if layers:
        more = f" and {len(layers) - 5} more" if layers[5:] else ""
        result.warnings.append(
            "The weights of these MatMulNBits operators have zero points between integers, or "
            "scales that are not float32; they became float weights and are no longer on that "
            f"grid: {', '.join(layers[:5])}{more}."
        )
    return result


@dataclass(frozen=True, eq=False)
class _Blocks:
    """A weight (K, N) in blocks of `size` along K, as unsigned integers of `bits` bits; scale and
    zero point (blocks, N)."""

    name: str
    integers: npt.NDArray[np.uint8]
    scale: npt.NDArray
    zero_point: npt.NDArray
    bits: int
    size: int

    @property
    def whole(self) -> bool:
        """True if DequantizeLinear says the same."""
        scale, zero_point = self.scale, self.zero_point
        return (
            scale.dtype == np.float32
            and bool(np.isfinite(scale).all())
            and bool((zero_point == np.rint(zero_point)).all())
            and bool(((zero_point >= 0) & (zero_point < 2**self.bits)).all())
        )

    def stored(self) -> list[tuple[str, npt.NDArray]]:
        """Integers, scale and zero point by name; signed where the zero point is the middle."""
        middle = 2 ** (self.bits - 1)
        signed = bool((self.zero_point == middle).all())
        kind = SIGNED[self.bits] if signed else UNSIGNED[self.bits]
        offset = middle if signed else 0
        plain = self.name.removesuffix("_blocks")
        return [
            (f"{plain}_integers", (self.integers.astype(np.int16) - offset).astype(kind)),
            (f"{plain}_scale", self.scale),
            (f"{plain}_zero_point", (self.zero_point.astype(np.int16) - offset).astype(kind)),
        ]

    def floats(self) -> npt.NDArray:
        """The weight in the type of its scales."""
        depth = len(self.integers)
        zeros, scale = (
            np.repeat(array.astype(np.float32), self.size, axis=0)[:depth]
            for array in (self.zero_point, self.scale)
        )
        return ((self.integers.astype(np.float32) - zeros) * scale).astype(self.scale.dtype)


def _read(node: ir.Node) -> _Blocks | None:
    """The weight of `node`; None if it is computed while the model runs, or does not fit."""
    packed, scales = array_of(input_of(node, 1)), array_of(input_of(node, 2))
    zero_points = array_of(input_of(node, 3))
    if packed is None or scales is None:
        return None
    if input_of(node, 3) is not None and zero_points is None:
        return None
    depth, columns = int_attribute(node, "K", 0), int_attribute(node, "N", 0)
    bits, block = int_attribute(node, "bits", 4), int_attribute(node, "block_size", 0)
    if bits not in (2, 4, 8) or block < 1 or depth < 1 or columns < 1:
        return None
    blocks = -(-depth // block)
    if packed.dtype != np.uint8 or packed.size * 8 != columns * blocks * block * bits:
        return None
    if scales.size != columns * blocks:
        return None
    integers = _unpacked(packed.reshape(columns, -1), bits)
    if zero_points is None:
        zeros: npt.NDArray = np.full((columns, blocks), 2 ** (bits - 1))
    elif zero_points.dtype == np.uint8:
        if zero_points.size != columns * -(-blocks * bits // 8):
            return None
        zeros = _unpacked(zero_points.reshape(columns, -1), bits)[:, :blocks]
    elif zero_points.size == columns * blocks:
        zeros = zero_points.reshape(columns, blocks)
    else:
        return None
    stored = node.inputs[1]
    assert stored is not None
    weight, scale, zero_point = (
        np.ascontiguousarray(array.T)
        for array in (integers[:, :depth], scales.reshape(columns, blocks), zeros)
    )
    return _Blocks(stored.name or "weight", weight, scale, zero_point, bits, block)


def _unpacked(array: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Integers of `bits` bits from the rows of bytes (n, m): (n, m * 8 / bits), low bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (array[:, :, None] >> shifts) & np.uint8(2**bits - 1)
    return parts.reshape(len(array), -1)


def _replace(rewriter: Rewriter, node: ir.Node, weight: ir.Value) -> None:
    output, bias, data = node.outputs[0], input_of(node, 5), node.inputs[0]
    matrix = data is not None and data.shape is not None and len(data.shape) == 2
    whole = bias is not None and matrix
    new = ir.node("Gemm", [data, weight, bias]) if whole else ir.node("MatMul", [data, weight])
    name = node.name or ""
    plain = name.removesuffix("_Q4")
    new.name = name if plain == name else rewriter.names.fresh(plain)
    new.metadata_props.update(node.metadata_props)
    new.metadata_props.pop(WEIGHT_BITS_NOTE, None)
    nodes, result = [new], new.outputs[0]
    result.shape, result.type = output.shape, output.type
    if bias is not None and not whole:
        result.name = rewriter.names.fresh(f"{output.name}_MatMul")
        add = ir.node("Add", [result, bias])
        add.name = rewriter.names.fresh(f"{new.name}_Add")
        nodes.append(add)
        result = add.outputs[0]
        result.shape, result.type = output.shape, output.type
    result.name, output.name = output.name, None
    for added in nodes:
        rewriter.graph.insert_before(node, added)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    rewriter.graph.remove(node, safe=True)
