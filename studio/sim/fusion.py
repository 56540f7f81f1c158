"""Which nodes run as one on a target: recognised layers, and what it fuses behind a layer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from studio.graph.model import ModelGraph, is_constant
from studio.graph.patterns import layer_of


@dataclass(frozen=True)
class Unit:
    """One operator, or the operators of one recognised layer in execution order.

    `kind` is what people call the latter (LayerNorm), "" for a single operator; `name` is unique.
    """

    nodes: tuple[ir.Node, ...]
    kind: str
    name: str

    @cached_property
    def label(self) -> str:
        return self.kind or self.nodes[0].op_type

    @property
    def last(self) -> ir.Node:
        """The operator whose result leaves the unit."""
        return self.nodes[-1]


@dataclass(frozen=True)
class FusedGroup:
    """Units that run as one kernel, each reading the result of the one before."""

    units: tuple[Unit, ...]

    @cached_property
    def nodes(self) -> tuple[ir.Node, ...]:
        return tuple(node for unit in self.units for node in unit.nodes)

    @property
    def members(self) -> tuple[tuple[Unit, ir.Node], ...]:
        return tuple((unit, node) for unit in self.units for node in unit.nodes)

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.units[0].name

    @cached_property
    def title(self) -> str:
        """`Conv + Clip`, `Linear + Relu`, `LayerNorm`."""
        return " + ".join(unit.label for unit in self.units)

    @property
    def recognised(self) -> bool:
        return any(unit.kind for unit in self.units)


def fused_groups(
    graph: ModelGraph,
    fusions: tuple[tuple[str, ...], ...],
    rounded: Collection[str] = (),
    separate_kinds: Collection[str] = (),
) -> list[FusedGroup]:
    """Every node of `graph` exactly once, in groups that match the longest fusion.

    A fusion names operators or kinds of recognised layers; `MatMul, Add` stands for Linear too.
    Groups are in execution order: each comes after those it reads. A follower joins when it is the
    only reader of a result that is no graph output and all its other data operands are constants
    (so Conv + Add joins a bias, never a residual). Nothing joins behind the tensors `rounded`,
    which are quantized whatever the target fuses. Recognised layers of the kinds `separate_kinds`
    are taken operator by operator.
    """
    ordered = sorted(fusions, key=len, reverse=True)
    units = _units(graph, rounded, separate_kinds)
    taken: set[ir.Node] = set()
    groups = []
    for node in graph.nodes():
        unit = units[node]
        if node in taken or node is not unit.last:
            continue
        group = next(
            filter(None, (_match(unit, ops, units, taken, rounded) for ops in ordered)),
            FusedGroup((unit,)),
        )
        taken.update(group.nodes)
        groups.append(group)
    return groups


def _units(
    graph: ModelGraph, rounded: Collection[str], separate_kinds: Collection[str]
) -> dict[ir.Node, Unit]:
    """The unit of every node."""
    members: dict[tuple[str, str], list[ir.Node]] = {}
    for node in graph.nodes():
        mark = layer_of(node)
        if mark is not None and mark.kind not in separate_kinds:
            members.setdefault((mark.kind, mark.name), []).append(node)
    units = {node: Unit((node,), "", node.name or "") for node in graph.nodes()}
    for (kind, name), nodes in members.items():
        if _only_last_leaves(nodes) and not any(
            value.name in rounded for node in nodes[:-1] for value in node.outputs
        ):
            units.update(dict.fromkeys(nodes, Unit(tuple(nodes), kind, name)))
    return units


def _only_last_leaves(nodes: list[ir.Node]) -> bool:
    """False for marks that no longer fit the graph, say of a file that was changed elsewhere."""
    inside = set(nodes)
    return not any(
        value.is_graph_output() or any(use.node not in inside for use in value.uses())
        for node in nodes[:-1]
        for value in node.outputs
    )


def _match(
    head: Unit,
    ops: tuple[str, ...],
    units: dict[ir.Node, Unit],
    taken: set[ir.Node],
    rounded: Collection[str],
) -> FusedGroup | None:
    if head.nodes[0].domain not in ("", "ai.onnx"):
        return None
    count = _matched(head, ops)
    if not count:
        return None
    group = [head]
    while count < len(ops):
        value = group[-1].last.outputs[0]
        follower = None if value.name in rounded else _follower(value, units)
        if follower is None or follower.last in taken:
            return None
        more = _matched(follower, ops[count:])
        if not more:
            return None
        group.append(follower)
        count += more
    return FusedGroup(tuple(group))


def _matched(unit: Unit, ops: tuple[str, ...]) -> int:
    """How many of `ops` the unit is; 0 if it is something else."""
    if unit.label == ops[0]:
        return 1
    own = tuple(node.op_type for node in unit.nodes)
    return len(own) if unit.kind == "Linear" and ops[: len(own)] == own else 0


def _follower(value: ir.Value, units: dict[ir.Node, Unit]) -> Unit | None:
    """The unit that alone reads `value`, and nothing else but constants."""
    uses = tuple(value.uses())
    if value.is_graph_output() or not uses or any(use.node not in units for use in uses):
        return None
    unit = units[uses[0].node]
    if any(units[use.node] is not unit for use in uses):
        return None
    if not unit.kind and len(uses) != 1:
        return None
    inside = {output for node in unit.nodes for output in node.outputs}
    operands = [operand for node in unit.nodes for operand in node.inputs if operand is not None]
    others = [operand for operand in operands if operand is not value and operand not in inside]
    return unit if all(map(is_constant, others)) else None
