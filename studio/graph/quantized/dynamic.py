"""Products of activations ranged while the model runs, in float behind DynamicQuantizeLinear and
DequantizeLinear.

(onnxruntime `quantize_dynamic`: DynamicQuantizeLinear, then MatMulInteger or ConvInteger, Cast and
Mul with both scales; its optimizer merges them to DynamicQuantizeMatMul and MatMulIntegerToFloat.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from studio.graph.edit import Names, absorb, array_of, input_of, is_op, only_consumer
from studio.graph.quantized.found import WEIGHT_BITS_NOTE, NotLiftableError, is_dynamic_quantize
from studio.graph.quantized.qlinear import Rewriter
from studio.graph.quantized.ranged import Ranged
from studio.graph.quantized.recurrent import express_lstm

DYNAMIC_OPS = frozenset(
    [
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
    ]
)

MISFIT = "its operands do not fit together"

Problems = dict[tuple[str, str], list[str]]


@dataclass
class Expressed:
    """How many operators were written in float, and what a user has to know about it."""

    expressed: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def count(self, op: str) -> None:
        self.expressed[op] = self.expressed.get(op, 0) + 1


def lift_dynamic(graph: ir.Graph, names: Names, problems: Problems) -> Expressed:
    """Write dynamically quantized products in float, their weights behind DequantizeLinear, what
    they multiply behind DynamicQuantizeLinear and DequantizeLinear."""
    result, rewriter = Expressed(), Ranged(graph, names)
    rules = {
        "MatMulInteger": _integer_product,
        "ConvInteger": _integer_product,
        "DynamicQuantizeMatMul": _dynamic_matmul,
        "MatMulIntegerToFloat": _to_float_matmul,
        "DynamicQuantizeLSTM": express_lstm,
    }
    recurrent = []
    for node in list(graph):
        rule = rules.get(node.op_type)
        if rule is None:
            continue
        op, name = node.op_type, node.name or ""
        try:
            rule(rewriter, node)
        except NotLiftableError as problem:
            problems.setdefault((op, str(problem)), []).append(name)
            continue
        except (
            IndexError,
            ValueError,
        ):  # operands missing, or of shapes that contradict each other
            problems.setdefault((op, MISFIT), []).append(name)
            continue
        result.count(op)
        recurrent += [name.removesuffix("_quant")] if op == "DynamicQuantizeLSTM" else []
    if recurrent:
        more = f" and {len(recurrent) - 5} more" if recurrent[5:] else ""
        result.warnings.append(
            "DynamicQuantizeLSTM rounds its state at every step as well; here it is an LSTM with "
            f"weights and input as in the file whose state stays float: "
            f"{', '.join(recurrent[:5])}{more}."
        )
    return result


def _dynamic(value: ir.Value | None, zero_point: ir.Value | None) -> ir.Node | None:
    """The DynamicQuantizeLinear that makes the integers `value`."""
    node = None if value is None else value.producer()
    if node is None or not is_dynamic_quantize(node) or value is not node.outputs[0]:
        return None
    return node if zero_point is node.outputs[2] else None


def _integer_product(rewriter: Ranged, node: ir.Node) -> None:
    """MatMulInteger or ConvInteger, Cast, Mul(x_scale * w_scale) -> MatMul or Conv."""
    first = _dynamic(node.inputs[0], input_of(node, 2))
    if first is None:
        raise NotLiftableError("its input is not quantized by DynamicQuantizeLinear")
    weight, weight_zero = node.inputs[1], input_of(node, 3)
    cast = only_consumer(node.outputs[0])
    scaled = only_consumer(cast.outputs[0]) if cast is not None and is_op(cast, "Cast") else None
    if cast is None or scaled is None or not is_op(scaled, "Mul"):
        raise NotLiftableError("its result is not scaled by a Mul behind a Cast")
    factor = scaled.inputs[1] if scaled.inputs[0] is cast.outputs[0] else scaled.inputs[0]
    other = _other_scale(factor, first.outputs[1])
    op = "MatMul" if node.op_type == "MatMulInteger" else "Conv"
    second = _dynamic(weight, weight_zero)
    if second is not None and other is second.outputs[1]:
        operand = rewriter.dequantized(second)
    else:
        axis = _channel_axis(op, weight, other)
        scale = array_of(other)
        assert scale is not None
        if axis is not None or scale.ndim:
            flat = scale.reshape(()) if axis is None else scale.reshape(-1)
            other = rewriter.constant(f"{other.name}_flat", flat)
        operand = rewriter.dequantize(node, weight, other, weight_zero, axis)
    name = (node.name or "").removesuffix("_quant")
    attributes = {key: attribute.value for key, attribute in node.attributes.items()}
    new = ir.node(op, [rewriter.dequantized(first), operand], attributes)
    new.name = node.name if name == node.name else rewriter.names.fresh(name)
    new.metadata_props.update(node.metadata_props)
    new.metadata_props.pop(WEIGHT_BITS_NOTE, None)
    output, result = scaled.outputs[0], new.outputs[0]
    result.shape, result.dtype = output.shape, ir.DataType.FLOAT
    result.name, output.name = output.name, None
    # the weight's scale may come from behind `node`
    rewriter.graph.insert_before(scaled, new)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    for old in (scaled, cast, node):
        rewriter.graph.remove(old, safe=True)
    if op == "Conv":
        _join_bias(rewriter, new)


def _join_bias(rewriter: Rewriter, conv: ir.Node) -> None:
    """Add(Conv, Reshape(bias)) or its constant, as a convolution's bias is written behind
    ConvInteger."""
    output, weight = conv.outputs[0], conv.inputs[1]
    add = only_consumer(output)
    if add is None or not is_op(add, "Add") or weight is None or weight.shape is None:
        return
    other = add.inputs[1] if add.inputs[0] is output else add.inputs[0]
    spatial = (1,) * (len(weight.shape) - 2)
    if other is None or other.shape is None:
        return
    if tuple(other.shape) != (1, weight.shape[0], *spatial):
        return
    reshape, aligned = other.producer(), array_of(other)
    if aligned is not None:
        name = (other.name or "").removesuffix("_aligned")
        bias: ir.Value | None = rewriter.constant(name, aligned.reshape(-1))
    elif reshape is not None and is_op(reshape, "Reshape"):
        bias = reshape.inputs[0]
        if array_of(bias) is None or bias is None or bias.shape is None or len(bias.shape) != 1:
            return
    else:
        return
    conv.resize_inputs(3)
    conv.replace_input_with(2, bias)
    absorb(add, output)


def _other_scale(factor: ir.Value | None, scale: ir.Value) -> ir.Value:
    """The weight's scale in x_scale * w_scale."""
    product = None if factor is None else factor.producer()
    if product is None or not is_op(product, "Mul") or scale not in product.inputs:
        raise NotLiftableError("its result is not multiplied by the scales of both inputs")
    other = product.inputs[1] if product.inputs[0] is scale else product.inputs[0]
    if other is None or (array_of(other) is None and other.producer() is None):
        raise NotLiftableError("the scale of its weight is not known")
    return other


