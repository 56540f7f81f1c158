"""MatMulNBits: weights in blocks of 2, 4 or 8 bits, as float weights of a MatMul.

(onnxruntime docs/ContribOperators.md, com.microsoft.MatMulNBits: B (N, K / block, bytes) holds the
transposed weight, low bits first; w = (q - zero_point) * scale for each block.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from studio.graph.edit import Names, array_of, input_of, int_attribute
from studio.graph.quantized.dynamic import Expressed
from studio.graph.quantized.qlinear import Rewriter


def express_matmul_nbits(graph: ir.Graph, names: Names) -> Expressed:
    """Write every MatMulNBits whose operands are constants as a MatMul with a float weight."""
    result, rewriter = Expressed(), Rewriter(graph, names)
    layers = []
    for node in list(graph):
        if node.op_type != "MatMulNBits" or input_of(node, 4) is not None:
            continue  # g_idx reorders the blocks
        weight = _weight(node)
        if weight is None:
            continue
        result.count("MatMulNBits")
        layers.append(node.name or "")
        _replace(rewriter, node, weight)
    if layers:
        more = f" and {len(layers) - 5} more" if layers[5:] else ""
        result.warnings.append(
            "The weights of these MatMulNBits operators have scales for blocks of elements; they "
            f"became float weights and are no longer on that grid: {', '.join(layers[:5])}{more}."
        )
    return result


def _weight(node: ir.Node) -> npt.NDArray | None:
    """The float weight (K, N) in the type of its scales."""
    packed, scales = array_of(node.inputs[1]), array_of(node.inputs[2])
    zero_points = array_of(input_of(node, 3))
    if packed is None or scales is None:
        return None
    if input_of(node, 3) is not None and zero_points is None:
        return None
    depth, columns = int_attribute(node, "K", 0), int_attribute(node, "N", 0)
    bits, block = int_attribute(node, "bits", 4), int_attribute(node, "block_size", 0)
    if bits not in (2, 4, 8) or block < 1:
        return None
    blocks = -(-depth // block)
    integers = _unpacked(packed.reshape(columns, -1), bits)
    if integers.shape[1] < blocks * block or scales.size != columns * blocks:
        return None
    integers = integers[:, : blocks * block].reshape(columns, blocks, block).astype(np.float32)
    if zero_points is None:
        zeros: npt.NDArray = np.full((columns, blocks), 2 ** (bits - 1))
    elif zero_points.dtype == np.uint8:
        zeros = _unpacked(zero_points.reshape(columns, -1), bits)[:, :blocks]
    else:
        zeros = zero_points.reshape(columns, blocks)
    steps = integers - zeros.astype(np.float32)[:, :, None]
    floats = steps * scales.astype(np.float32).reshape(columns, blocks, 1)
    weight = floats.reshape(columns, -1)[:, :depth].T
    return np.ascontiguousarray(weight).astype(scales.dtype)


def _unpacked(array: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Integers of `bits` bits from the rows of bytes (n, m): (n, m * 8 / bits), low bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (array[:, :, None] >> shifts) & np.uint8(2**bits - 1)
    return parts.reshape(len(array), -1)


def _replace(rewriter: Rewriter, node: ir.Node, weight: npt.NDArray) -> None:
    stored = node.inputs[1]
    assert stored is not None
    name = (stored.name or "weight").removesuffix("_Q4")
    inputs = [node.inputs[0], rewriter.constant(name, weight)]
    output, bias = node.outputs[0], input_of(node, 5)
    new = ir.node("MatMul", inputs)
    new.name = rewriter.names.fresh((node.name or "").removesuffix("_Q4"))
    new.metadata_props.update(node.metadata_props)
    nodes, result = [new], new.outputs[0]
    result.shape, result.type = output.shape, output.type
    if bias is not None:
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
