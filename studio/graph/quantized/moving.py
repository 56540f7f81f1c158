"""Operators that only move or select integers: the same in float, between DQ and Q."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from studio.graph.edit import Names, add_constant, array_of, input_of, is_op
from studio.graph.quantized.found import (
    NotLiftableError,
    Parameters,
    is_dequantize,
    is_quantize,
    read_parameters,
)

MOVING_OPS = (
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "MaxPool",
    "Pad",
    "ReduceMax",
    "ReduceMin",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
"""Operators that onnxruntime runs on int8 and uint8; Resize selects only in the nearest mode."""


@dataclass(frozen=True, eq=False)
class _Source:
    """Scale and zero point of a tensor of integers: the values, and what they hold."""

    scale: ir.Value
    zero_point: ir.Value
    parameters: Parameters


def express_moving(graph: ir.Graph, names: Names) -> None:
    """Move Q behind, and DQ before, each operator that hands integers of one scale on."""
    known: dict[ir.Value, _Source] = {}
    for node in list(graph):
        if is_quantize(node):
            source = _source(node)
            if source is not None:
                known[node.outputs[0]] = source
            continue
        data = input_of(node, 0)
        if is_op(node, "Clip") and data in known:  # integers of fewer bits than their type has
            known[node.outputs[0]] = known[data]
        if not is_op(node, *MOVING_OPS) or data is None:
            continue
        if data in known:
            _around(graph, node, known, names)
        elif array_of(data) is not None:
            _pull_up(graph, node, names)


def _source(node: ir.Node) -> _Source | None:
    try:
        parameters = read_parameters(node)
    except NotLiftableError:
        return None
    scale, zero_point = node.inputs[1], input_of(node, 2)
    if parameters.axis is not None or scale is None or zero_point is None:
        return None
    return _Source(scale, zero_point, parameters)


def _around(graph: ir.Graph, node: ir.Node, known: dict[ir.Value, _Source], names: Names) -> None:
    data = node.inputs[0]
    assert data is not None
    source = known[data]
    node.replace_input_with(0, _dequantized(graph, node, data, source, names))
    if is_op(node, "Pad"):
        _pad_value(graph, node, source, names)
    for output in node.outputs if is_op(node, "Split") else node.outputs[:1]:
        uses = list(output.uses())
        name, leaves = output.name or "", output.is_graph_output()
        q = ir.node("QuantizeLinear", [output, source.scale, source.zero_point])
        result = q.outputs[0]
        result.type, result.shape = source.zero_point.type, output.shape
        output.dtype = ir.DataType.FLOAT
        for use in uses:
            use.node.replace_input_with(use.idx, result)
        if leaves:
            position = next(i for i, value in enumerate(graph.outputs) if value is output)
            graph.outputs[position] = result
        output.name = names.fresh(_plain(name))
        result.name = name
        q.name = names.fresh(f"{output.name}_QuantizeLinear")
        graph.insert_after(node, q)
        known[result] = source


def _plain(name: str) -> str:
    """`name` without what the studio's exporter appends to integers."""
    return name.removesuffix("_quantized").removesuffix("_saturated") or name


def _dequantized(
    graph: ir.Graph, before: ir.Node, data: ir.Value, source: _Source, names: Names
) -> ir.Value:
    dq = ir.node("DequantizeLinear", [data, source.scale, source.zero_point])
    dq.name = names.fresh(f"{data.name}_DequantizeLinear")
    result = dq.outputs[0]
    result.name = names.fresh(f"{data.name}_dequantized")
    result.dtype, result.shape = ir.DataType.FLOAT, data.shape
    graph.insert_before(before, dq)
    return result


def _pad_value(graph: ir.Graph, node: ir.Node, source: _Source, names: Names) -> None:
    """The integers at the border as float; without any they are the integer 0."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        return
    value = input_of(node, 2)
    integer = np.zeros((), np.int64) if value is None else array_of(value)
    if integer is None:
        assert value is not None
        node.replace_input_with(2, _dequantized(graph, node, value, source, names))
        return
    steps = integer.astype(np.int64).reshape(()) - source.parameters.zero_point
    number = np.asarray(steps.astype(np.float32) * source.parameters.scale)
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, add_constant(graph, names.fresh(f"{node.name}_value"), number))


def _pull_up(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    """Integer constant -> Gather -> DQ (a table of embeddings) becomes DQ -> Gather."""
    data, output = node.inputs[0], node.outputs[0]
    assert data is not None
    readers = [use.node for use in output.uses()]
    if not readers or output.is_graph_output() or not all(map(is_dequantize, readers)):
        return
    if any(reader.outputs[0].is_graph_output() for reader in readers):
        return
    try:
        parameters = [read_parameters(reader) for reader in readers]
    except NotLiftableError:
        return
    first = readers[0]
    scale, zero_point = first.inputs[1], input_of(first, 2)
    if parameters[0].axis is not None or any(p.key != parameters[0].key for p in parameters):
        return
    dq = ir.node("DequantizeLinear", [data, scale, *([zero_point] if zero_point else [])])
    dq.name = names.fresh(f"{data.name}_DequantizeLinear")
    dq.outputs[0].name = names.fresh(f"{data.name}_dequantized")
    dq.outputs[0].dtype, dq.outputs[0].shape = ir.DataType.FLOAT, data.shape
    graph.insert_before(node, dq)
    node.replace_input_with(0, dq.outputs[0])
    output.dtype = ir.DataType.FLOAT
    for reader in readers:
        reader.outputs[0].replace_all_uses_with(output)
        graph.remove(reader, safe=True)
