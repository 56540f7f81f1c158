"""Graphs within a node: the branches of If, the bodies of Loop and Scan."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The graphs among the attributes of `node`, in the order of the attributes."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found += attribute.as_graphs()
    return found


def captured(node: ir.Node) -> tuple[ir.Value, ...]:
    """Values from outside that the subgraphs of `node` read, in the order of their first use."""
    found: dict[ir.Value, None] = {}
    for graph in subgraphs(node):
        found.update(dict.fromkeys(captured_by(graph)))
    return tuple(found)


def captured_by(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """Values that `graph` and the graphs within it read and none of them makes."""
    found: dict[ir.Value, None] = {}
    own = {*graph.inputs, *graph.initializers.values()}
    for node in graph:
        for value in reads(node):
            if value is not None and value not in own:
                found[value] = None
        own.update(node.outputs)
    found.update((value, None) for value in graph.outputs if value not in own)
    return tuple(found)


def reads(node: ir.Node) -> tuple[ir.Value | None, ...]:
    """The inputs of `node`, then what its subgraphs capture."""
    return (*node.inputs, *captured(node))


def nodes_within(node: ir.Node) -> Iterator[ir.Node]:
    """Every node of the subgraphs of `node`, nested ones too."""
    for graph in subgraphs(node):
        yield from graph.all_nodes()


def clear_subgraphs(node: ir.Node) -> None:
    """Let what the subgraphs of `node` read go: a removed node's bodies must not count as uses."""
    for inner in nodes_within(node):
        for index in range(len(inner.inputs)):
            inner.replace_input_with(index, None)


def give_bodies_own_outputs(proto: onnx.ModelProto) -> None:
    """Put an Identity where a subgraph hands on a value from outside, or one value twice.

    onnxruntime refuses the former, and onnx_ir loses the connection.
    """
    taken = _names(proto.graph)
    _own_outputs(proto.graph, taken, nested=False)
    for function in proto.functions:
        for node in function.node:
            for graph in proto_subgraphs(node):
                _own_outputs(graph, taken, nested=True)


def _own_outputs(graph: onnx.GraphProto, taken: set[str], *, nested: bool) -> None:
    made = {name for node in graph.node for name in node.output}
    if nested:
        made |= {value.name for value in graph.input}
        made |= {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        for inner in proto_subgraphs(node):
            _own_outputs(inner, taken, nested=True)
    if not nested:
        return
    for value in graph.output:
        if value.name in made:
            made.remove(value.name)  # a second output of that name needs a value of its own
        else:
            source, count = value.name, 1
            while f"{source}_inside_{count}" in taken:
                count += 1
            value.name = f"{source}_inside_{count}"
            taken.add(value.name)
            graph.node.append(onnx.helper.make_node("Identity", [source], [value.name]))


def _names(graph: onnx.GraphProto) -> set[str]:
    """Every tensor name in `graph` and the graphs within it."""
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        names.update(node.output)
        for inner in proto_subgraphs(node):
            names |= _names(inner)
    return names


def proto_subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs among the attributes of `node`."""
    graphs = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            graphs.append(attribute.g)
        graphs.extend(attribute.graphs)
    return graphs
