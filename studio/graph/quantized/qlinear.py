"""QLinear operators: DequantizeLinear on each input, the float operator, QuantizeLinear behind.

(ONNX operators QLinearConv-10 and QLinearMatMul-21; onnxruntime docs/ContribOperators.md for those
of com.microsoft.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    add_constant,
    array_of,
    float_attribute,
    input_of,
    int_attribute,
)
from studio.graph.quantized.found import (
    BITS_NOTE,
    INTEGER_BITS,
    WEIGHT_BITS_NOTE,
    NotLiftableError,
)


class Rewriter:
    """Builds what replaces one node of `graph` after another."""

    def __init__(self, graph: ir.Graph, names: Names) -> None:
        self.graph = graph
        self.names = names

    def dequantize(
        self,
        node: ir.Node,
        value: ir.Value | None,
        scale: ir.Value | None,
        zero_point: ir.Value | None,
        axis: int | None = None,
        block_size: int | None = None,
    ) -> ir.Value:
        """Float values of the integers `value`, computed before `node`."""
        if value is None or array_of(scale) is None:
            raise NotLiftableError("its scales are computed while the model runs")
        if zero_point is not None and array_of(zero_point) is None:
            raise NotLiftableError("its zero points are computed while the model runs")
        inputs = [value, scale] if zero_point is None else [value, scale, zero_point]
        attributes = {} if axis is None else {"axis": axis}
        if block_size is not None:
            attributes["block_size"] = block_size
        dq = ir.node("DequantizeLinear", inputs, attributes)
        dq.name = self.names.fresh(f"{value.name}_DequantizeLinear")
        bits = node.metadata_props.get(WEIGHT_BITS_NOTE)
        if bits is not None and array_of(value) is not None and value.dtype != ir.DataType.INT32:
            dq.metadata_props[BITS_NOTE] = bits
        result = dq.outputs[0]
        result.name = self.names.fresh(f"{value.name}_dequantized")
        result.dtype, result.shape = ir.DataType.FLOAT, value.shape
        self.graph.insert_before(node, dq)
        return result

    def replace(
        self,
        node: ir.Node,
        op: str,
        inputs: list[ir.Value | None],
        attributes: dict[str, object],
        scale: ir.Value | None,
        zero_point: ir.Value | None,
    ) -> None:
        """Put the float operator `op` and, if `scale` is given, a QuantizeLinear in place of
        `node`."""
        output = node.outputs[0]
        new = ir.node(op, inputs, attributes)
        new.metadata_props.update(node.metadata_props)
        new.metadata_props.pop(WEIGHT_BITS_NOTE, None)
        own = node.name or ""
        new.name = self._plain(own, "_quant") if own.endswith("_quant") else own
        nodes, result = [new], new.outputs[0]
        result.shape, result.dtype = output.shape, ir.DataType.FLOAT
        if scale is None:
            name, output.name = output.name, None
            result.name = name
        else:
            if array_of(scale) is None:
                raise NotLiftableError("its scales are computed while the model runs")
            result.name = self._plain(output.name or "", "_quantized", "_saturated")
            zero_point = zero_point or self._zero(output)
            q = ir.node("QuantizeLinear", [result, scale, zero_point])
            q.name = self.names.fresh(f"{result.name}_QuantizeLinear")
            nodes.append(q)
            name, output.name = output.name, None
            result = q.outputs[0]
            result.name, result.shape, result.type = name, output.shape, zero_point.type
        for added in nodes:
            self.graph.insert_before(node, added)
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A new initializer, under `name` where that is free."""
        return add_constant(self.graph, self.names.fresh(name), array)

    def _plain(self, name: str, *endings: str) -> str:
        plain = name
        for ending in endings:
            plain = plain.removesuffix(ending)
        return self.names.fresh(plain or name)

    def _zero(self, output: ir.Value) -> ir.Value:
        if output.dtype not in INTEGER_BITS:
            raise NotLiftableError("the type of its result is not known")
        assert output.dtype is not None
        return self.constant(f"{output.name}_zero_point", np.zeros((), output.dtype.numpy()))


Rule = Callable[[Rewriter, ir.Node], None]


def _attributes(node: ir.Node, *left_out: str) -> dict[str, object]:
    return {
        name: attribute.value for name, attribute in node.attributes.items() if name not in left_out
    }


def _channels_first(node: ir.Node) -> None:
    if int_attribute(node, "channels_last", 0):
        raise NotLiftableError("its channels come last")


def _product(*scales: ir.Value | None) -> np.ndarray:
    """Product of constant scales in float32, as kernels compute a bias's scale."""
    arrays = [array_of(scale) for scale in scales]
    if any(array is None for array in arrays):
        raise NotLiftableError("its scales are computed while the model runs")
    result = np.ones((), np.float32)
    for array in arrays:
        assert array is not None
        result = result * (array.reshape(()) if array.size == 1 else array)
    return np.asarray(result, np.float32)


def _conv(rewriter: Rewriter, node: ir.Node) -> None:
    _channels_first(node)
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    inputs: list[ir.Value | None] = [
        rewriter.dequantize(node, x, x_scale, x_zero),
        rewriter.dequantize(node, w, w_scale, w_zero, _axis_if_many(w_scale, 0)),
    ]
    bias = input_of(node, 8)
    if bias is not None:
        inputs.append(_bias(rewriter, node, bias, _product(x_scale, w_scale)))
    attributes = _attributes(node, "channels_last")
    rewriter.replace(node, "Conv", inputs, attributes, y_scale, y_zero)


