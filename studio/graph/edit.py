"""Small surgery on an `ir.Graph`, shared by the preparation passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from studio.graph.model import is_constant
from studio.graph.scopes import title

ABSORBED = "studio.absorbed"


class Names:
    """Names already taken in a graph and its subgraphs (values and nodes), to make new ones
    unique."""

    def __init__(self, graph: ir.Graph) -> None:
        self._taken: set[str | None] = set()
        for part in (graph, *graph.subgraphs()):
            self._taken.update(value.name for value in part.inputs)
            self._taken.update(part.initializers)
            for node in part:
                self._taken.add(node.name)
                self._taken.update(value.name for value in node.outputs)

    def fresh(self, wanted: str) -> str:
        """`wanted`, or `wanted_1`, `wanted_2`, ... whichever is free first; then taken."""
        name, count = wanted, 0
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The numbers in `value` if it is a constant the caller cannot feed, else None."""
    if value is None or not is_constant(value) or value.is_graph_input():
        return None
    assert value.const_value is not None
    return value.const_value.numpy()


def add_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer of `graph`; `name` must be free."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def ints_attribute(node: ir.Node, name: str) -> list[int] | None:
    attribute = node.attributes.get(name)
    return None if attribute is None else list(attribute.as_ints())


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index`, None if it is absent or left empty."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """True if `node` is one of these standard ONNX operators."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`; None if it is read elsewhere too, or is a graph output."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    consumer = uses[0].node
    producer = value.producer()
    if producer is not None and consumer.graph is not producer.graph:
        return None
    return consumer


def bypass(node: ir.Node, source: ir.Value) -> None:
    """Remove `node`; whoever read its first output reads `source` instead.

    The output's name survives on `source` when the output leaves the graph.
    """
    graph, output = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    name, leaves = output.name, output.is_graph_output()
    _inherit_type(source, output)
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if leaves:
        source.name = name


def can_bypass(node: ir.Node, source: ir.Value) -> bool:
    """True if `bypass` keeps the names and the number of the graph's inputs and outputs."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    if not node.outputs[0].is_graph_output():
        return True
    producer = source.producer()
    return producer is not None and producer.graph is node.graph and not source.is_graph_output()


def absorb(follower: ir.Node, source: ir.Value) -> None:
    """Remove `follower`, whose work its producer now does, keeping the follower's tensor name.

    `source` then holds what the follower's output held, so it takes that name, type and shape.
    """
    graph, output = follower.graph, follower.outputs[0]
    assert isinstance(graph, ir.Graph)
    name = output.name
    if output.shape is not None:
        source.shape = output.shape
    if output.type is not None:
        source.type = output.type
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(follower, safe=True)
    source.name = name
    producer = source.producer()
    if producer is not None:
        gone = dict.fromkeys([*absorbed(producer), *absorbed(follower), title(follower)])
        gone.pop(title(producer), None)
        if gone:
            producer.metadata_props[ABSORBED] = "\n".join(gone)


def absorbed(node: ir.Node) -> list[str]:
    """Names of the operators whose work `node` does besides its own."""
    names = node.metadata_props.get(ABSORBED, "")
    return names.split("\n") if names else []


def _inherit_type(target: ir.Value, source: ir.Value) -> None:
    if target.type is None:
        target.type = source.type
    if target.shape is None:
        target.shape = source.shape


def replace_node(
    old: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], **attrs: object
) -> None:
    """Put another standard operator in the place of `old`; its name and its output's name stay."""
    graph = old.graph
    assert isinstance(graph, ir.Graph)
    attributes = ir.convenience.convert_attributes(attrs)
    new = ir.Node(
        "",
        op_type,
        inputs,
        attributes,
        num_outputs=1,
        name=old.name,
        metadata_props=dict(old.metadata_props),
    )
    graph.insert_before(old, new)
    absorb(old, new.outputs[0])


def insert_before(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], names: Names, **attrs: object
) -> ir.Value:
    """The result of a new standard operator in front of `node`, which it is a part of.

    It takes the module and source line of `node`, and the type and shape of its first operand.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    new = _new_node(node, op_type, inputs, names, attrs)
    graph.insert_before(node, new)
    return new.outputs[0]


def insert_after(
    value: ir.Value, op_type: str, inputs: Sequence[ir.Value | None], names: Names, **attrs: object
) -> ir.Value:
    """The result of a new standard operator that reads `value`, in the place of `value`.

    Everybody else who read `value` reads the result, which takes over its name.
    """
    node = value.producer()
    assert node is not None
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    new = _new_node(node, op_type, inputs, names, attrs)
    result = new.outputs[0]
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    for index, operand in enumerate(inputs):
        new.replace_input_with(index, operand)
    graph.insert_after(node, new)
    value.name, result.name = result.name, value.name
    return result


def _new_node(
    near: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    names: Names,
    attrs: Mapping[str, object],
) -> ir.Node:
    name = names.fresh(f"{title(near)}.{op_type}")
    new = ir.Node(
        "",
        op_type,
        inputs,
        ir.convenience.convert_attributes(attrs),
        num_outputs=1,
        name=name,
        metadata_props=dict(near.metadata_props),
    )
    result, first = new.outputs[0], inputs[0]
    result.name = names.fresh(f"{name}_output")
    if first is not None:
        result.type, result.shape = first.type, first.shape
    return new
