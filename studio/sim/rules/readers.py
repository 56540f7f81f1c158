"""Which nodes read a tensor rounded, where the target rounds at inputs or ranges at inference."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from studio.graph.additions import is_scale
from studio.graph.model import is_constant
from studio.sim.fusion import Unit
from studio.sim.rules.context import Context
from studio.sim.rules.names import is_one_of, unit_names
from studio.sim.rules.residual import shortcut


@dataclass(frozen=True)
class Readers:
    """Answers for one context."""

    context: Context
    _position: dict[ir.Node, int] = field(default_factory=dict)
    _shortcuts: dict[ir.Node, int | None] = field(default_factory=dict)

    def rounded(self, value: ir.Value) -> frozenset[str] | None:
        """Names of the nodes that read `value` rounded by the target's `quantized_inputs`; None
        where the target rounds outputs. A scale that was added before a layer reads it as it is:
        what it gives is rounded."""
        if self.context.target.quantized_inputs is None:
            nodes = [use.node for use in value.uses()]
            if not any(map(is_scale, nodes)):
                return None
            return frozenset(node.name or "" for node in nodes if not is_scale(node))
        return frozenset(
            use.node.name or "" for use in value.uses() if self._rounds(use.node, use.idx)
        )

    def dynamic(self, value: ir.Value) -> frozenset[str]:
        """Names of the nodes that range `value` anew at every inference."""
        return frozenset(
            use.node.name or ""
            for use in value.uses()
            if use.idx == 0 and self._ranges(use.node) and self._has_weight(use.node)
        )

    def why_float(self, value: ir.Value) -> str:
        """Why nobody reads `value` rounded."""
        if self.context.target.quantized_inputs is None:
            return "scaled for the layers that read it, and rounded then"
        target = self.context.target
        adds = [use.node for use in value.uses() if self._residual(use.node) is not None]
        if adds:
            return (
                f"read in float by {adds[0].name}: only the shortcut is rounded there, so that "
                "convolution and addition run as one kernel"
            )
        return f"read in float: no op that {target.title} rounds the inputs of reads it"

    def _rounds(self, node: ir.Node, slot: int) -> bool:
        rule = self.context.target.quantized_inputs
        assert rule is not None
        unit = self.context.unit_of.get(node)
        if unit is None:
            return False  # inside a subgraph
        if rule.residual_add and self._residual(node) == slot:
            return True
        slots = [slots for op, slots in rule.ops.items() if op in _names_at(unit, node)]
        if unit.kind and unit.kind != "Linear":
            listed = any(slots)
        else:
            listed = any(slot in places for places in slots)
        return listed and self._weight_is_on(node, needed=rule.weighted_only)

    def _weight_is_on(self, node: ir.Node, *, needed: bool) -> bool:
        """False for an op whose weight stays float: rounding its inputs would bring nothing."""
        group = self.context.group_of[node]
        if not self.context.weights_of(self.context.unit_of[node]):
            return not needed
        return bool(self.context.settings_of(group).values.weight_enabled)

    def _has_weight(self, node: ir.Node) -> bool:
        return self._weight_is_on(node, needed=True)

    def _ranges(self, node: ir.Node) -> bool:
        group = self.context.group_of.get(node)
        if group is None or node is not group.nodes[0]:
            return False
        dynamic_ops = self.context.target.numbers.dynamic_ops
        if not any(name in dynamic_ops for name in unit_names(group.units[0])):
            return False
        return bool(self.context.settings_of(group).values.act_dynamic)

    def _residual(self, node: ir.Node) -> int | None:
        """The position of the shortcut among the inputs of an Add."""
        rule = self.context.target.quantized_inputs
        if rule is None or not rule.residual_add or node.op_type != "Add":
            return None
        if node not in self._shortcuts:
            if not self._position:
                nodes = enumerate(self.context.graph.nodes())
                self._position.update((other, index) for index, other in nodes)
            known = node in self._position
            self._shortcuts[node] = shortcut(node, self._position) if known else None
        return self._shortcuts[node]


def _names_at(unit: Unit, node: ir.Node) -> frozenset[str]:
    """Names that `node` goes by within its unit: in a Linear, the Add is none of its inputs."""
    if unit.kind == "Linear" and node is not unit.nodes[0]:
        return frozenset()
    return unit_names(unit)


def reached(context: Context, value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Who reads `value`, also behind ops that only move values: (node, position of the input)."""
    found, waiting = [], [value]
    while waiting:
        for use in waiting.pop().uses():
            found.append((use.node, use.idx))
            moves = is_one_of(use.node.op_type, context.target.follow_ops.exact)
            if moves and use.idx == 0 and not is_constant(use.node.outputs[0]):
                waiting += use.node.outputs
    return found