def _channel_axis(op: str, weight: ir.Value | None, scale: ir.Value) -> int | None:
    """Axis of the constant `weight` that `scale` belongs to; None for a single scale."""
    array, integers = array_of(scale), array_of(weight)
    if array is None or integers is None:
        raise NotLiftableError("its weight is computed while the model runs")
    if array.size == 1:
        return None
    if op == "MatMul" and integers.ndim and array.shape[-1] == array.size == integers.shape[-1]:
        return integers.ndim - 1
    spatial = max(integers.ndim - 2, 1)
    if op == "Conv" and array.shape[-spatial:] == (1,) * spatial and array.size == len(integers):
        return 0
    raise NotLiftableError("the scales of its weight do not belong to its output channels")


def _dynamic_matmul(rewriter: Ranged, node: ir.Node) -> None:
    """DynamicQuantizeMatMul(A, B, b_scale, b_zero_point, bias)."""
    b, b_scale = node.inputs[1:3]

    def data() -> ir.Value:
        return rewriter.ranged(node, node.inputs[0])

    _matmul(rewriter, node, data, b, b_scale, input_of(node, 3), input_of(node, 4))


def _to_float_matmul(rewriter: Ranged, node: ir.Node) -> None:
    """MatMulIntegerToFloat(A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias)."""
    a, b, a_scale, b_scale = node.inputs[:4]
    source = _dynamic(a, input_of(node, 4))

    def data() -> ir.Value:
        if source is not None and a_scale is source.outputs[1]:
            return rewriter.dequantized(source)
        return rewriter.dequantize(node, a, a_scale, input_of(node, 4))

    _matmul(rewriter, node, data, b, b_scale, input_of(node, 5), input_of(node, 6))


def _matmul(
    rewriter: Rewriter,
    node: ir.Node,
    data: Callable[[], ir.Value],
    weight: ir.Value | None,
    scale: ir.Value | None,
    zero_point: ir.Value | None,
    bias: ir.Value | None,
) -> None:
    """A MatMul of `data()`, which is written only where the weight fits."""
    if scale is None or array_of(weight) is None:
        raise NotLiftableError("its weight is computed while the model runs")
    operand = rewriter.dequantize(
        node, weight, scale, zero_point, _channel_axis("MatMul", weight, scale)
    )
    output = node.outputs[0]
    new = ir.node("MatMul", [data(), operand])
    name = node.name or ""
    plain = name.removesuffix("_quant")
    new.name = name if plain == name else rewriter.names.fresh(plain)
    nodes, result = [new], new.outputs[0]
    result.shape, result.dtype = output.shape, ir.DataType.FLOAT
    if bias is not None:
        result.name = rewriter.names.fresh(f"{output.name}_MatMul")
        add = ir.node("Add", [result, bias])
        add.name = rewriter.names.fresh(f"{new.name}_Add")
        nodes.append(add)
        result = add.outputs[0]
        result.shape, result.dtype = output.shape, ir.DataType.FLOAT
    result.name, output.name = output.name, None
    for added in nodes:
        rewriter.graph.insert_before(node, added)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    rewriter.graph.remove(node, safe=True)
