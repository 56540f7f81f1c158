"""Products whose activations are ranged at every inference: MatMulInteger and ConvInteger.

x is DynamicQuantizeLinear's, w a constant: y = float(sum (x - z_x) (w - z_w)) * (s_x * s_w), then
the bias in float, as onnxruntime's `quantize_dynamic` writes it and its optimizer fuses it to
DynamicQuantizeMatMul.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from studio.exporting.operators.integers import (
    CONTRIB,
    Integers,
    dequantized,
    note_bits,
    plain_attributes,
    zero_point_of,
)
from studio.exporting.operators.recurrent import use_dynamic_lstm
from studio.graph.edit import add_constant, array_of, float_attribute, input_of, int_attribute
from studio.graph.prepare.dead_code import remove_dead_code


def use_dynamic_operators(model: ir.Model, *, contrib: bool) -> None:
    """Write every product of a dynamically quantized tensor and an 8-bit constant in integers, and
    with `contrib` every such LSTM as DynamicQuantizeLSTM."""
    graph = model.graph
    for node in list(graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "LSTM" and contrib:
            use_dynamic_lstm(graph, node)
        elif node.op_type in ("MatMul", "Gemm", "Conv"):
            _Product(graph, node).write()
    remove_dead_code(model)
    if any(node.domain == CONTRIB for node in graph):
        model.opset_imports.setdefault(CONTRIB, 1)
    graph.sort()


def dynamic_source(value: ir.Value | None) -> Integers | None:
    """The integers that DynamicQuantizeLinear makes at run time of what `value` rounds."""
    found = dequantized(value)
    producer = None if found is None else found.value.producer()
    if found is None or producer is None or producer.op_type != "DynamicQuantizeLinear":
        return None
    return found


class _Product:
    """One node and what replaces it."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.graph = graph
        self.node = node
        self.nodes: list[ir.Node] = []

    def write(self) -> None:
        node = self.node
        x, w = dynamic_source(node.inputs[0]), dequantized(node.inputs[1])
        if x is None or w is None or not w.bytes or array_of(w.value) is None:
            return
        integers = array_of(w.value)
        assert integers is not None
        axis = {"MatMul": integers.ndim - 1, "Conv": 0}.get(node.op_type, 1)
        if node.op_type == "Gemm":
            if int_attribute(node, "transA", 0) or float_attribute(node, "alpha", 1.0) != 1.0:
                return
            if int_attribute(node, "transB", 0):
                axis = 0
        if w.axis not in (None, axis):
            return
        if node.op_type == "MatMul" and w.axis is not None and integers.ndim != 2:
            return
        zero_point = self._zero_point(w)
        if zero_point is None:
            return
        weight = w.value
        if node.op_type == "Gemm" and axis == 0:
            name = f"{weight.name}_transposed"
            weight = add_constant(self.graph, name, np.ascontiguousarray(integers.T))
        note_bits(node, w)
        op = "ConvInteger" if node.op_type == "Conv" else "MatMulInteger"
        attributes = plain_attributes(node) if op == "ConvInteger" else {}
        operands = [x.value, weight, x.zero_point, zero_point]
        product = self._add(op, "integers", operands, ir.DataType.INT32, attributes)
        as_float = self._add("Cast", "float", [product], attributes={"to": ir.DataType.FLOAT.value})
        scale = self._aligned(w, len(integers.shape) - 2)
        factor = self._add("Mul", "scale", [x.scale, scale])
        factor.shape = None
        result = self._add("Mul", "scaled", [as_float, factor])
        bias = self._bias(len(integers.shape) - 2)
        if bias is not None:
            result = self._add("Add", "biased", [result, bias])
        self._put(result)

    def _add(
        self,
        op: str,
        ending: str,
        inputs: list[ir.Value | None],
        dtype: ir.DataType = ir.DataType.FLOAT,
        attributes: dict[str, Any] | None = None,
    ) -> ir.Value:
        name = f"{self.node.name}_{ending}"
        new = ir.node(op, inputs, attributes, name=name)
        new.metadata_props.update(self.node.metadata_props)
        result = new.outputs[0]
        result.name, result.dtype, result.shape = name, dtype, self.node.outputs[0].shape
        self.nodes.append(new)
        return result

    def _zero_point(self, w: Integers) -> ir.Value | None:
        """The weight's zero point; ConvInteger's kernel takes a single one."""
        value = zero_point_of(self.graph, w)
        array = array_of(value)
        if self.node.op_type != "Conv" or array is None or array.ndim == 0:
            return value
        if (array != array[0]).any():
            return None
        return add_constant(self.graph, f"{value.name}_single", array[0].reshape(()))

    def _aligned(self, w: Integers, spatial: int) -> ir.Value:
        """The weight's scales, such that they broadcast over the result."""
        array = array_of(w.scale)
        if self.node.op_type != "Conv" or array is None or array.ndim == 0:
            return w.scale
        return add_constant(
            self.graph, f"{w.scale.name}_aligned", array.reshape(-1, *(1,) * spatial)
        )

    def _bias(self, spatial: int) -> ir.Value | None:
        """What is added at the end, such that it broadcasts over the result."""
        value = input_of(self.node, 2)
        if value is None:
            return None
        beta = float_attribute(self.node, "beta", 1.0) if self.node.op_type == "Gemm" else 1.0
        array = array_of(value)
        if self.node.op_type == "Conv":
            shape = np.array([1, -1, *(1,) * spatial], np.int64)
            if array is None:
                constant = add_constant(self.graph, f"{self.node.name}_bias_shape", shape)
                return self._add("Reshape", "bias", [value, constant])
            return add_constant(self.graph, f"{value.name}_aligned", array.reshape(tuple(shape)))
        if beta == 1.0:
            return value
        factor = add_constant(self.graph, f"{self.node.name}_beta", np.array(beta, np.float32))
        return self._add("Mul", "bias", [value, factor])

    def _put(self, result: ir.Value) -> None:
        old = self.node.outputs[0]
        for new in self.nodes:
            self.graph.insert_before(self.node, new)
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        result.name, result.shape, old.name = old.name, old.shape, None
        self.nodes[0].name = self.node.name
        self.graph.remove(self.node, safe=True)
