"""Everything that depends on constants only becomes a constant (an initializer)."""

from __future__ import annotations

import logging
import math

import numpy as np
import onnx.reference.ops
import onnx_ir as ir
import onnx_ir.passes.common as common

from studio.graph.edit import add_constant, array_of, is_op
from studio.graph.model import Change
from studio.graph.prepare.shape_values import ShapeValues
from studio.graph.prepare.sharing import reads_weight
from studio.graph.scopes import title

log = logging.getLogger(__name__)

# Folding may not enlarge a model by more than this, whatever its operators claim to make.
LARGEST_RESULT = 1 << 18
LARGEST_OPERAND = 1 << 24

# These have a different result at every run, or read something besides their operands.
RANDOM_OPS = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
              "Bernoulli", "Multinomial", "Dropout"}  # fmt: skip
# Their results have a size that only their numbers tell, and no bound.
UNBOUNDED_OPS = {"Pad", "Resize", "Upsample", "OneHot", "EyeLike", "ConvTranspose", "Col2Im"}
# Their results have at most as many elements as the product of their operands' sizes.
PRODUCT_OPS = {"MatMul", "Gemm", "Einsum", "Conv"}
# Where a quantized model is opened, its weights must stay the integers they are.
QUANTIZED_OPS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}

LEFT_ALONE = RANDOM_OPS | UNBOUNDED_OPS | QUANTIZED_OPS


def lift_constants(model: ir.Model) -> list[Change]:
    """Turn Constant nodes into initializers."""
    count = sum(is_op(node, "Constant") for node in model.graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    count -= sum(is_op(node, "Constant") for node in model.graph)
    if not count:
        return []
    return [Change("lift constants", "", f"{count} Constant operators became named constants.")]


def fold_constants(model: ir.Model) -> list[Change]:
    """Compute once what depends on constants (and known shapes) only.

    Results above 262,144 elements are left to be computed at run time, unless they replace
    operands as large as themselves.
    """
    graph, shapes, folded = model.graph, ShapeValues(model.graph), {}
    opset = model.opset_imports.get("", 0)
    for node in list(graph):
        if len(node.outputs) != 1 or node.outputs[0].is_graph_output():
            continue
        if _is_tied(node):
            continue
        result = shapes.known(node.outputs[0])
        if result is None:
            result = _compute(node, opset)
        if result is None:
            continue
        output = node.outputs[0]
        name = output.name or ""
        readers = [(use.node, use.idx) for use in output.uses()]
        output.name = None
        constant = add_constant(graph, name, result)
        output.replace_all_uses_with(constant)
        graph.remove(node, safe=True)
        shapes.replace(output, constant)
        folded[id(node)] = (node, readers)
    return _report(folded)


def _is_tied(node: ir.Node) -> bool:
    """True for the Transpose of a weight that another layer reads as it is: one set of numbers."""
    source = node.inputs[0] if is_op(node, "Transpose") else None
    return source is not None and any(reads_weight(use.node, use.idx) for use in source.uses())


def _report(folded: dict[int, tuple[ir.Node, list[tuple[ir.Node, int]]]]) -> list[Change]:
    """One change for each operator that stays and has new constants to read."""
    operands: dict[int, tuple[ir.Node, list[str]]] = {}
    for node, readers in folded.values():
        for reader, index in readers:
            if id(reader) not in folded:
                found = operands.setdefault(id(reader), (reader, []))
                found[1].append(f"operand {index} ({node.op_type})")
    return [
        Change("fold constants", title(reader), f"Computed once, for constants: {', '.join(what)}.")
        for reader, what in operands.values()
    ]


def _compute(node: ir.Node, opset: int) -> np.ndarray | None:
    if not is_op(node, node.op_type) or node.op_type in LEFT_ALONE or not node.inputs:
        return None
    if any(
        a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for a in node.attributes.values()
    ):
        return None
    if node.op_type == "CastLike":
        return _cast_like(node)
    arrays = [array_of(value) for value in node.inputs]
    if any(a is None and value is not None for a, value in zip(arrays, node.inputs, strict=True)):
        return None
    given = sum(a.size for a in arrays if a is not None)
    size = _result_size(node, arrays)
    if size is None or given > LARGEST_OPERAND or size > max(LARGEST_RESULT, given):
        return None
    attributes = {
        name: ir.to_proto(a.value) if a.type == ir.AttributeType.TENSOR else a.value
        for name, a in node.attributes.items()
    }
    try:
        operator = onnx.reference.ops.load_op("", node.op_type, opset)
        with np.errstate(all="ignore"):
            result = operator.eval(*arrays, **attributes)
    except Exception as error:  # whatever the reference implementation cannot do stays in the graph
        log.debug("not folded: %s: %s", node.name, error)
        return None
    if isinstance(result, tuple) and len(result) == 1:
        result = result[0]
    if not isinstance(result, np.ndarray | np.generic):
        return None
    result = np.asarray(result)
    expected = node.outputs[0].dtype
    return result if expected is None or _same_type(result, expected) else None


def _cast_like(node: ir.Node) -> np.ndarray | None:
    """Only the type of the second operand matters, not whether it is constant."""
    array, like = array_of(node.inputs[0]), node.inputs[1]
    if array is None or like is None or like.dtype is None or like.dtype == ir.DataType.STRING:
        return None
    return array.astype(like.dtype.numpy()) if array.size <= LARGEST_RESULT else None


def _same_type(result: np.ndarray, expected: ir.DataType) -> bool:
    return expected != ir.DataType.STRING and result.dtype == expected.numpy()


def _result_size(node: ir.Node, arrays: list[np.ndarray | None]) -> int | None:
    """Elements the result will have, known before it is made; None if that is unknown."""
    operands = [a for a in arrays if a is not None]
    if node.op_type in ("ConstantOfShape", "Expand", "Reshape"):
        target = arrays[-1]
        if target is None or target.ndim != 1:
            return None
        size = math.prod(max(1, abs(int(n))) for n in target)
        return size * (operands[0].size if node.op_type == "Expand" else 1)
    if node.op_type == "Tile":
        return operands[0].size * math.prod(max(1, int(n)) for n in operands[1].ravel())
    if node.op_type == "Range":
        start, limit, step = (float(a.reshape(-1)[0]) for a in operands)
        return None if step == 0 else max(0, math.ceil((limit - start) / step))
    if node.op_type in PRODUCT_OPS:
        return math.prod(a.size for a in operands)
    shape = node.outputs[0].shape
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    if shape is None or len(sizes) < len(shape):
        return None
    try:  # a file may state less than its operands broadcast to
        return max(math.prod(sizes), math.prod(np.broadcast_shapes(*(a.shape for a in operands))))
    except ValueError:
        return math.prod(sizes)
