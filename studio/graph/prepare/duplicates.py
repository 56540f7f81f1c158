"""What is there twice is kept once: equal operators on equal inputs, equal weights."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import onnx_ir as ir

from studio.graph.edit import array_of
from studio.graph.model import Change, is_float
from studio.graph.prepare.constants import RANDOM_OPS
from studio.graph.prepare.sharing import reads_weight
from studio.graph.scopes import title

SAMPLES = 64  # numbers compared before whole weights are
SMALLEST = 16  # fewer numbers may be equal by chance


def merge_common(model: ir.Model) -> list[Change]:
    """Of operators that compute the same of the same tensors, the first serves all readers."""
    changes: list[Change] = []
    first: dict[Hashable, list[ir.Node]] = {}  # by operator and operands
    graph = model.graph
    for node in list(graph):
        if node.op_type in RANDOM_OPS or not node.inputs:
            continue
        alike = first.setdefault(_key(node), [])
        settings = _settings(node) if alike else None
        other = next((o for o in alike if settings is not None and _settings(o) == settings), None)
        if other is None:
            alike.append(node)
        if other is None or any(output.is_graph_output() for output in node.outputs):
            continue
        changes.append(
            Change("merge common", title(other), f"Computes what {title(node)} did again.")
        )
        for ours, theirs in zip(other.outputs, node.outputs, strict=True):
            if not ours.name:  # an output that only the second wanted
                ours.name = theirs.name
                theirs.name = ""
            theirs.replace_all_uses_with(ours)
        graph.remove(node, safe=True)
    return changes


def _key(node: ir.Node) -> Hashable:
    """Equal for nodes of one operator that read the same."""
    operands = tuple(0 if value is None else id(value) for value in node.inputs)
    return (node.domain, node.op_type, operands, len(node.outputs))


def _settings(node: ir.Node) -> Hashable | None:
    """Its attributes, equal for nodes that do the same; None if that cannot be said."""
    attributes: list[Hashable] = []
    for name, attribute in sorted(node.attributes.items()):
        value = attribute.value
        if attribute.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS):
            value = tuple(value)
        elif attribute.type not in (
            ir.AttributeType.INT,
            ir.AttributeType.FLOAT,
            ir.AttributeType.STRING,
        ):
            return None
        attributes.append((name, value))
    return tuple(attributes)


def merge_equal_weights(model: ir.Model) -> list[Change]:
    """Layers whose weights are the same numbers read one constant: they share one encoding."""
    changes: list[Change] = []
    kept: dict[Hashable, list[ir.Value]] = {}
    for value in list(model.graph.initializers.values()):
        key = _weight_key(value)
        if key is None:
            continue
        others = kept.setdefault(key, [])
        array = array_of(value)
        assert array is not None
        same = next((v for v in others if _equal(v, array)), None)
        if same is None:
            others.append(value)
            continue
        detail = f"Its weights {value.name} are those of {same.name}; one is kept."
        for use in value.uses():
            changes.append(Change("merge equal weights", title(use.node), detail))
        value.replace_all_uses_with(same)
        model.graph.initializers.pop(value.name or "")
    return changes


def _equal(value: ir.Value, array: np.ndarray) -> bool:
    other = array_of(value)
    return other is not None and np.array_equal(other, array)


def _weight_key(value: ir.Value) -> Hashable | None:
    """Type, shape and some of the numbers of a weight; None for other constants."""
    tensor = value.const_value
    if tensor is None or tensor.size < SMALLEST or len(tensor.shape) < 2 or not is_float(value):
        return None
    if value.is_graph_output() or value.is_graph_input() or not _is_weight(value):
        return None
    flat = tensor.numpy().reshape(-1)
    picked = flat[:: max(1, flat.size // SAMPLES)]
    if (picked == picked[0]).all():  # filled with one number: equal without being shared
        return None
    return (tensor.dtype, tuple(tensor.shape), picked.tobytes())


def _is_weight(value: ir.Value) -> bool:
    uses = value.uses()
    return bool(uses) and all(reads_weight(use.node, use.idx) for use in uses)
