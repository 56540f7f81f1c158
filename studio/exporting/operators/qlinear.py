"""The QOperator form: QLinearConv, QLinearMatMul and their kin.

(ONNX operators QLinearConv-10 and QLinearMatMul-10; onnxruntime docs/ContribOperators.md for those
of com.microsoft.) Their kernels take activations of one 8-bit type, int8 weights with int8
activations and either kind with uint8 ones, and an int32 bias at input scale times weight scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from studio.exporting.operators.integers import (
    CONTRIB,
    Integers,
    Result,
    dequantized,
    is_product,
    note_bits,
    plain_attributes,
    replace,
    rounded,
    take_place,
    zero_point_of,
)
from studio.exporting.operators.moving import move_integers
from studio.graph.edit import array_of, float_attribute, input_of, int_attribute, is_op
from studio.graph.prepare.dead_code import remove_dead_code
from studio.graph.quantized.moving import MOVING_OPS

Written = tuple[str, str, list[ir.Value | None], dict[str, Any]]
"""Domain, operator, inputs and attributes of what replaces a node."""
Rule = Callable[[ir.Graph, ir.Node, Result], Written | None]


def use_qlinear_operators(model: ir.Model, *, contrib: bool = True) -> None:
    """Write every operator of `model` that has an integer form in it (without `contrib`, in one of
    standard ONNX); others stay between DequantizeLinear and QuantizeLinear."""
    graph = model.graph
    for node in list(graph):
        if is_op(node, *MOVING_OPS):
            move_integers(graph, node)
            continue
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None or len(node.outputs) != 1:
            continue
        result = rounded(node.outputs[0])
        if result is None:
            if node.op_type == "MatMul" and contrib:
                _matmul_to_float(graph, node)
            continue
        written = rule(graph, node, result)
        if written is not None and (contrib or not written[0]):
            domain, op, inputs, attributes = written
            replace(graph, node, result, op, inputs, attributes, domain)
    remove_dead_code(model)
    if any(node.domain == CONTRIB for node in graph):
        model.opset_imports.setdefault(CONTRIB, 1)
    graph.sort()


def _activation(value: ir.Value | None, dtype: ir.DataType | None = None) -> Integers | None:
    """The 8-bit integers of `value`, of the type `dtype` if given."""
    found = dequantized(value)
    if found is None or not found.single or dtype not in (None, found.dtype):
        return None
    return found


def _weight(value: ir.Value | None, source: Integers, axis: int) -> Integers | None:
    """The 8-bit integers of a weight, with one scale or one along `axis`."""
    found = dequantized(value)
    if found is None or not found.bytes or found.axis not in (None, axis):
        return None
    if source.dtype == ir.DataType.INT8 and found.dtype != ir.DataType.INT8:
        return None
    return found


def _output(graph: ir.Graph, result: Result) -> list[ir.Value | None]:
    return [result.integers.scale, zero_point_of(graph, result.integers)]


def _operands(graph: ir.Graph, found: Integers) -> list[ir.Value | None]:
    return [found.value, found.scale, zero_point_of(graph, found)]


def _conv(graph: ir.Graph, node: ir.Node, result: Result) -> Written | None:
    x = _activation(node.inputs[0], result.integers.dtype)
    w = None if x is None else _weight(node.inputs[1], x, 0)
    if x is None or w is None or not _one_zero_point(w):
        return None
    inputs = [*_operands(graph, x), *_operands(graph, w), *_output(graph, result)]
    if input_of(node, 2) is not None:
        bias = is_product(input_of(node, 2), x, w)
        if bias is None:
            return None
        inputs.append(bias.value)
    note_bits(node, w)
    return "", "QLinearConv", inputs, plain_attributes(node)


def _one_zero_point(weight: Integers) -> bool:
    """The convolution's kernel wants the same zero point for all channels."""
    array = array_of(weight.zero_point)
    return array is None or bool((array == array.reshape(-1)[0]).all())


def _columns(value: ir.Value | None) -> int:
    """The axis of the columns of the right operand of a product."""
    return len(value.shape) - 1 if value is not None and value.shape is not None else -1


def _matmul_operands(node: ir.Node) -> tuple[Integers, Integers] | None:
    a = _activation(node.inputs[0])
    b = None if a is None else _weight(node.inputs[1], a, _columns(node.inputs[1]))
    if a is None or b is None or (b.axis is not None and b.axis != 1):
        return None
    return a, b


