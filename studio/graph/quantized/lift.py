"""From a graph with Q/DQ pairs to its float graph and what they said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import onnx_ir as ir

from studio.graph.edit import Names
from studio.graph.model import Change, ModelGraph
from studio.graph.patterns import RECOGNITION
from studio.graph.prepare.dead_code import remove_dead_code
from studio.graph.prepare.sharing import note_shared_weights
from studio.graph.quantized.activations import lift_activations
from studio.graph.quantized.constants import lift_constants
from studio.graph.quantized.found import (
    FoundQuantization,
    NotLiftableError,
    is_dequantize,
    is_quantize,
    read_parameters,
)
from studio.graph.quantized.saturation import restore_activations

SHOWN = 5
RULE = "read quantization"
RESTORED = (
    "{} {} put back: the zero point at the lowest integer did its work, which rounding does not "
    "in float."
)


def lift_quantization(graph: ModelGraph) -> ModelGraph:
    """`graph` without its Q/DQ pairs; `found` says for each tensor what they rounded it to.

    Integer constants become float ones, exactly as DequantizeLinear computes them. A pair that only
    some readers of a tensor see becomes an Identity of its own, so that the others keep reading the
    unrounded tensor; a Relu that the file leaves to saturation is put back. Whatever cannot be
    expressed so stays in the graph and is named in `warnings`. A graph without such nodes is
    returned as it is.
    """
    if not any(is_quantize(node) or is_dequantize(node) for node in graph.ir.graph):
        return graph
    model = graph.ir.clone()
    names, notes = Names(model.graph), Notes()
    records: dict[ir.Value, FoundQuantization] = {}
    lift_constants(model.graph, names, records, notes)
    lift_activations(model.graph, names, records)
    remove_dead_code(model)
    restored = restore_activations(model.graph, names, records)
    notes.left_over(model)
    alive = {*model.graph.inputs, *model.graph.initializers.values()}
    for node in model.graph:
        alive.update(node.outputs)
    found = {value.name or "": record for value, record in records.items() if value in alive}
    changes = [Change(RULE, "", _summary(model, found))] if found else []
    changes += [Change(RULE, "", RESTORED.format(count, op)) for op, count in restored.items()]
    for rule in RECOGNITION if found else ():
        if rule.name not in graph.source.without:
            changes += rule.run(model)  # layers whose operators stood apart for the pairs between
    changes += note_shared_weights(model)
    return replace(
        graph,
        ir=model,
        changes=(*graph.changes, *changes),
        warnings=(*graph.warnings, *notes.texts()),
        found=found,
    )


def _summary(model: ir.Model, found: dict[str, FoundQuantization]) -> str:
    constants = sum(name in model.graph.initializers for name in found)
    ranged = sum(record.dynamic for record in found.values())
    anew = f" {ranged} activations are ranged at every inference, as in the file." if ranged else ""
    return (
        f"The model is quantized already: the encodings of {len(found) - constants - ranged} "
        f"activations and {constants} constants were read from its QuantizeLinear and "
        f"DequantizeLinear operators, which were taken out of the graph.{anew}"
    )


class Notes:
    """What could not be lifted: reasons, each with the nodes it holds for."""

    def __init__(self) -> None:
        self._nodes: dict[str, list[str]] = {}

    def add(self, reason: str, node: ir.Node) -> None:
        """`reason` is a sentence with `{}` where the names of the nodes go."""
        self._nodes.setdefault(reason, []).append(node.name or node.op_type)

    def left_over(self, model: ir.Model) -> None:
        """Note every Q and DQ node that is still there."""
        for node in _everywhere(model):
            if is_quantize(node) or is_dequantize(node):
                self.add(f"{node.op_type} stays in the graph ({_why(node, model)}): {{}}.", node)

    def texts(self) -> Iterator[str]:
        for reason, names in self._nodes.items():
            more = f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""
            yield reason.format(", ".join(names[:SHOWN]) + more)


def _everywhere(model: ir.Model) -> Iterator[ir.Node]:
    for graph in model.graphs():
        yield from graph


def _why(node: ir.Node, model: ir.Model) -> str:
    if node.graph is not model.graph:
        return "it is inside a subgraph"
    try:
        read_parameters(node)
    except NotLiftableError as problem:
        return str(problem)
    data = node.inputs[0]
    if is_dequantize(node):
        if data is not None and data.is_graph_input():
            return "the model is fed integers"
        if data is not None and is_quantize(data.producer()):
            return "another scale than that of the QuantizeLinear before it"
        constant = data is not None and data.const_value is not None
        return "the model returns it" if constant else "its integers come from no QuantizeLinear"
    if any(value.is_graph_output() for value in node.outputs):
        return "the model's output is integers"
    readers = Counter(use.node.op_type for value in node.outputs for use in value.uses())
    return f"its integers are read by {', '.join(sorted(readers))}"
