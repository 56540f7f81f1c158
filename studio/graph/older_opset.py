"""Write a graph in an older opset, for runtimes that read no newer one.

An operator that says the same in both opsets is left alone; a few whose operands became inputs get
them back as attributes. What the older opset cannot say is refused by name. (onnx's own converter
has no way back for most operators.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from studio.errors import ExportError
from studio.graph.edit import array_of, input_of, int_attribute

_CHANGED = {
    "GridSample": 20,  # other names of the modes
    "Hardmax": 13,
    "LogSoftmax": 13,
    "RoiAlign": 16,  # another default of where pixels lie
    "Softmax": 13,
}
"""Operators that mean something else from this opset on, though they look the same."""

_ONE_AXIS = frozenset(["Hardmax", "LogSoftmax", "Softmax"])


def older_opset(model: ir.Model, target: int) -> ir.Model:
    """A copy of `model` at opset `target`; ExportError names the operator that does not exist
    there or cannot be said there."""
    copy = model.clone()
    before = copy.opset_imports.get("", 0)
    for node in copy.graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            continue
        _rewrite(node, target)
        problem = _problem(node, before, target)
        if problem:
            raise ExportError(
                f"The operator {node.op_type} {node.name!r} cannot be written in opset {target}: "
                f"{problem}.",
                f"Export with opset {before}, or leave the opset to the studio.",
            )
    copy.opset_imports[""] = target
    for value in [v for v in copy.graph.initializers.values() if not v.uses()]:
        if not value.is_graph_output():
            del copy.graph.initializers[value.name or ""]
    return copy


def _problem(node: ir.Node, before: int, target: int) -> str:
    """Why `node` does not say the same in opset `target`; empty if it does."""
    try:
        new = onnx.defs.get_schema(node.op_type, before)
        old = onnx.defs.get_schema(node.op_type, target)
    except onnx.defs.SchemaError:
        return "it does not exist there"
    if new.since_version == old.since_version:
        return ""
    for name, attribute in node.attributes.items():
        known = new.attributes.get(name)
        default = None if known is None else known.default_value
        is_default = default is not None and default.type and _value(default) == attribute.value
        if name not in old.attributes and not is_default:
            return f"its attribute {name} does not exist there"
    if _count(node.inputs) > old.max_input or _count(node.outputs) > old.max_output:
        return "it has fewer inputs or outputs there"
    changed = _CHANGED.get(node.op_type, 0)
    if target < changed <= before and not (node.op_type in _ONE_AXIS and _is_last(node)):
        return "it means something else there"
    return _type_problem(node, old)


def _type_problem(node: ir.Node, schema: onnx.defs.OpSchema) -> str:
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    for index, value in enumerate(node.inputs):
        if value is None or value.dtype is None or not schema.inputs:
            continue
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        types = allowed.get(formal.type_str, [formal.type_str])
        name = f"tensor({value.dtype.name.lower()})"
        if name not in types and isinstance(value.type, ir.TensorType):
            return f"it takes no {value.dtype.name.lower()} there"
    return ""


def _value(default: onnx.AttributeProto) -> object:
    value = onnx.helper.get_attribute_value(default)
    return value.decode() if isinstance(value, bytes) else value


def _count(values: Sequence[ir.Value | None]) -> int:
    """Number of values up to the last that is there."""
    given = [index for index, value in enumerate(values) if value is not None and value.name != ""]
    return given[-1] + 1 if given else 0


def _is_last(node: ir.Node) -> bool:
    """True if the only axis is the last one, where both meanings agree."""
    value = node.inputs[0]
    axis = int_attribute(node, "axis", -1)
    if value is None or value.shape is None:
        return False
    node.attributes["axis"] = ir.AttrInt64("axis", axis % len(value.shape))
    return axis % len(value.shape) == len(value.shape) - 1


def _rewrite(node: ir.Node, target: int) -> None:
    """Operands that became inputs after `target`, as attributes again."""
    if node.op_type == "Reshape" and target < 14 and not int_attribute(node, "allowzero", 0):
        node.attributes.pop("allowzero", None)
    if node.op_type.startswith("Reduce") and not int_attribute(node, "noop_with_empty_axes", 0):
        since = 13 if node.op_type == "ReduceSum" else 18
        if target < since:
            node.attributes.pop("noop_with_empty_axes", None)
            _to_attribute(node, 1, "axes", ir.AttrInt64s)
    if target < 13 and node.op_type in ("Squeeze", "Unsqueeze"):
        _to_attribute(node, 1, "axes", ir.AttrInt64s)
    if node.op_type == "Split":
        if target < 18:
            node.attributes.pop("num_outputs", None)
        if target < 13:
            _to_attribute(node, 1, "split", ir.AttrInt64s)
    if target < 11 and node.op_type == "Clip":
        for index, name in ((2, "max"), (1, "min")):
            _to_attribute(node, index, name, ir.AttrFloat32)
    if target < 11 and node.op_type == "Pad":
        _to_attribute(node, 2, "value", ir.AttrFloat32)
        _to_attribute(node, 1, "pads", ir.AttrInt64s)


def _to_attribute(
    node: ir.Node, index: int, name: str, kind: Callable[[str, Any], ir.Attr]
) -> None:
    """Take the constant input `index`, the last there is, out; computed ones stay and are refused
    for their number."""
    array = array_of(input_of(node, index))
    if array is None:
        return
    value = array.reshape(-1).tolist()
    single = kind is ir.AttrFloat32
    node.attributes[name] = kind(name, float(np.asarray(value[0])) if single else value)
    node.resize_inputs(index)
