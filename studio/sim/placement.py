"""Placement: which tensors are quantized how, and which are not and why.

`place` is a pure function of the graph and the configuration. The layer table shows its result,
the simulator obeys it, the exporters read it. `studio/sim/rules` decides row by row.
"""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.model import ModelGraph, is_constant
from studio.graph.patterns import block_of
from studio.graph.subgraphs import captured, reads
from studio.sim.bodies import reason_within, role_of_constant, tensors_within
from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.found import as_in_file, uses_file
from studio.sim.fusion import FusedGroup
from studio.sim.plan import Layer, Plan, Role
from studio.sim.rules.activations import Activations
from studio.sim.rules.biases import place_bias
from studio.sim.rules.capability import impossible, through_float
from studio.sim.rules.context import Context, biases_of, first_input, not_quantizable
from studio.sim.rules.ties import tie
from studio.sim.rules.weights import place_constant, place_weight
from studio.sim.settings import LayerNames, ResolvedSettings
from studio.sim.target import load_target


def place(graph: ModelGraph, config: QuantConfig) -> Plan:
    """One row per tensor and per layer of `graph` under `config`; ConfigError for a bad target."""
    as_found = uses_file(graph, config)
    rounded = graph.found if as_found else ()
    context = Context.of(graph, config, load_target(config.target), rounded)
    plan = _Placement(context).run()
    return as_in_file(graph, config, plan, context.resolver) if as_found else plan