def _bias(rewriter: Rewriter, node: ir.Node, bias: ir.Value, scale: np.ndarray) -> ir.Value:
    if array_of(bias) is None:
        raise NotLiftableError("its bias is computed while the model runs")
    constant = rewriter.constant(f"{bias.name}_scale", scale)
    return rewriter.dequantize(node, bias, constant, None, 0 if scale.ndim else None)


def _axis_if_many(scale: ir.Value | None, axis: int) -> int | None:
    array = array_of(scale)
    return None if array is None or array.size == 1 else axis


def _matmul(rewriter: Rewriter, node: ir.Node) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs[:8]
    if _axis_if_many(a_scale, 0) is not None:
        raise NotLiftableError("its first input has a scale for each row")
    last = len(b.shape) - 1 if b is not None and b.shape is not None else -1
    inputs: list[ir.Value | None] = [
        rewriter.dequantize(node, a, a_scale, a_zero),
        rewriter.dequantize(node, b, b_scale, b_zero, _axis_if_many(b_scale, last)),
    ]
    rewriter.replace(node, "MatMul", inputs, {}, y_scale, y_zero)


def _gemm(rewriter: Rewriter, node: ir.Node) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero = node.inputs[:6]
    transposed = int_attribute(node, "transB", 0)
    axis = _axis_if_many(b_scale, 0 if transposed else 1)
    inputs: list[ir.Value | None] = [
        rewriter.dequantize(node, a, a_scale, a_zero),
        rewriter.dequantize(node, b, b_scale, b_zero, axis),
    ]
    bias = input_of(node, 6)
    alpha = float_attribute(node, "alpha", 1.0)
    if bias is not None:
        scale = np.asarray(np.float32(alpha) * _product(a_scale, b_scale), np.float32)
        inputs.append(_bias(rewriter, node, bias, scale))
    attributes: dict[str, object] = {
        "alpha": alpha,
        "transA": int_attribute(node, "transA", 0),
        "transB": transposed,
    }
    rewriter.replace(node, "Gemm", inputs, attributes, input_of(node, 7), input_of(node, 8))


def _two_inputs(op: str) -> Rule:
    def rule(rewriter: Rewriter, node: ir.Node) -> None:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale = node.inputs[:7]
        inputs: list[ir.Value | None] = [
            rewriter.dequantize(node, a, a_scale, a_zero),
            rewriter.dequantize(node, b, b_scale, b_zero),
        ]
        rewriter.replace(node, op, inputs, {}, y_scale, input_of(node, 7))

    return rule


def _one_input(op: str, *left_out: str) -> Rule:
    def rule(rewriter: Rewriter, node: ir.Node) -> None:
        _channels_first(node)
        x, scale, zero, y_scale = node.inputs[:4]
        inputs: list[ir.Value | None] = [rewriter.dequantize(node, x, scale, zero)]
        attributes = _attributes(node, "channels_last", *left_out)
        rewriter.replace(node, op, inputs, attributes, y_scale, input_of(node, 4))

    return rule


def _softmax(rewriter: Rewriter, node: ir.Node) -> None:
    x = node.inputs[0]
    axis = int_attribute(node, "axis", -1)
    rank = len(x.shape) if x is not None and x.shape is not None else None
    if int_attribute(node, "opset", 13) < 13 and axis != -1 and (rank is None or axis != rank - 1):
        raise NotLiftableError("it is a Softmax over several axes, as before opset 13")
    _one_input("Softmax", "opset")(rewriter, node)


def _concat(rewriter: Rewriter, node: ir.Node) -> None:
    y_scale, y_zero = node.inputs[:2]
    inputs: list[ir.Value | None] = [
        rewriter.dequantize(
            node, node.inputs[index], input_of(node, index + 1), input_of(node, index + 2)
        )
        for index in range(2, len(node.inputs), 3)
    ]
    rewriter.replace(node, "Concat", inputs, _attributes(node), y_scale, y_zero)


def _where(rewriter: Rewriter, node: ir.Node) -> None:
    condition, x, x_scale, x_zero, y, y_scale, y_zero, z_scale = node.inputs[:8]
    inputs: list[ir.Value | None] = [
        condition,
        rewriter.dequantize(node, x, x_scale, x_zero),
        rewriter.dequantize(node, y, y_scale, y_zero),
    ]
    rewriter.replace(node, "Where", inputs, {}, z_scale, input_of(node, 8))


RULES: dict[str, Rule] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearAdd": _two_inputs("Add"),
    "QLinearMul": _two_inputs("Mul"),
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
    "QLinearSigmoid": _one_input("Sigmoid"),
    "QLinearLeakyRelu": _one_input("LeakyRelu"),
    "QLinearSoftmax": _softmax,
    "QLinearAveragePool": _one_input("AveragePool"),
    "QLinearGlobalAveragePool": _one_input("GlobalAveragePool"),
}
"""Operator -> what writes it in float; raises NotLiftableError with the reason."""
