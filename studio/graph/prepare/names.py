"""Unique, stable, readable names."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import Names
from studio.graph.model import Change, is_constant
from studio.graph.scopes import has_automatic_name, scope


def fill_names(model: ir.Model) -> list[Change]:
    """Name what has no name (`Conv_12`: the operator and its position) and rename duplicates."""
    names, seen, filled, changes = Names(model.graph), set(), 0, []
    _rename_in_bodies(model, names)
    for graph in model.graphs():
        for index, node in enumerate(graph):
            if not node.name:
                node.name = names.fresh(f"{node.op_type}_{index}")
                filled += 1
            elif node.name in seen:
                old, node.name = node.name, names.fresh(node.name)
                detail = f"Renamed from {old}, which another operator is called too."
                changes.append(Change("names", node.name, detail))
            seen.add(node.name)
            for value in node.outputs:
                # an unused output needs no name; one with readers cannot lack it in a file
                if not value.name and (value.uses() or value.is_graph_output()):
                    value.name = names.fresh(f"{node.name}_output")
    if filled:
        changes.append(Change("names", "", f"{filled} operators without a name were given one."))
    return changes


def _rename_in_bodies(model: ir.Model, names: Names) -> None:
    """Tensors of sibling subgraphs may have the same names in a file; here they have their own."""
    graph = model.graph
    seen = {value.name for value in graph.inputs} | set(graph.initializers)
    seen.update(value.name for node in graph for value in node.outputs)
    for body in graph.subgraphs():
        values = [*body.inputs, *body.initializers.values()]
        values += [value for node in body for value in node.outputs]
        for value in dict.fromkeys(values):
            if value.name and value.name in seen:
                value.name = names.fresh(value.name)
            seen.add(value.name)


def name_by_scope(model: ir.Model) -> list[Change]:
    """Call nodes that torch exported after the module they come from: `features.3.conv`.

    The operator with the module's weights has the module's name, the others add their operator
    (`features.3.Add`); repeated calls are numbered. Names a person chose are left alone. Nothing
    is reported, since the names replaced were the exporter's own.
    """
    groups: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        where = scope(node)
        if has_automatic_name(node) and not (where and (node.name or "").startswith(where)):
            groups.setdefault(where, []).append(node)
    renamed = [node for nodes in groups.values() for node in nodes]
    for node in renamed:
        node.name = ""
    names = Names(model.graph)
    for where, nodes in groups.items():
        weighted = [node for node in nodes if _has_weights(node)]
        alike = len({node.op_type for node in nodes}) == 1 and bool(where)
        for node in nodes:
            plain = alike or (
                bool(where) and bool(weighted) and node.op_type == weighted[0].op_type
            )
            base = where if plain else f"{where}.{node.op_type}" if where else node.op_type
            node.name = names.fresh(base)
    return []


# Their constants are shapes, axes and positions, not weights.
LAYOUT_OPS = {
    "Expand",
    "Gather",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Unsqueeze",
}


def _has_weights(node: ir.Node) -> bool:
    if node.op_type in LAYOUT_OPS:
        return False
    constants = [value for value in node.inputs[1:] if value is not None and is_constant(value)]
    return any(value.shape is not None and len(value.shape) > 0 for value in constants)
