"""Placement: which tensors are quantized how, and which are not and why.

`place` is a pure function of the graph and the configuration. The layer table shows its result,
the simulator obeys it, the exporters read it.
"""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.model import ModelGraph, is_constant
from studio.quant.grid import Grid
from studio.sim import op_rules
from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.fusion import fused_groups
from studio.sim.plan import Layer, Plan, QuantSpec, Role, TensorPlan
from studio.sim.settings import ResolvedSettings, SettingsResolver
from studio.sim.target import Target, load_target


def place(graph: ModelGraph, config: QuantConfig) -> Plan:
    """One row per tensor and per layer of `graph` under `config`; ConfigError for a bad target."""
    return _Placement(graph, config, load_target(config.target)).run()


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
        for group in fused_groups(self.graph, self.target.fusions):
            self._place_group(group)
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
            order += [value.name for value in node.inputs if value is not None]
            order += [value.name for value in node.outputs]
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

    def _place_group(self, group: tuple[ir.Node, ...]) -> None:
        head, last = group[0], group[-1]
        layer = head.name or ""
        settings = self._resolve(layer)
        weight = op_rules.weight(head)
        biases = _biases(group) if weight is not None else []
        if weight is not None:
            self._place_weight(head, weight, layer, settings)
        for bias in biases:
            assert weight is not None
            self._place_bias(bias, head.inputs[0], weight, layer)
        title = " + ".join(node.op_type for node in group)
        for node in group[:-1]:
            reason = f"inside {title}: runs as one kernel"
            self._leave(node.outputs[0].name or "", Role.ACTIVATION, layer, reason)
        inputs, constants = self._place_operands(group, [weight, *biases], layer, settings)
        outputs = [
            self._place_output(last, value, layer, settings)
            for value in last.outputs
            if value.name  # an optional output that nobody wants has no name
        ]
        first = outputs[0]
        follows = first.name in self._followers(last)
        has_weight = weight is not None and not _not_quantizable(weight)
        has_act = not follows and self._can_quantize_output(last)
        applies = _applying(settings, has_weight, has_act)
        self.layers.append(
            Layer(
                name=layer,
                ops=tuple(node.op_type for node in group),
                nodes=tuple(node.name or "" for node in group),
                inputs=inputs,
                weights=(*([weight.name or ""] if weight is not None else []), *constants),
                bias=biases[0].name if biases else None,
                outputs=tuple(row.name for row in outputs),
                settings=applies,
                changed=frozenset(
                    key for key in settings.changed if getattr(applies, key) is not None
                ),
                follows=(first.tied_to or _first_input(last)) if follows else None,
                note="" if first.spec else first.reason,
            )
        )

    def _place_operands(
        self,
        group: tuple[ir.Node, ...],
        placed: list[ir.Value | None],
        layer: str,
        settings: ResolvedSettings,
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Place constant operands other than those already `placed`: (activations read from
        outside the group, constants that are quantized)."""
        interior = {node.outputs[0] for node in group[:-1]}
        inputs, constants = [], []
        for node in group:
            for slot, operand in enumerate(node.inputs):
                if operand is None or operand in interior or operand in placed:
                    continue
                if not is_constant(operand):
                    inputs.append(operand.name or "")
                elif self._place_constant(node, slot, operand, layer, settings).spec:
                    constants.append(operand.name or "")
        return tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys(constants))

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

    def _place_bias(
        self, value: ir.Value, data: ir.Value | None, weight: ir.Value, layer: str
    ) -> None:
        name = value.name or ""
        if name in self.tensors:
            return
        source = "" if data is None else data.name or ""
        weight_row, input_row = self.tensors[weight.name or ""], self.tensors.get(source)
        reason = ""
        if (self.config.bias or self.target.bias) == "float":
            reason = "biases stay float by setting"
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
        self, node: ir.Node, slot: int, value: ir.Value, layer: str, settings: ResolvedSettings
    ) -> TensorPlan:
        """Quantize a constant operand like an activation, unless it is a parameter of the op."""
        name = value.name or ""
        if name in self.tensors:
            return self.tensors[name]
        reason = _not_quantizable(value)
        if not reason and slot not in op_rules.data_slots(node):
            reason = f"parameter of {node.op_type}, used in float"
        reason = reason or self.target.float_ops.get(node.op_type, "")
        if not reason and not settings.values.act_enabled:
            reason = "switched off with the layer's output"
        if reason:
            return self._leave(name, Role.CONSTANT, layer, reason)
        spec = QuantSpec(self._act_spec(settings.values, None).grid, None, "minmax")
        reason = f"constant operand of {node.op_type}, quantized like an activation"
        return self._put(TensorPlan(name, Role.CONSTANT, layer, spec, reason))

    # --- outputs --------------------------------------------------------------------------------

    def _can_quantize_output(self, node: ir.Node) -> bool:
        return node.op_type not in self.target.float_ops and not _not_quantizable(node.outputs[0])

    def _followers(self, node: ir.Node) -> set[str | None]:
        """Outputs of `node` that use the encoding of its input."""
        follow = self.target.follow_ops
        if node.op_type not in follow.exact | follow.within_range:
            return set()
        return {value.name for value in node.outputs if not _not_quantizable(value)}

    def _place_output(
        self, node: ir.Node, value: ir.Value, layer: str, settings: ResolvedSettings
    ) -> TensorPlan:
        name = value.name or ""
        if node.op_type in self.target.float_ops:
            reason = _not_quantizable(value) or self.target.float_ops[node.op_type]
            return self._leave(name, Role.ACTIVATION, layer, reason)
        if name in self._followers(node):
            return self._follow(node, name, layer)
        return self._activation(value, Role.ACTIVATION, layer, settings, node.op_type)

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


def _biases(group: tuple[ir.Node, ...]) -> list[ir.Value]:
    """The bias of the head, or the constant an Add fused behind a MatMul adds."""
    head = group[0]
    own = op_rules.bias(head)
    if own is not None:
        return [own]
    if head.op_type == "MatMul" and len(group) > 1 and group[1].op_type == "Add":
        return [value for value in group[1].inputs if value is not None and is_constant(value)]
    return []


def _not_quantizable(value: ir.Value) -> str:
    """Why a tensor of this type cannot be quantized; empty if it can."""
    if value.dtype is None:
        return "its type is not known"
    if value.dtype != ir.DataType.FLOAT:
        return f"{value.dtype.name.lower()} values, not float32"
    return ""


def _one_value_per_channel(value: ir.Value) -> bool:
    assert value.shape is not None
    sizes = [int(size) for size in value.shape.numpy()]
    return bool(sizes) and all(size == 1 for size in sizes[:-1])
