"""Placement: which tensors are quantized how, and which are not and why.

`place` is a pure function of the graph and the configuration. The layer table shows its result,
the simulator obeys it, the exporters read it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.model import ModelGraph, is_constant
from studio.graph.patterns import block_of, float_reason
from studio.graph.subgraphs import captured, reads
from studio.quant.grid import Grid
from studio.sim import op_rules
from studio.sim.bodies import reason_within, role_of_constant, tensors_within
from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.found import as_in_file, uses_file
from studio.sim.fusion import FusedGroup, Unit, fused_groups
from studio.sim.plan import Layer, Plan, QuantSpec, Role, TensorPlan
from studio.sim.settings import ResolvedSettings, SettingsResolver
from studio.sim.target import Target, load_target


def place(graph: ModelGraph, config: QuantConfig) -> Plan:
    """One row per tensor and per layer of `graph` under `config`; ConfigError for a bad target."""
    placement = _Placement(graph, config, load_target(config.target))
    plan = placement.run()
    return as_in_file(graph, config, plan, placement.settings) if uses_file(graph, config) else plan


class _Placement:
    """The rows so far. Nodes come in topological order, so what a rule asks for is there."""

    def __init__(self, graph: ModelGraph, config: QuantConfig, target: Target) -> None:
        self.graph = graph
        self.config = config
        self.target = target
        self.settings = SettingsResolver(config, target)
        self.tensors: dict[str, TensorPlan] = {}
        self.layers: list[Layer] = []
        self.matched: set[str] = set()
        self.warnings: list[str] = []

    def run(self) -> Plan:
        nodes = {node.name for node in self.graph.nodes()}
        for value in self.graph.inputs:
            name = value.name or ""
            self._place_input(value, f"{name} (input)" if name in nodes else name)
        rounded = self.graph.found if uses_file(self.graph, self.config) else ()
        for group in fused_groups(self.graph, self.target.fusions, rounded):
            self._place_group(group)
        for node in self.graph.nodes():
            self._leave_captured(node)
        for name in self.graph.initializers:
            if name not in self.tensors:
                self._leave(name, Role.CONSTANT, "", "not read by any layer")
        unmatched = [name for name in self.config.layers if name not in self.matched]
        self.warnings += [f"The setting for {name!r} matches no layer." for name in unmatched]
        tensors = {name: self.tensors[name] for name in self._graph_order()}
        return Plan(self.target.name, tuple(self.layers), tensors, tuple(self.warnings))

    def _graph_order(self) -> list[str]:
        order = [value.name for value in self.graph.inputs]
        for node in self.graph.nodes():
            order += [value.name for value in reads(node) if value is not None]
            order += [*tensors_within(node), *(value.name for value in node.outputs)]
        return [
            name
            for name in dict.fromkeys([*order, *self.graph.initializers])
            if name in self.tensors
        ]

    def _resolve(self, layer: str) -> ResolvedSettings:
        settings = self.settings.resolve(layer)
        self.matched |= settings.patterns
        return settings

    # --- layers ---------------------------------------------------------------------------------

    def _place_input(self, value: ir.Value, layer: str) -> None:
        settings = self._resolve(layer)
        row = self._activation(value, Role.INPUT, layer, settings, None)
        quantizable = not _not_quantizable(value)
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
            )
        )

    def _place_group(self, group: FusedGroup) -> None:
        nodes, layer = group.nodes, group.name
        head, last = nodes[0], nodes[-1]
        settings = self._resolve(layer)
        weights = op_rules.weights(head)
        biases = _biases(group) if weights else []
        for weight in weights:
            self._place_weight(head, weight, layer, settings)
        for bias in biases:
            self._place_bias(bias, head, weights[0], layer)
        unity = "one layer" if group.recognised else "runs as one kernel"
        for node in nodes[:-1]:
            for value in node.outputs:
                if value.name:
                    reason = _not_quantizable(value) or f"inside {group.title}: {unity}"
                    self._leave(value.name, Role.ACTIVATION, layer, reason)
        inputs, constants = self._place_operands(group, [*weights, *biases], layer, settings)
        outputs = [
            self._place_output(group, value, layer, settings)
            for value in last.outputs
            if value.name  # an optional output that nobody wants has no name
        ]
        first = outputs[0]
        follows = first.name in self._followers(group)
        has_weight = any(not _not_quantizable(weight) for weight in weights)
        has_act = not follows and self._can_quantize_output(group)
        applies = _applying(settings, has_weight, has_act)
        block = block_of(head)
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
                follows=(first.tied_to or _first_input(last)) if follows else None,
                note="" if first.spec else first.reason,
                kind=group.title if group.recognised else "",
                block=None if block is None else (block.kind, block.name),
            )
        )

    def _place_operands(
        self,
        group: FusedGroup,
        placed: list[ir.Value],
        layer: str,
        settings: ResolvedSettings,
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
                elif (
                    slot < len(node.inputs)
                    and self._place_constant(unit, node, slot, operand, layer, settings).spec
                ):
                    constants.append(operand.name or "")
        return tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys(constants))

    def _leave_captured(self, node: ir.Node) -> None:
        """Nothing inside `node` is quantized, nor are the constants that are read there alone."""
        reason = reason_within(node)
        for name, role in tensors_within(node).items():
            self._leave(name, role, node.name or "", reason)
        for value in captured(node):
            if is_constant(value) and value.name not in self.tensors:
                role = role_of_constant(value)
                self._leave(value.name or "", role, node.name or "", f"read {reason}")

    # --- tensors --------------------------------------------------------------------------------

    def _put(self, row: TensorPlan) -> TensorPlan:
        self.tensors[row.name] = row
        return row

    def _leave(self, name: str, role: Role, layer: str, reason: str) -> TensorPlan:
        return self._put(TensorPlan(name, role, layer, None, reason))

    def _act_spec(self, settings: LayerSettings, op: str | None) -> QuantSpec:
        assert settings.act_bits is not None
        assert settings.act_observer is not None
        grid = Grid(settings.act_bits, self.target.activations.signed, bool(settings.act_symmetric))
        return QuantSpec(grid, None, settings.act_observer, self.target.fixed_ranges.get(op or ""))

    def _activation(
        self,
        value: ir.Value,
        role: Role,
        layer: str,
        settings: ResolvedSettings,
        op: str | None,
    ) -> TensorPlan:
        """Give `value`, made by `op`, an encoding of its own."""
        name = value.name or ""
        reason = _not_quantizable(value)
        if not reason and not settings.values.act_enabled:
            reason = f"switched off: {settings.origin('act_enabled')}"
        if reason:
            return self._leave(name, role, layer, reason)
        spec = self._act_spec(settings.values, op)
        return self._put(TensorPlan(name, role, layer, spec, settings.origin("act_bits")))

    def _place_weight(
        self, node: ir.Node, value: ir.Value, layer: str, settings: ResolvedSettings
    ) -> None:
        name = value.name or ""
        if name in self.tensors:
            self.warnings.append(
                f"{layer} shares its weight {name} with {self.tensors[name].layer}: one encoding, "
                "by the settings of the latter, serves both."
            )
            return
        reason = _not_quantizable(value)
        if not reason and not settings.values.weight_enabled:
            reason = f"switched off: {settings.origin('weight_enabled')}"
        if reason:
            self._leave(name, Role.WEIGHT, layer, reason)
            return
        values = settings.values
        assert values.weight_bits is not None
        assert values.weight_observer is not None
        grid = Grid(values.weight_bits, self.target.weights.signed, bool(values.weight_symmetric))
        axis = None
        reason = settings.origin("weight_bits")
        if values.weight_per_channel and node.op_type in self.target.per_channel_ops:
            axis = op_rules.channel_axis(node)
            if axis is None:
                reason += "; per tensor because no weight axis holds the output channels alone"
        spec = QuantSpec(grid, axis, values.weight_observer)
        self._put(TensorPlan(name, Role.WEIGHT, layer, spec, reason))

    def _place_bias(self, value: ir.Value, head: ir.Node, weight: ir.Value, layer: str) -> None:
        name = value.name or ""
        if name in self.tensors:
            return
        source = _first_input(head)
        weight_row, input_row = self.tensors[weight.name or ""], self.tensors.get(source)
        reason = ""
        if (self.config.bias or self.target.bias) == "float":
            reason = "biases stay float by setting"
        elif head.op_type in self.target.float_bias_ops:
            reason = self.target.float_bias_ops[head.op_type]
        elif input_row is None or input_row.spec is None:
            reason = "stays float because the layer's input is not quantized"
        elif weight_row.spec is None:
            reason = "stays float because the layer's weight is not quantized"
        elif not _one_value_per_channel(value):
            reason = "stays float because it is not one value per channel"
        if reason or weight_row.spec is None:
            self._leave(name, Role.BIAS, layer, reason)
            return
        axis = None
        if weight_row.spec.axis is not None:
            assert value.shape is not None
            axis = len(value.shape) - 1
        spec = QuantSpec(Grid(32, signed=True, symmetric=True), axis, "bias")
        reason = "int32 at the scale of input times weight"
        self._put(
            TensorPlan(name, Role.BIAS, layer, spec, reason, bias_of=(source, weight_row.name))
        )

    def _place_constant(
        self,
        unit: Unit,
        node: ir.Node,
        slot: int,
        value: ir.Value,
        layer: str,
        settings: ResolvedSettings,
    ) -> TensorPlan:
        """Quantize a constant operand like an activation, unless it is a parameter of the op."""
        name = value.name or ""
        if name in self.tensors:
            return self.tensors[name]
        reason = _not_quantizable(value) or float_reason(node.outputs[0])
        if not reason and (unit.kind or slot not in op_rules.data_slots(node)):
            reason = f"parameter of {unit.label}, used in float"
        reason = reason or self.target.float_ops.get(node.op_type, "")
        if not reason and not settings.values.act_enabled:
            reason = "switched off with the layer's output"
        if not reason and not _is_finite(value):
            reason = "holds infinite values, as masks do"
        if reason:
            return self._leave(name, Role.CONSTANT, layer, reason)
        spec = QuantSpec(self._act_spec(settings.values, None).grid, None, "minmax")
        reason = f"constant operand of {node.op_type}, quantized like an activation"
        return self._put(TensorPlan(name, Role.CONSTANT, layer, spec, reason))

    # --- outputs --------------------------------------------------------------------------------

    def _can_quantize_output(self, group: FusedGroup) -> bool:
        last = group.units[-1]
        first = next(value for value in last.last.outputs if value.name)
        return last.label not in self.target.float_ops and not _not_quantizable(first)

    def _followers(self, group: FusedGroup) -> set[str | None]:
        """Outputs of the group that use the encoding of its input."""
        follow, last = self.target.follow_ops, group.units[-1]
        if last.label not in follow.exact | follow.within_range:
            return set()
        return {value.name for value in last.last.outputs if not _not_quantizable(value)}

    def _place_output(
        self, group: FusedGroup, value: ir.Value, layer: str, settings: ResolvedSettings
    ) -> TensorPlan:
        name, label = value.name or "", group.units[-1].label
        if label in self.target.float_ops:
            reason = _not_quantizable(value) or self.target.float_ops[label]
            return self._leave(name, Role.ACTIVATION, layer, reason)
        if name in self._followers(group):
            return self._follow(group.nodes[-1], name, layer)
        return self._activation(value, Role.ACTIVATION, layer, settings, label)

    def _follow(self, node: ir.Node, name: str, layer: str) -> TensorPlan:
        source = _first_input(node)
        origin = self.tensors.get(source)
        if origin is None or origin.spec is None:
            reason = f"follows {source}, which is not quantized"
            return self._leave(name, Role.ACTIVATION, layer, reason)
        if origin.spec.axis is not None:
            reason = f"follows {source}, which is quantized per channel"
            return self._leave(name, Role.ACTIVATION, layer, reason)
        root = origin.tied_to or source
        moves = node.op_type in self.target.follow_ops.exact
        verb = "only moves values" if moves else "stays in its input's range"
        reason = f"{node.op_type} {verb}: uses the encoding of {root}"
        return self._put(
            TensorPlan(name, Role.ACTIVATION, layer, origin.spec, reason, tied_to=root)
        )


def _applying(settings: ResolvedSettings, weight: bool, activation: bool) -> LayerSettings:
    """The settings that mean something for a layer."""
    if weight and activation:
        return settings.values
    if weight:
        return settings.weight
    return settings.activation if activation else LayerSettings()


def _first_input(node: ir.Node) -> str:
    return node.inputs[0].name or "" if node.inputs and node.inputs[0] is not None else ""


def _biases(group: FusedGroup) -> list[ir.Value]:
    """The bias of the head, or the constant an Add fused behind a MatMul adds."""
    head, *others = group.nodes
    own = op_rules.bias(head)
    if own is not None:
        return [own]
    if head.op_type == "MatMul" and others and others[0].op_type == "Add":
        return [value for value in others[0].inputs if value is not None and is_constant(value)]
    return []


def _is_finite(value: ir.Value) -> bool:
    return value.const_value is None or bool(np.isfinite(value.const_value.numpy()).all())


def _not_quantizable(value: ir.Value) -> str:
    """Why a tensor cannot be quantized, by its type or its use; empty if it can."""
    if value.dtype is None:
        return "its type is not known"
    if not isinstance(value.type, ir.TensorType):
        return "a sequence of tensors, not a tensor"
    if value.dtype != ir.DataType.FLOAT:
        return f"{value.dtype.name.lower()} values, not float32"
    return float_reason(value)


def _one_value_per_channel(value: ir.Value) -> bool:
    assert value.shape is not None
    sizes = [int(size) for size in value.shape.numpy()]
    return bool(sizes) and all(size == 1 for size in sizes[:-1])
