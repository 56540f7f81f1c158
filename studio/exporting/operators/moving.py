"""Operators that only move or select values work on the integers themselves."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from studio.exporting.operators.integers import Integers, dequantized, integers_of
from studio.graph.edit import add_constant, array_of, input_of
from studio.graph.quantized.found import is_quantize


def move_integers(graph: ir.Graph, node: ir.Node) -> None:
    """Let `node` read the integers instead of the real numbers, if its results are rounded to just
    these again."""
    source = dequantized(node.inputs[0])
    if source is None or not source.single or not _selects(node):
        return
    if not _takes_bytes(node, graph.opset_imports.get("", 0)):
        return
    results: list[tuple[ir.Value, list[ir.Node]]] = []
    for value in node.outputs:
        if not value.uses() and not value.is_graph_output():
            continue
        quantizers = [use.node for use in value.uses()]
        if value.is_graph_output() or not all(_rounds(item, source) for item in quantizers):
            return
        results.append((value, quantizers))
    if not results:
        return
    if node.op_type == "Pad" and not _pad_with_integer(graph, node, source):
        return
    node.replace_input_with(0, source.value)
    for value, quantizers in results:
        name = quantizers[0].outputs[0].name
        value.type = ir.TensorType(source.dtype)  # not `dtype`: copies of a graph share types
        for item in quantizers:
            integers = item.outputs[0]
            integers.replace_all_uses_with(value, replace_graph_outputs=True)
            integers.name = None
            graph.remove(item, safe=True)
        value.name = name


def _rounds(node: ir.Node, source: Integers) -> bool:
    if not is_quantize(node):
        return False
    made = integers_of(node, node.outputs[0])
    return made is not None and made.alike(source)


def _takes_bytes(node: ir.Node, opset: int) -> bool:
    """True if the operator is defined for 8-bit integers in `opset`."""
    schema = onnx.defs.get_schema(node.op_type, opset)
    types = schema.inputs[0].type_str
    for constraint in schema.type_constraints:
        if constraint.type_param_str == types:
            return {"tensor(int8)", "tensor(uint8)"} <= set(constraint.allowed_type_strs)
    return False


def _selects(node: ir.Node) -> bool:
    if node.op_type == "MaxPool":
        return not (len(node.outputs) > 1 and node.outputs[1].uses())
    if node.op_type != "Resize":
        return True
    mode = node.attributes.get("mode")
    extrapolates = node.attributes.get("coordinate_transformation_mode")
    return (mode is None or mode.as_string() == "nearest") and (
        extrapolates is None or extrapolates.as_string() != "tf_crop_and_resize"
    )


def _pad_with_integer(graph: ir.Graph, node: ir.Node, source: Integers) -> bool:
    """Write the value that Pad adds as an integer; False if it is computed."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        return True
    given, scale = input_of(node, 2), array_of(source.scale)
    value = array_of(given)
    if scale is None or (given is not None and value is None):
        return False
    zero_point = array_of(source.zero_point)
    offset = 0 if zero_point is None else int(zero_point.reshape(()))
    real = np.float32(0.0) if value is None else np.float32(value.reshape(()))
    kind = source.dtype.numpy()
    limits = np.iinfo(kind)
    integer = np.clip(np.rint(real / scale) + offset, limits.min, limits.max)
    constant = add_constant(graph, f"{node.name}_padding", np.array(integer, dtype=kind))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, constant)
    return True
