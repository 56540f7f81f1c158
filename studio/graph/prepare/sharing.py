"""Each layer has its own bias; weights used by several layers are written down."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import Names, add_constant, array_of, is_op
from studio.graph.model import Change
from studio.graph.scopes import title

WEIGHT_SLOTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "Gather": 0}
SHARED_BY = "studio.shared_by"  # metadata of a weight: names of its layers, one a line


def separate_biases(model: ir.Model) -> list[Change]:
    """Copy a bias that several layers use: its quantization depends on each layer's own scales."""
    changes, names = [], Names(model.graph)
    for value in list(model.graph.initializers.values()):
        array, uses = array_of(value), list(value.uses())
        if array is None or len(uses) < 2:
            continue
        layers = [use for use in uses if use.idx == 2 and _has_bias(use.node)]
        kept = len(layers) == len(uses)  # the first layer keeps it, if only layers use it
        for use in layers[1 if kept else 0 :]:
            name = names.fresh(f"{title(use.node)}.bias")
            use.node.replace_input_with(2, add_constant(model.graph, name, array.copy()))
            detail = f"Has its own copy of the bias {value.name}, which {len(uses)} operators used."
            changes.append(Change("separate biases", title(use.node), detail))
    return changes


def note_shared_weights(model: ir.Model) -> list[Change]:
    """Write down which layers share their weights: they must share the quantization too.

    An embedding counts, and so does a layer that reads the weights through a Transpose.
    """
    changes = []
    for value in model.graph.initializers.values():
        if len(value.uses()) < 2 and not any(is_op(u.node, "Transpose") for u in value.uses()):
            continue
        names = [title(node) for node in _readers(value)]
        if len(names) < 2 or value.metadata_props.get(SHARED_BY) == "\n".join(names):
            continue
        value.metadata_props[SHARED_BY] = "\n".join(names)
        detail = f"Shares the weights {value.name} with {', '.join(names[1:])}."
        changes.append(Change("shared weights", names[0], detail))
    return changes


def reads_weight(node: ir.Node, index: int) -> bool:
    """True if operand `index` of `node` is the weight of a layer."""
    return is_op(node, *WEIGHT_SLOTS) and WEIGHT_SLOTS[node.op_type] == index


def _readers(value: ir.Value) -> list[ir.Node]:
    """Layers whose weight is `value` or its transposed."""
    found = []
    for use in value.uses():
        if reads_weight(use.node, use.idx):
            found.append(use.node)
        elif is_op(use.node, "Transpose"):
            turned = use.node.outputs[0].uses()
            found += [u.node for u in turned if reads_weight(u.node, u.idx)]
    return found


def _has_bias(node: ir.Node) -> bool:
    return is_op(node, "Conv", "ConvTranspose", "Gemm")
