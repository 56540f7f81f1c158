"""What to run in which order, and what to let go when: compiled once, run many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.graph.subgraphs import captured, captured_by, reads
from studio.runtime.ops.dtypes import from_numpy
from studio.runtime.ops.registry import Call, Op, find
from studio.runtime.steps import Body, Hook, Plan, Step


def compile_plan(
    graph: ModelGraph,
    nodes: Sequence[str] | None,
    fed: Sequence[str],
    wanted: Sequence[str],
    hooks: Mapping[str, Hook],
    device: torch.device,
) -> Plan:
    """The plan that gives `wanted` from the values `fed`, with only `nodes` (None: any node).

    Raises ModelError if a wanted value is unknown or needs a value that is not there.
    """
    unknown = [name for name in wanted if not graph.has_value(name)]
    if unknown:
        raise ModelError(f"The model has no value named '{unknown[0]}'.", "Check the name.")
    if nodes is None:
        candidates = list(graph.nodes())
    else:
        candidates = [graph.node(name) for name in sorted(nodes, key=graph.position)]
    chosen = _needed(candidates, {*fed, *graph.initializers}, wanted)
    return _plan(chosen, graph.initializers, fed, wanted, hooks, graph.ir.opset_imports, device)


def _plan(
    chosen: Sequence[ir.Node],
    initializers: Collection[str],
    fed: Sequence[str],
    wanted: Sequence[str],
    hooks: Mapping[str, Hook],
    opsets: Mapping[str, int],
    device: torch.device,
) -> Plan:
    """The plan that runs the nodes `chosen`, which need nothing but what is fed or constant."""
    inputs = [[None if value is None else value.name for value in reads(node)] for node in chosen]
    readers = Counter(name for names in inputs for name in names if name)
    last = {name: position for position, names in enumerate(inputs) for name in names}
    used_constants = [
        name
        for name in dict.fromkeys([*readers, *wanted])
        if name in initializers and name not in fed
    ]
    slots: dict[str, int] = {}
    for name in (*fed, *used_constants):
        slots[name] = len(slots)
    for node in chosen:
        for value in node.outputs:
            if value.name and (readers[value.name] or value.name in wanted or value.name in hooks):
                slots.setdefault(value.name, len(slots))
    steps = []
    kept = set(wanted)
    overwritable: set[str] = set()
    for position, node in enumerate(chosen):
        known = find(node.domain, node.op_type)
        assert known is not None, node.op_type
        names = inputs[position]
        first = names[0] if names else None
        may_overwrite = known.inplace is not None and first in overwritable
        outputs = [
            (i, value.name)
            for i, value in enumerate(node.outputs)
            if value.name in slots and value.name not in fed
        ]
        gone = {name for name in names if name in slots and last[name] == position}
        gone |= {name for _, name in outputs if name and not readers[name]}
        steps.append(
            Step(
                node=node.name or "",
                call=_call(node, opsets, device),
                function=known.function,
                inplace=known.inplace if may_overwrite else None,
                host=known.host,
                inputs=tuple(slots[name] if name else -1 for name in names),
                outputs=tuple((i, slots[name], hooks.get(name)) for i, name in outputs if name),
                free=tuple(sorted(slots[name] for name in gone - kept if name)),
            )
        )
        overwritable |= _private(node, known, readers, kept, hooks)
    return Plan(
        steps=tuple(steps),
        feeds=tuple((name, slots[name]) for name in fed),
        feed_hooks=tuple((name, hooks[name]) for name in fed if name in hooks),
        constants=tuple((name, slots[name]) for name in used_constants),
        results=tuple((name, slots[name]) for name in wanted),
        size=len(slots),
    )


def _private(
    node: ir.Node, known: Op, reads: Counter, kept: set[str], hooks: Mapping[str, Hook]
) -> set[str]:
    """The node's output if its memory belongs to the one node that reads it.

    A quantizer may hold on to the tensor it is given, so a value with one is left alone.
    """
    if not known.fresh or len(node.outputs) != 1:
        return set()
    name = node.outputs[0].name or ""
    return {name} if reads[name] == 1 and name not in kept and name not in hooks else set()


def _needed(
    candidates: Sequence[ir.Node], given: Collection[str], wanted: Sequence[str]
) -> list[ir.Node]:
    """Those of `candidates`, in topological order, that `wanted` depends on.

    Raises ModelError if they need a value that is not given.
    """
    required = set(wanted)
    chosen = []
    for node in reversed(candidates):
        outputs = {x.name for x in node.outputs if x.name and x.name not in given}
        if not outputs & required:
            continue
        chosen.append(node)
        required -= outputs
        required |= {value.name for value in reads(node) if value is not None and value.name}
    missing = sorted(name for name in required if name not in given)
    if missing:
        raise ModelError(
            f"Values that the layers to run need are missing: {', '.join(missing)}.",
            "Give these values, or run the layers that compute them too.",
        )
    return chosen[::-1]


def _call(node: ir.Node, opsets: Mapping[str, int], device: torch.device) -> Call:
    outputs = list(node.outputs)
    while outputs and not outputs[-1].name:
        outputs.pop()
    places = {value: place for place, value in enumerate(captured(node))}
    attributes = {
        name: _body(attribute.as_graph(), places, opsets, device)
        if attribute.type == ir.AttributeType.GRAPH
        else _attribute(attribute)
        for name, attribute in node.attributes.items()
    }
    return Call(
        op_type=node.op_type,
        opset=opsets.get(node.domain, 0),
        attributes=attributes,
        outputs=len(outputs),
        types=tuple(None if value is None else value.dtype for value in node.inputs),
        device=device,
    )


def _body(
    graph: ir.Graph,
    places: Mapping[ir.Value, int],
    opsets: Mapping[str, int],
    device: torch.device,
) -> Body:
    """The subgraph `graph` of a node that captures values at `places`."""
    inputs = tuple(value.name or "" for value in graph.inputs)
    outside = tuple((value.name or "", places[value]) for value in captured_by(graph))
    fed = tuple(dict.fromkeys([*inputs, *(name for name, _ in outside)]))
    wanted = tuple(value.name or "" for value in graph.outputs)
    constants = {}
    for name, value in graph.initializers.items():
        assert value.const_value is not None, name
        tensor = from_numpy(value.const_value.numpy()).clone()
        constants[name] = tensor.to(device) if tensor.is_floating_point() else tensor
    chosen = _needed(list(graph), {*fed, *constants}, wanted)
    return Body(
        plan=_plan(chosen, constants, fed, wanted, {}, opsets, device),
        inputs=inputs,
        captures=outside,
        constants=constants,
        outputs=tuple((value.dtype, value.shape) for value in graph.outputs),
        device=device,
    )


def _attribute(attribute: ir.Attr) -> Any:
    """The Python value of an attribute; lists for the plural types, a CPU tensor for a tensor."""
    if attribute.type == ir.AttributeType.TENSOR:
        return from_numpy(attribute.as_tensor().numpy()).clone()
    value = attribute.value
    return list(value) if isinstance(value, tuple) else value