def _matmul(graph: ir.Graph, node: ir.Node, result: Result) -> Written | None:
    found = _matmul_operands(node)
    if found is None or found[0].dtype != result.integers.dtype:
        return None
    inputs = [*_operands(graph, found[0]), *_operands(graph, found[1]), *_output(graph, result)]
    note_bits(node, found[1])
    return "", "QLinearMatMul", inputs, {}


def _matmul_to_float(graph: ir.Graph, node: ir.Node) -> None:
    """A product whose result is not rounded, as where a float bias is added to it."""
    found = _matmul_operands(node)
    if found is None:
        return
    a, b = found
    note_bits(node, b)
    zeros: list[ir.Value | None] = [zero_point_of(graph, a), zero_point_of(graph, b)]
    inputs = [a.value, b.value, a.scale, b.scale, *zeros]
    new = ir.node("MatMulIntegerToFloat", inputs, domain=CONTRIB, name=node.name)
    new.metadata_props.update(node.metadata_props)
    graph.insert_before(node, new)
    take_place(node.outputs[0], new.outputs[0])
    graph.remove(node, safe=True)


def _gemm(graph: ir.Graph, node: ir.Node, result: Result) -> Written | None:
    transposed = int_attribute(node, "transB", 0)
    a = _activation(node.inputs[0], result.integers.dtype)
    b = None if a is None else _weight(node.inputs[1], a, 0 if transposed else 1)
    if a is None or b is None or float_attribute(node, "alpha", 1.0) != 1.0:
        return None
    bias: ir.Value | None = None
    if input_of(node, 2) is not None:
        found = is_product(input_of(node, 2), a, b)
        one_row = found is not None and found.value.shape is not None
        if not one_row or float_attribute(node, "beta", 1.0) != 1.0:
            return None
        assert found is not None
        assert found.value.shape is not None
        if len(found.value.shape) != 1:
            return None
        bias = found.value
    attributes = {
        "alpha": 1.0,
        "transA": int_attribute(node, "transA", 0),
        "transB": transposed,
    }
    operands = [*_operands(graph, a), *_operands(graph, b), bias, *_output(graph, result)]
    note_bits(node, b)
    return CONTRIB, "QGemm", operands, attributes


def _two(op: str) -> Rule:
    def rule(graph: ir.Graph, node: ir.Node, result: Result) -> Written | None:
        dtype = result.integers.dtype
        a, b = (_activation(value, dtype) for value in node.inputs[:2])
        if a is None or b is None:
            return None
        operands = [*_operands(graph, a), *_operands(graph, b), *_output(graph, result)]
        return CONTRIB, op, operands, {}

    return rule


def _one(op: str, **attributes: Any) -> Rule:
    def rule(graph: ir.Graph, node: ir.Node, result: Result) -> Written | None:
        x = _activation(node.inputs[0], result.integers.dtype)
        if x is None:
            return None
        inputs = [*_operands(graph, x), *_output(graph, result)]
        return CONTRIB, op, inputs, {**plain_attributes(node), **attributes}

    return rule


def _average_pool(graph: ir.Graph, node: ir.Node, result: Result) -> Written | None:
    dilations = node.attributes.get("dilations")
    wide = dilations is not None and any(step != 1 for step in dilations.as_ints())
    if wide or int_attribute(node, "ceil_mode", 0):
        return None  # the integer kernel knows neither
    written = _one("QLinearAveragePool", channels_last=0)(graph, node, result)
    if written is not None:
        written[3].pop("dilations", None)
    return written


def _concat(graph: ir.Graph, node: ir.Node, result: Result) -> Written | None:
    operands: list[ir.Value | None] = _output(graph, result)
    for value in node.inputs:
        found = _activation(value, result.integers.dtype)
        if found is None:
            return None
        operands += _operands(graph, found)
    return CONTRIB, "QLinearConcat", operands, plain_attributes(node)


def _where(graph: ir.Graph, node: ir.Node, result: Result) -> Written | None:
    dtype = result.integers.dtype
    x, y = (_activation(value, dtype) for value in node.inputs[1:3])
    if x is None or y is None:
        return None
    operands = [node.inputs[0], *_operands(graph, x), *_operands(graph, y)]
    return CONTRIB, "QLinearWhere", [*operands, *_output(graph, result)], {}


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _two("QLinearAdd"),
    "Mul": _two("QLinearMul"),
    "Concat": _concat,
    "Where": _where,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _one("QLinearGlobalAveragePool", channels_last=0),
    "Sigmoid": _one("QLinearSigmoid"),
    "LeakyRelu": _one("QLinearLeakyRelu"),
    "Softmax": _one("QLinearSoftmax", opset=13),
}
"""Operator -> what replaces it; None where its operands do not fit."""
