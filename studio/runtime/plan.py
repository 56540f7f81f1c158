"""What to run in which order, and what to let go when: compiled once, run many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.runtime.ops.dtypes import from_numpy
from studio.runtime.ops.registry import Call, Op, OpFunction, find

Hook = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One node ready to run.

    `inputs` are slots, -1 for an input left out; `outputs` the outputs that matter as (index,
    slot, quantizer); `free` the slots nobody reads after this step. `inplace` is set where the
    first input's memory may take the result.
    """

    node: str
    call: Call
    function: OpFunction
    inplace: OpFunction | None
    host: frozenset[int]
    inputs: tuple[int, ...]
    outputs: tuple[tuple[int, int, Hook | None], ...]
    free: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Steps over `size` slots, and which slots the named values go into and come out of."""

    steps: tuple[Step, ...]
    feeds: tuple[tuple[str, int], ...]
    feed_hooks: tuple[tuple[str, Hook], ...]
    constants: tuple[tuple[str, int], ...]
    results: tuple[tuple[str, int], ...]
    size: int


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
    chosen = _needed(graph, nodes, set(fed), wanted)
    reads = Counter(value.name for node in chosen for value in node.inputs if value is not None)
    last = {
        value.name: position
        for position, node in enumerate(chosen)
        for value in node.inputs
        if value is not None
    }
    used_constants = [
        name
        for name in dict.fromkeys([*reads, *wanted])
        if name and name in graph.initializers and name not in fed
    ]
    slots: dict[str, int] = {}
    for name in (*fed, *used_constants):
        slots[name] = len(slots)
    for node in chosen:
        for value in node.outputs:
            if value.name and (reads[value.name] or value.name in wanted or value.name in hooks):
                slots.setdefault(value.name, len(slots))
    steps = []
    kept = set(wanted)
    overwritable: set[str] = set()
    for position, node in enumerate(chosen):
        known = find(node.domain, node.op_type)
        assert known is not None, node.op_type
        call = _call(graph, node, device)
        names = [None if value is None else value.name for value in node.inputs]
        first = names[0] if names else None
        may_overwrite = known.inplace is not None and first in overwritable
        outputs = [
            (i, value.name)
            for i, value in enumerate(node.outputs)
            if value.name in slots and value.name not in fed
        ]
        gone = {name for name in names if name in slots and last[name] == position}
        gone |= {name for _, name in outputs if not reads[name]}
        steps.append(
            Step(
                node=node.name or "",
                call=call,
                function=known.function,
                inplace=known.inplace if may_overwrite else None,
                host=known.host,
                inputs=tuple(slots[name] if name else -1 for name in names),
                outputs=tuple((i, slots[name], hooks.get(name)) for i, name in outputs if name),
                free=tuple(sorted(slots[name] for name in gone - kept if name)),
            )
        )
        overwritable |= _private(node, known, reads, kept, hooks)
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
    graph: ModelGraph, nodes: Sequence[str] | None, given: set[str], wanted: Sequence[str]
) -> list[ir.Node]:
    """The nodes that `wanted` depends on, in topological order."""
    if nodes is None:
        candidates = list(graph.nodes())
    else:
        candidates = [graph.node(name) for name in sorted(nodes, key=graph.position)]

    def available(name: str | None) -> bool:
        return name in given or name in graph.initializers

    required = set()
    for name in wanted:
        if not graph.has_value(name):
            raise ModelError(f"The model has no value named '{name}'.", "Check the name.")
        required.add(name)
    chosen = []
    for node in reversed(candidates):
        outputs = {x.name for x in node.outputs if x.name and not available(x.name)}
        if not outputs & required:
            continue
        chosen.append(node)
        required -= outputs
        required |= {value.name for value in node.inputs if value is not None and value.name}
    missing = sorted(name for name in required if not available(name))
    if missing:
        raise ModelError(
            f"Values that the layers to run need are missing: {', '.join(missing)}.",
            "Give these values, or run the layers that compute them too.",
        )
    return chosen[::-1]


def _call(graph: ModelGraph, node: ir.Node, device: torch.device) -> Call:
    outputs = list(node.outputs)
    while outputs and not outputs[-1].name:
        outputs.pop()
    return Call(
        op_type=node.op_type,
        opset=graph.ir.opset_imports.get(node.domain, 0),
        attributes={name: _attribute(attr) for name, attr in node.attributes.items()},
        outputs=len(outputs),
        types=tuple(None if value is None else value.dtype for value in node.inputs),
        device=device,
    )


def _attribute(attribute: ir.Attr) -> Any:
    """The Python value of an attribute; lists for the plural types, a CPU tensor for a tensor."""
    if attribute.type == ir.AttributeType.TENSOR:
        return from_numpy(attribute.as_tensor().numpy()).clone()
    value = attribute.value
    return list(value) if isinstance(value, tuple) else value
