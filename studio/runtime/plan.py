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
    hooked_for: Mapping[str, Collection[str]] | None = None,
) -> Plan:
    """The plan that gives `wanted` from the values `fed`, with only `nodes` (None: any node).

    `hooked_for` names the nodes that read a value behind its hook, where not all do. With `nodes`
    given, no hook applies to what is fed.

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
    as_it_is = set() if nodes is None else set(fed)
    split = {
        name: frozenset(readers)
        for name, readers in (hooked_for or {}).items()
        if name in hooks and name not in as_it_is
    }
    opsets = graph.ir.opset_imports
    return _plan(chosen, graph.initializers, fed, wanted, hooks, opsets, device, split)


def _plan(
    chosen: Sequence[ir.Node],
    initializers: Collection[str],
    fed: Sequence[str],
    wanted: Sequence[str],
    hooks: Mapping[str, Hook],
    opsets: Mapping[str, int],
    device: torch.device,
    split: Mapping[str, frozenset[str]],
) -> Plan:
    """The plan that runs the nodes `chosen`, which need nothing but what is fed or constant.

    A value of `split` is there twice: as it is, and behind its hook for the nodes named.
    """
    hooked = {hooked_name(name): name for name in split}
    inputs = [_inputs(node, split) for node in chosen]
    readers = Counter(name for names in inputs for name in names if name)
    last = {name: position for position, names in enumerate(inputs) for name in names}
    used_constants = [
        name
        for name in dict.fromkeys([*readers, *wanted])
        if hooked.get(name, name) in initializers and hooked.get(name, name) not in fed
    ]
    hooked_feeds = [name for name in readers if hooked.get(name) in fed]
    slots: dict[str, int] = {}
    for name in (*fed, *hooked_feeds, *used_constants):
        slots[name] = len(slots)
    for node in chosen:
        for value in node.outputs:
            name = value.name or ""
            if name and (readers[name] or name in wanted or (name in hooks and name not in split)):
                slots.setdefault(name, len(slots))
            if name in split and readers[hooked_name(name)]:
                slots.setdefault(hooked_name(name), len(slots))

    def hook(name: str) -> Hook | None:
        return None if name in split else hooks.get(hooked.get(name, name))

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
            (i, name)
            for i, value in enumerate(node.outputs)
            for name in (value.name, hooked_name(value.name or ""))
            if name in slots and value.name not in fed
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
                outputs=tuple(
                    (i, slots[name], hook(name), _over(hook(name), known, node, split))
                    for i, name in outputs
                    if name
                ),
                free=tuple(sorted(slots[name] for name in gone - kept if name)),
            )
        )
        overwritable |= _private(node, known, readers, kept, hooks)
    return Plan(
        steps=tuple(steps),
        feeds=tuple((name, slots[name]) for name in (*fed, *hooked_feeds)),
        feed_hooks=tuple(
            (hooked.get(name, name), name, hooks[hooked.get(name, name)])
            for name in (*fed, *hooked_feeds)
            if hook(name) is not None
        ),
        constants=tuple((name, slots[name]) for name in used_constants),
        results=tuple((name, slots[name]) for name in wanted),
        size=len(slots),
    )


def hooked_name(name: str) -> str:
    """What the value `name` behind its hook is called, where it also is there as it is."""
    return f"{name}\0hooked"


def _inputs(node: ir.Node, split: Mapping[str, frozenset[str]]) -> list[str | None]:
    names = [None if value is None else value.name for value in reads(node)]
    return [
        hooked_name(name) if name and node.name in split.get(name, ()) else name for name in names
    ]


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


def _over(
    hook: Hook | None, known: Op, node: ir.Node, split: Mapping[str, frozenset[str]]
) -> Hook | None:
    """The hook for values whose memory is the output's own: its `write_over` if it has one."""
    alone = known.fresh and len(node.outputs) == 1 and node.outputs[0].name not in split
    return getattr(hook, "write_over", hook) if alone else hook


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
        plan=_plan(chosen, constants, fed, wanted, {}, opsets, device, {}),
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
