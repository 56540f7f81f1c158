"""Rounding to float16 or bfloat16: a pair of Cast that the studio's exporter wrote for that."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.edit import Names, add_constant, array_of, int_attribute, is_op
from studio.graph.quantized.found import BITS_NOTE, CAST_TYPES


def is_rounding_cast(node: ir.Node) -> bool:
    """True for a Cast that is noted to be there for rounding."""
    return is_op(node, "Cast") and BITS_NOTE in node.metadata_props


def express_casts(graph: ir.Graph, names: Names) -> None:
    """Write such pairs, and such Casts of a constant to float, as QuantizeLinear and
    DequantizeLinear with scale 1. No runtime knows these, but preparation leaves them alone until
    they are lifted."""
    for node in list(graph):
        data = node.inputs[0] if node.inputs else None
        if data is None or not is_rounding_cast(node) or node.outputs[0].dtype in CAST_TYPES:
            continue
        first, array = data.producer(), array_of(data)
        if array is not None and data.dtype in CAST_TYPES:
            _replace(graph, node, "DequantizeLinear", data.dtype, names)
        elif first is not None and is_rounding_cast(first) and _is_pair(first):
            kind = ir.DataType(int_attribute(first, "to", 0))
            for reader in [use.node for use in data.uses()]:
                _replace(graph, reader, "DequantizeLinear", kind, names)
            _replace(graph, first, "QuantizeLinear", kind, names)


def _is_pair(first: ir.Node) -> bool:
    """True if `first` rounds a float tensor, and only Casts back to float read that."""
    output, source = first.outputs[0], first.inputs[0]
    return (
        int_attribute(first, "to", 0) in CAST_TYPES
        and source is not None
        and source.dtype == ir.DataType.FLOAT
        and not output.is_graph_output()
        and all(
            is_rounding_cast(use.node)
            and int_attribute(use.node, "to", 0) == ir.DataType.FLOAT
            and use.node.graph is first.graph
            for use in output.uses()
        )
    )


def _replace(graph: ir.Graph, node: ir.Node, op: str, kind: ir.DataType, names: Names) -> None:
    scale = add_constant(graph, names.fresh(f"{node.name}_one"), np.ones((), np.float32))
    zero = add_constant(graph, names.fresh(f"{node.name}_zero"), np.zeros((), kind.numpy()))
    new = ir.node(op, [node.inputs[0], scale, zero])
    new.name = node.name
    old, made = node.outputs[0], new.outputs[0]
    made.type, made.shape = old.type, old.shape
    graph.insert_before(node, new)
    name = old.name
    old.replace_all_uses_with(made, replace_graph_outputs=True)
    old.name, made.name = None, name
    graph.remove(node, safe=True)
