"""Branches that are always taken and loops of known length become ordinary operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from studio.graph.edit import Names, add_constant, array_of, input_of, is_op
from studio.graph.model import Change
from studio.graph.scopes import title
from studio.graph.subgraphs import clear_subgraphs, nodes_within

MAX_TRIPS = 64
MAX_UNROLLED = 4096
"""Operators that the iterations of one loop may become."""

# Shape inference looks for shapes, axes and indices in the subgraph itself.
SMALL = 16


def lift_body_constants(model: ir.Model) -> list[Change]:
    """Weights of branches and loop bodies become constants of the model, as all weights are."""
    count = 0
    for body in list(model.graph.subgraphs()):
        for name, value in list(body.initializers.items()):
            tensor = value.const_value
            if tensor is None or value.is_graph_output() or value.is_graph_input():
                continue
            if tensor.dtype.is_floating_point() or tensor.size > SMALL:
                body.initializers.pop(name)
                model.graph.register_initializer(value)
                count += 1
    if not count:
        return []
    detail = f"{count} constants inside branches and loop bodies became constants of the model."
    return [Change("body constants", "", detail)]


def inline_branches(model: ir.Model) -> list[Change]:
    """An If whose condition is a constant becomes the operators of the branch it takes."""
    changes, names, waiting = [], Names(model.graph), list(model.graph)
    while waiting:
        node = waiting.pop()
        condition = array_of(input_of(node, 0)) if is_op(node, "If") else None
        if condition is None or condition.size != 1:
            continue
        truth = bool(condition.reshape(-1)[0])
        branch = node.attributes["then_branch" if truth else "else_branch"].as_graph()
        moved, results = _take_out(branch, model.graph, node)
        what = f"its {len(moved)} operators stand in its place"
        detail = f"Its condition is always {str(truth).lower()}: {what}."
        changes.append(Change("inline branches", title(node), detail))
        _hand_over(node, results, moved, names)
        waiting += moved
    return changes


def unroll_loops(model: ir.Model) -> list[Change]:
    """A Loop of at most 64 iterations, known in number, becomes its body written out so often."""
    changes, names = [], Names(model.graph)
    for node in list(model.graph):
        trips = _trips(node)
        if trips is None:
            continue
        moved, results = _write_out(node, trips, model.graph, names)
        detail = f"Its body was written out {trips} times: {len(moved)} operators in its place."
        changes.append(Change("unroll loops", title(node), detail))
        _hand_over(node, results, moved, names)
    return changes


def _trips(node: ir.Node) -> int | None:
    """The number of iterations of a Loop, if it is known and can be written out."""
    count = array_of(input_of(node, 0)) if is_op(node, "Loop") else None
    if count is None or count.size != 1 or not 1 <= int(count.reshape(-1)[0]) <= MAX_TRIPS:
        return None
    if input_of(node, 1) is not None and not _is_true(input_of(node, 1)):
        return None
    body = node.attributes["body"].as_graph()
    trips = int(count.reshape(-1)[0])
    if trips * sum(1 for _ in nodes_within(node)) > MAX_UNROLLED:
        return None
    going_on = body.outputs[0]
    while is_op(going_on.producer(), "Identity"):
        source = going_on.producer().inputs[0]  # type: ignore[union-attr]
        assert source is not None
        going_on = source
    return trips if going_on is body.inputs[1] or _is_true(going_on) else None


def _is_true(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    if producer is not None and is_op(producer, "Constant") and "value" in producer.attributes:
        return bool(producer.attributes["value"].as_tensor().numpy().all())
    array = array_of(value)
    return array is not None and bool(array.all())


def _write_out(
    node: ir.Node, trips: int, graph: ir.Graph, names: Names
) -> tuple[list[ir.Node], list[ir.Value]]:
    """All iterations in front of `node`: their operators, and what each of its outputs becomes."""
    body = node.attributes["body"].as_graph()
    _take_constants(body, graph)
    states: list[ir.Value | None] = list(node.inputs[2:])
    rows: list[list[ir.Value]] = [[] for _ in body.outputs[1 + len(states) :]]
    moved: list[ir.Node] = []
    for trip in range(trips):
        copy = body.clone(allow_outer_scope_values=True)
        formal = list(copy.inputs)
        given = [
            _iteration_input(graph, names, formal[0], f"{node.name}.iteration", trip, np.int64),
            _iteration_input(graph, names, formal[1], f"{node.name}.condition", True, np.bool_),
            *states,
        ]
        new, outputs = _take_out(copy, graph, node)
        for old, value in zip(formal, given, strict=True):
            assert value is not None
            old.replace_all_uses_with(value)
        replaced = dict(zip(formal, given, strict=True))
        results = [replaced.get(value, value) for value in outputs]
        for inner in new:
            inner.name = names.fresh(f"{inner.name}.{trip}")
            for value in inner.outputs:
                value.name = names.fresh(f"{value.name}.{trip}") if value.name else ""
                value.shape = None  # it may differ from iteration to iteration
        moved += new
        states = results[1 : 1 + len(states)]
        for row, value in zip(rows, results[1 + len(states) :], strict=True):
            assert value is not None
            row.append(value)
    made = [value for value in states if value is not None]
    if rows:
        zero = add_constant(graph, names.fresh(f"{node.name}.axis"), np.array([0], np.int64))
        for row in rows:
            made.append(_stack(node, row, zero, names, moved))
    return moved, made


def _iteration_input(
    graph: ir.Graph, names: Names, formal: ir.Value, name: str, number: int, dtype: type
) -> ir.Value:
    array: np.ndarray = np.array(number, dtype)
    if formal.shape is not None and len(formal.shape) == 1:
        array = array.reshape(1)
    return add_constant(graph, names.fresh(name), array)


def _stack(
    node: ir.Node, rows: Sequence[ir.Value], zero: ir.Value, names: Names, moved: list[ir.Node]
) -> ir.Value:
    """The rows of a scan output along a new axis 0."""
    high = [
        _insert(node, "Unsqueeze", [row, zero], f"{node.name}.row.{i}", names, moved)
        for i, row in enumerate(rows)
    ]
    return _insert(node, "Concat", high, f"{node.name}.rows", names, moved, axis=0)


def _insert(
    node: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value],
    name: str,
    names: Names,
    moved: list[ir.Node],
    **attributes: int,
) -> ir.Value:
    """A new operator in front of `node`, added to `moved`."""
    new = ir.node(op_type, list(inputs), attributes, name=names.fresh(name))
    new.outputs[0].name = names.fresh(f"{new.name}_output")
    new.outputs[0].type = inputs[0].type
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(node, new)
    moved.append(new)
    return new.outputs[0]


def _take_constants(body: ir.Graph, graph: ir.Graph) -> None:
    for name, value in list(body.initializers.items()):
        body.initializers.pop(name)
        graph.register_initializer(value)


def _take_out(
    body: ir.Graph, graph: ir.Graph, place: ir.Node
) -> tuple[list[ir.Node], list[ir.Value]]:
    """Move everything in `body` in front of `place`: its operators and its outputs."""
    results, moved = list(body.outputs), list(body)
    body.outputs.clear()
    _take_constants(body, graph)
    for node in moved:
        body.remove(node)
    graph.insert_before(place, moved)
    return moved, results


def _hand_over(
    node: ir.Node, results: Sequence[ir.Value], moved: Sequence[ir.Node], names: Names
) -> None:
    """Remove `node`; its outputs are now `results`, which take their names where they can.

    A result that none of `moved` makes, or that is two outputs, keeps its name and is handed on by
    an Identity.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    own = {value for other in moved for value in other.outputs}
    for output, result in zip(node.outputs, results, strict=True):
        used = bool(output.uses()) or output.is_graph_output()
        if used and result not in own:
            identity = ir.node("Identity", [result], name=names.fresh(f"{node.name}.Identity"))
            graph.insert_before(node, identity)
            result = identity.outputs[0]
        if used:
            name = output.name
            if output.shape is not None and (result.shape is None or output.is_graph_output()):
                result.shape = output.shape
            result.type = result.type or output.type
            output.replace_all_uses_with(result, replace_graph_outputs=True)
            result.name = name
        own.discard(result)
    clear_subgraphs(node)
    graph.remove(node, safe=True)
