"""What every rule of placement reads: the graph, its groups, the target and the settings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import onnx_ir as ir

from studio.graph.additions import is_limit
from studio.graph.model import ModelGraph, is_constant
from studio.graph.patterns import float_reason
from studio.sim import op_rules
from studio.sim.config import QuantConfig
from studio.sim.fusion import FusedGroup, Unit, fused_groups
from studio.sim.plan import Role, TensorPlan
from studio.sim.rules.names import is_one_of, layer_names
from studio.sim.settings import LayerNames, ResolvedSettings, SettingsResolver
from studio.sim.target import Target


@dataclass(frozen=True)
class Context:
    """Fixed while a graph is placed, but for `rows`, which fills in topological order: what a rule
    asks for is there."""

    graph: ModelGraph
    config: QuantConfig
    target: Target
    resolver: SettingsResolver
    groups: tuple[FusedGroup, ...]
    group_of: dict[ir.Node, FusedGroup]
    unit_of: dict[ir.Node, Unit]
    rows: dict[str, TensorPlan] = field(default_factory=dict)
    _names: dict[str, LayerNames] = field(default_factory=dict)
    _weights: dict[Unit, tuple[ir.Value, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, graph: ModelGraph, config: QuantConfig, target: Target, rounded: Collection[str]
    ) -> Context:
        """The context of `graph`; nothing fuses behind the tensors `rounded`."""
        groups = fused_groups(graph, target.fusions, rounded, target.separate_kinds)
        return cls(
            graph=graph,
            config=config,
            target=target,
            resolver=SettingsResolver(config, target),
            groups=tuple(groups),
            group_of={node: group for group in groups for node in group.nodes},
            unit_of={node: unit for group in groups for unit, node in group.members},
        )

    def settings_of(self, group: FusedGroup) -> ResolvedSettings:
        return self.resolver.resolve(self.names_of(group))

    def names_of(self, group: FusedGroup) -> LayerNames:
        """What the settings of the group's layer may be addressed by; limits of channels have those
        of the layer they limit."""
        if group.name not in self._names:
            limited = self._limited(group)
            names = layer_names(group) if limited is None else self.names_of(limited)
            self._names[group.name] = names
        return self._names[group.name]

    def _limited(self, group: FusedGroup) -> FusedGroup | None:
        head = group.nodes[0]
        source = head.inputs[0] if is_limit(head) else None
        producer = None if source is None else source.producer()
        return None if producer is None else self.group_of.get(producer)

    def follows_settings(self, group: FusedGroup) -> bool:
        """True for limits of channels, which have no settings of their own."""
        return self._limited(group) is not None

    def put(self, row: TensorPlan) -> TensorPlan:
        self.rows[row.name] = row
        return row

    def leave(self, name: str, role: Role, layer: str, reason: str) -> TensorPlan:
        """A row that stays float because of `reason`."""
        return self.put(TensorPlan(name, role, layer, None, reason))

    def weights_of(self, unit: Unit) -> tuple[ir.Value, ...]:
        """Constants of the unit that are weights on this target."""
        if unit not in self._weights:
            self._weights[unit] = self._find_weights(unit)
        return self._weights[unit]

    def _find_weights(self, unit: Unit) -> tuple[ir.Value, ...]:
        if not is_one_of(unit.label, self.target.weight_ops) and not (
            unit.kind == "Linear" and "MatMul" in self.target.weight_ops
        ):
            return ()
        if unit.kind in op_rules.NORMALIZATIONS:
            return op_rules.spelled_out_weights(unit.nodes)
        return op_rules.weights(unit.nodes[0])


def not_quantizable(value: ir.Value) -> str:
    """Why a tensor cannot be quantized, by its type or its use; empty if it can."""
    if value.dtype is None:
        return "its type is not known"
    if not isinstance(value.type, ir.TensorType):
        return "a sequence of tensors, not a tensor"
    if value.dtype != ir.DataType.FLOAT:
        return f"{value.dtype.name.lower()} values, not float32"
    return float_reason(value)


def first_input(node: ir.Node) -> str:
    """Name of the first input, "" if it is left out."""
    return node.inputs[0].name or "" if node.inputs and node.inputs[0] is not None else ""


def biases_of(group: FusedGroup) -> list[ir.Value]:
    """The bias of the head, or the constant an Add fused behind a MatMul adds."""
    head, *others = group.nodes
    if group.units[0].kind in op_rules.NORMALIZATIONS:
        return op_rules.spelled_out_bias(group.units[0].nodes)
    own = op_rules.bias(head)
    if own is not None:
        return [own]
    if head.op_type == "MatMul" and others and others[0].op_type == "Add":
        return [value for value in others[0].inputs if value is not None and is_constant(value)]
    return []
