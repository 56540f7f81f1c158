"""What recognition writes into a graph: which operators are one layer, which layers one block.

The operators stay as they are: a runtime fuses them itself. The marks are metadata of nodes and
values, so they survive copies and files.
"""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

LAYER = "studio.layer"  # metadata of a node: kind, name and rule, one a line
BLOCK = "studio.block"
FLOAT = "studio.float"  # metadata of a value: why it is never quantized


class Mark(NamedTuple):
    """Membership of a node: `kind` is what people call it (LayerNorm), `name` is unique."""

    kind: str
    name: str
    rule: str


def layer_of(node: ir.Node) -> Mark | None:
    """The recognised layer that `node` is part of."""
    return _read(node, LAYER)


def block_of(node: ir.Node) -> Mark | None:
    """The recognised block of layers (an attention) that `node` is part of."""
    return _read(node, BLOCK)


def float_reason(value: ir.Value) -> str:
    """Why `value` must not be quantized; empty if it may be."""
    return value.metadata_props.get(FLOAT, "").partition("\n")[0]


def _read(node: ir.Node, key: str) -> Mark | None:
    text = node.metadata_props.get(key)
    lines = text.split("\n") if text else ()
    return Mark(*lines) if len(lines) == 3 else None


def write(node: ir.Node, key: str, mark: Mark) -> None:
    node.metadata_props[key] = "\n".join(mark)


def leave_float(value: ir.Value, reason: str, rule: str) -> None:
    """Say that `value` must not be quantized."""
    value.metadata_props[FLOAT] = f"{reason}\n{rule}"


def clear(graph: ir.Graph, rule: str) -> dict[ir.Node, tuple[str, ...]]:
    """Remove the marks of `rule` from nodes; returns what each of them said."""
    before: dict[ir.Node, tuple[str, ...]] = {}
    for node in graph:
        if not node.metadata_props:
            continue
        for key in (LAYER, BLOCK):
            mark = _read(node, key)
            if mark is not None and mark.rule == rule:
                before[node] = (*before.get(node, ()), node.metadata_props.pop(key))
    return before


def clear_floats(graph: ir.Graph, rule: str) -> set[ir.Value]:
    """Remove the marks of `rule` from values; returns those that had one."""
    values = [*graph.inputs, *graph.initializers.values()]
    values += [value for node in graph for value in node.outputs]
    found = {value for value in values if _leaves_float(value, rule)}
    for value in found:
        del value.metadata_props[FLOAT]
    return found


def _leaves_float(value: ir.Value, rule: str) -> bool:
    return value.metadata_props.get(FLOAT, "").endswith(f"\n{rule}")