class _Placement:
    """Goes through the graph in execution order, so that what a rule asks for is there."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.graph = context.graph
        self.activations = Activations(context)
        self.layers: list[Layer] = []
        self.matched: set[str] = set()
        self.warnings: list[str] = []

    def run(self) -> Plan:
        nodes = {node.name for node in self.graph.nodes()}
        for value in self.graph.inputs:
            name = value.name or ""
            self._place_input(value, f"{name} (input)" if name in nodes else name)
        for group in self.context.groups:
            self._place_group(group)
        for node in self.graph.nodes():
            self._leave_captured(node)
        rows = self.context.rows
        for name in self.graph.initializers:
            if name not in rows:
                self.context.leave(name, Role.CONSTANT, "", "not read by any layer")
        self.warnings += tie(self.context)
        config = self.context.config
        unmatched = [name for name in config.layers if name not in self.matched]
        self.warnings += [f"The setting for {name!r} matches no layer." for name in unmatched]
        self.warnings += through_float(self.context)
        return Plan(
            self.context.target.name,
            tuple(self.layers),
            {name: rows[name] for name in self._graph_order()},
            tuple(self.warnings),
            impossible(self.context),
        )

    def _graph_order(self) -> list[str]:
        order = [value.name for value in self.graph.inputs]
        for node in self.graph.nodes():
            order += [value.name for value in reads(node) if value is not None]
            order += [*tensors_within(node), *(value.name for value in node.outputs)]
        return [
            name
            for name in dict.fromkeys([*order, *self.graph.initializers])
            if name in self.context.rows
        ]

    def _resolve(self, names: LayerNames) -> ResolvedSettings:
        settings = self.context.resolver.resolve(names)
        self.matched |= settings.patterns
        return settings

    # --- layers ---------------------------------------------------------------------------------

    def _place_input(self, value: ir.Value, layer: str) -> None:
        op = frozenset(["Input"])
        settings = self._resolve(LayerNames(layer, op, op, op))
        row = self.activations.place_input(value, layer, settings)
        quantizable = self.activations.can_quantize_input(value)
        self.layers.append(
            Layer(
                name=layer,
                ops=("Input",),
                nodes=(),
                inputs=(),
                weights=(),
                bias=None,
                outputs=(row.name,),
                settings=settings.activation if quantizable else LayerSettings(),
                changed=settings.changed,
                note="" if row.spec else row.reason,
                origins=_origins(settings),
            )
        )

    def _place_group(self, group: FusedGroup) -> None:
        nodes, layer = group.nodes, group.name
        settings = self._resolve(self.context.names_of(group))
        weights, biases = self._place_parameters(group, settings)
        unity = "one layer" if group.recognised else "runs as one kernel"
        for node in nodes[:-1]:
            for value in node.outputs:
                if value.name:
                    reason = not_quantizable(value) or f"inside {group.title}: {unity}"
                    self.context.leave(value.name, Role.ACTIVATION, layer, reason)
        inputs, constants = self._place_operands(group, [*weights, *biases], settings)
        made = [value for value in nodes[-1].outputs if value.name]  # "": an output nobody wants
        outputs = [self.activations.place_output(group, value, settings) for value in made]
        first = outputs[0]
        own = first.spec is not None and first.tied_to is None
        follows = first.name in self.activations.followers(group) and not own
        follows = follows or self.context.follows_settings(group)
        has_weight = any(not not_quantizable(weight) for weight in weights)
        has_act = not follows and self.activations.can_quantize(group, made[0])
        applies = _applying(settings, has_weight, has_act)
        block = block_of(nodes[0])
        self.layers.append(
            Layer(
                name=layer,
                ops=tuple(node.op_type for node in nodes),
                nodes=tuple(node.name or "" for node in nodes),
                inputs=inputs,
                weights=(*(weight.name or "" for weight in weights), *constants),
                bias=biases[0].name if biases else None,
                outputs=tuple(row.name for row in outputs),
                settings=applies,
                changed=frozenset(
                    key for key in settings.changed if getattr(applies, key) is not None
                ),
                follows=(first.tied_to or first_input(nodes[-1])) if follows else None,
                note="" if first.spec else first.reason,
                kind=group.title if group.recognised else "",
                block=None if block is None else (block.kind, block.name),
                origins=_origins(settings),
            )
        )

    def _place_parameters(
        self, group: FusedGroup, settings: ResolvedSettings
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Place the weights of all units and the bias of the first: (weights, biases)."""
        weights: list[ir.Value] = []
        for unit in group.units:
            for weight in self.context.weights_of(unit):
                warning = place_weight(self.context, unit, weight, group.name, settings)
                self.warnings += [warning] if warning else []
                weights.append(weight)
        head = self.context.weights_of(group.units[0])
        biases = biases_of(group) if head else []
        for bias in biases:
            place_bias(self.context, group, bias, head[0], settings)
        return weights, biases

    def _place_operands(
        self, group: FusedGroup, placed: list[ir.Value], settings: ResolvedSettings
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Place constant operands other than those already `placed`: (activations read from
        outside the group, constants that are quantized)."""
        interior = {value for node in group.nodes[:-1] for value in node.outputs}
        inputs, constants = [], []
        for unit, node in group.members:
            for slot, operand in enumerate(reads(node)):
                if operand is None or operand in interior or operand in placed:
                    continue
                if not is_constant(operand):
                    inputs.append(operand.name or "")
                elif slot < len(node.inputs):
                    row = place_constant(self.context, unit, node, slot, group.name, settings)
                    constants += [row.name] if row.spec is not None else []
        return tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys(constants))

    def _leave_captured(self, node: ir.Node) -> None:
        """Nothing inside `node` is quantized, nor are the constants that are read there alone."""
        reason = reason_within(node)
        for name, role in tensors_within(node).items():
            self.context.leave(name, role, node.name or "", reason)
        for value in captured(node):
            if is_constant(value) and value.name not in self.context.rows:
                role = role_of_constant(value)
                self.context.leave(value.name or "", role, node.name or "", f"read {reason}")


def _origins(settings: ResolvedSettings) -> tuple[tuple[str, str], ...]:
    return tuple(settings.origins.items())


def _applying(settings: ResolvedSettings, weight: bool, activation: bool) -> LayerSettings:
    """The settings that mean something for a layer."""
    if weight and activation:
        return settings.values
    if weight:
        return settings.weight
    return settings.activation if activation else LayerSettings()
