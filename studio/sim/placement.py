"""Placement: which tensors are quantized how, and which are not and why.

`place` is a pure function of the graph and the configuration. The layer table shows its result,
the simulator obeys it, the exporters read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import onnx_ir as ir

from studio.graph.model import ModelGraph, is_constant
from studio.quant.grid import Grid
from studio.sim import op_rules
from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.fusion import fused_groups
from studio.sim.plan import Layer, Plan, QuantSpec, Role, TensorPlan
from studio.sim.target import Target, load_target


def place(graph: ModelGraph, config: QuantConfig) -> Plan:
    """One row per tensor and per layer of `graph` under `config`; ConfigError for a bad target."""
    return _Placement(graph, config, load_target(config.target)).run()


@dataclass
class _Placement:
    graph: ModelGraph
    config: QuantConfig
    target: Target
    tensors: dict[str, TensorPlan] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    matched: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def run(self) -> Plan:
        for value in self.graph.inputs:
            self._place_input(value)
        for group in fused_groups(self.graph, self.target.fusions):
            self._place_group(group)
        for name in self.graph.initializers:
            if name not in self.tensors:
                self._leave(name, Role.CONSTANT, "", "not read by any layer")
        unmatched = [name for name in self.config.layers if name not in self.matched]
        self.warnings += [f"The setting for {name!r} matches no layer." for name in unmatched]
        tensors = {name: self.tensors[name] for name in self._graph_order() if name in self.tensors}
        return Plan(self.target.name, tuple(self.layers), tensors, tuple(self.warnings))

    def _graph_order(self) -> list[str]:
        order = [value.name or "" for value in self.graph.inputs]
        for node in self.graph.nodes():
            order += [value.name or "" for value in node.inputs if is_constant(value) and value]
            order += [value.name or "" for value in node.outputs]
        return list(dict.fromkeys([*order, *self.graph.initializers]))

    # --- settings -------------------------------------------------------------------------------

    def _settings(self, layer: str) -> tuple[LayerSettings, frozenset[str]]:
        """Settings of `layer`: target, then defaults, then matching entries in order."""
        weights, activations = self.target.weights, self.target.activations
        settings = LayerSettings(
            weight_bits=weights.bits,
            weight_symmetric=weights.symmetric,
            weight_per_channel=weights.per_channel,
            weight_enabled=True,
            weight_observer=weights.observer,
            act_bits=activations.bits,
            act_symmetric=activations.symmetric,
            act_enabled=True,
            act_observer=activations.observer,
        ).merged(self.config.defaults)
        changed: set[str] = set()
        for pattern, given in self.config.layers.items():
            if layer == pattern or fnmatchcase(layer, pattern):
                self.matched.add(pattern)
                settings = settings.merged(given)
                changed |= given.given().keys()
        return settings, frozenset(changed)

    def _origin(self, key: str, changed: frozenset[str]) -> str:
        if key in changed:
            return "set for this layer"
        if getattr(self.config.defaults, key) is not None:
            return "default of this configuration"
        return f"target {self.target.name}"

    # --- tensors --------------------------------------------------------------------------------

    def _leave(self, name: str, role: Role, layer: str, reason: str) -> None:
        self.tensors[name] = TensorPlan(name, role, layer, None, reason)

    def _place_input(self, value: ir.Value) -> None:
        name = value.name or ""
        settings, changed = self._settings(name)
        note = self._place_activation(value, Role.INPUT, name, settings, changed, None)
        self.layers.append(
            Layer(
                name=name,
                ops=("Input",),
                nodes=(),
                inputs=(),
                weights=(),
                bias=None,
                outputs=(name,),
                settings=_act_only(settings) if not note else LayerSettings(),
                changed=changed,
                note=note,
            )
        )

    def _place_activation(
        self,
        value: ir.Value,
        role: Role,
        layer: str,
        settings: LayerSettings,
        changed: frozenset[str],
        op: str | None,
    ) -> str:
        """Give `value` its own encoding; the reason why not, if it cannot have one."""
        name = value.name or ""
        note = _not_quantizable(value)
        if note:
            self._leave(name, role, layer, note)
            return note
        if not settings.act_enabled:
            self._leave(name, role, layer, f"switched off: {self._origin('act_enabled', changed)}")
            return ""
        self.tensors[name] = TensorPlan(
            name, role, layer, self._act_spec(settings, op), self._origin("act_bits", changed)
        )
        return ""

    def _act_spec(self, settings: LayerSettings, op: str | None) -> QuantSpec:
        assert settings.act_bits and settings.act_observer
        grid = Grid(settings.act_bits, self.target.activations.signed, bool(settings.act_symmetric))
        return QuantSpec(grid, None, settings.act_observer, self.target.fixed_ranges.get(op or ""))

    def _place_weight(
        self,
        node: ir.Node,
        value: ir.Value,
        layer: str,
        settings: LayerSettings,
        changed: frozenset[str],
    ) -> None:
        name = value.name or ""
        if name in self.tensors:
            owner = self.tensors[name].layer
            self.warnings.append(
                f"{layer} shares its weight {name} with {owner}: one encoding serves both."
            )
            return
        note = _not_quantizable(value)
        if not settings.weight_enabled:
            note = note or f"switched off: {self._origin('weight_enabled', changed)}"
        if note:
            self._leave(name, Role.WEIGHT, layer, note)
            return
        assert settings.weight_bits and settings.weight_observer
        symmetric = bool(settings.weight_symmetric)
        grid = Grid(settings.weight_bits, self.target.weights.signed, symmetric)
        axis = None
        reason = self._origin("weight_bits", changed)
        if settings.weight_per_channel and node.op_type in self.target.per_channel_ops:
            axis = op_rules.channel_axis(node)
            if axis is None:
                reason += "; per tensor because no weight axis holds the output channels alone"
        self.tensors[name] = TensorPlan(
            name, Role.WEIGHT, layer, QuantSpec(grid, axis, settings.weight_observer), reason
        )

    def _place_bias(
        self, value: ir.Value, data: ir.Value | None, weight: ir.Value, layer: str
    ) -> None:
        name = value.name or ""
        if name in self.tensors:
            return
        source = data.name or "" if data is not None else ""
        weight_plan, input_plan = self.tensors[weight.name or ""], self.tensors.get(source)
        if (self.config.bias or self.target.bias) == "float":
            self._leave(name, Role.BIAS, layer, "biases stay float by setting")
        elif input_plan is None or input_plan.spec is None:
            self._leave(
                name, Role.BIAS, layer, "stays float because the layer's input is not quantized"
            )
        elif weight_plan.spec is None:
            self._leave(
                name, Role.BIAS, layer, "stays float because the layer's weight is not quantized"
            )
        elif not _one_value_per_channel(value):
            self._leave(
                name, Role.BIAS, layer, "stays float because it is not one value per channel"
            )
        else:
            axis = None
            if weight_plan.spec.axis is not None:
                assert value.shape is not None
                axis = len(value.shape) - 1
            self.tensors[name] = TensorPlan(
                name,
                Role.BIAS,
                layer,
                QuantSpec(Grid(32, signed=True, symmetric=True), axis, "bias"),
                "int32 at the scale of input times weight",
                bias_of=(source, weight.name or ""),
            )

    # --- layers ---------------------------------------------------------------------------------

    def _place_group(self, group: tuple[ir.Node, ...]) -> None:
        head, last = group[0], group[-1]
        layer = head.name or ""
        settings, changed = self._settings(layer)
        interior = {node.outputs[0].name for node in group[:-1]}
        weight, biases = op_rules.weight(head), []
        if weight is not None:
            self._place_weight(head, weight, layer, settings, changed)
            biases = self._biases(group)
            for value in biases:
                self._place_bias(value, head.inputs[0], weight, layer)
        inputs: list[str] = []
        constants: list[str] = []
        for node in group:
            for slot, operand in enumerate(node.inputs):
                if operand is None or operand.name in interior:
                    continue
                if not is_constant(operand):
                    inputs.append(operand.name or "")
                elif operand in (weight, *biases):
                    continue
                elif self._place_constant(node, slot, operand, layer, settings):
                    constants.append(operand.name or "")
        for node in group[:-1]:
            self._leave(
                node.outputs[0].name or "",
                Role.ACTIVATION,
                layer,
                f"inside {_title(group)}: runs as one kernel",
            )
        follows, note = self._place_outputs(last, layer, settings, changed)
        tensor = self.tensors[last.outputs[0].name or ""]
        keeps_act = not follows and not note
        applies = (
            _weight_only(settings)
            if weight is not None and _can_quantize(weight)
            else LayerSettings()
        )
        if keeps_act:
            applies = applies.merged(_act_only(settings))
        self.layers.append(
            Layer(
                name=layer,
                ops=tuple(node.op_type for node in group),
                nodes=tuple(node.name or "" for node in group),
                inputs=tuple(dict.fromkeys(inputs)),
                weights=(*((weight.name or "",) if weight is not None else ()), *constants),
                bias=(biases[0].name or "") if biases else None,
                outputs=tuple(value.name or "" for value in last.outputs if value.name),
                settings=applies,
                changed=frozenset(changed & applies.given().keys()),
                follows=follows,
                note=note or ("" if tensor.spec else tensor.reason),
            )
        )

    def _biases(self, group: tuple[ir.Node, ...]) -> list[ir.Value]:
        """The bias of the head, or the constant an Add fused behind a MatMul adds."""
        head = group[0]
        own = op_rules.bias(head)
        if own is not None:
            return [own]
        if head.op_type == "MatMul" and len(group) > 1 and group[1].op_type == "Add":
            return [value for value in group[1].inputs if is_constant(value) and value is not None]
        return []

    def _place_constant(
        self, node: ir.Node, slot: int, value: ir.Value, layer: str, settings: LayerSettings
    ) -> bool:
        """Quantize a constant operand like an activation; False if it is a parameter of the op."""
        name = value.name or ""
        if name in self.tensors:
            return self.tensors[name].spec is not None
        note = _not_quantizable(value)
        if slot not in op_rules.data_slots(node) and not note:
            note = f"parameter of {node.op_type}, used in float"
        if node.op_type in self.target.float_ops:
            note = note or self.target.float_ops[node.op_type]
        if not settings.act_enabled:
            note = note or "switched off with the layer's output"
        if note:
            self._leave(name, Role.CONSTANT, layer, note)
            return False
        spec = self._act_spec(settings, None)
        self.tensors[name] = TensorPlan(
            name,
            Role.CONSTANT,
            layer,
            QuantSpec(spec.grid, None, "minmax"),
            f"constant operand of {node.op_type}, quantized like an activation",
        )
        return True

    def _place_outputs(
        self, node: ir.Node, layer: str, settings: LayerSettings, changed: frozenset[str]
    ) -> tuple[str | None, str]:
        """Place the outputs of a layer's last node: (tensor it follows, why it has no encoding)."""
        op = node.op_type
        follow = self.target.follow_ops
        follows: str | None = None
        note = ""
        for value in node.outputs:
            name = value.name or ""
            source = node.inputs[0].name or "" if node.inputs and node.inputs[0] is not None else ""
            if not name:
                continue
            if op in self.target.float_ops:
                note = _not_quantizable(value) or self.target.float_ops[op]
                self._leave(name, Role.ACTIVATION, layer, note)
            elif op in follow.exact | follow.within_range and not _not_quantizable(value):
                follows = self._follow(node, value, source, layer)
            else:
                note = (
                    self._place_activation(value, Role.ACTIVATION, layer, settings, changed, op)
                    or note
                )
        return follows, note

    def _follow(self, node: ir.Node, value: ir.Value, source: str, layer: str) -> str:
        name = value.name or ""
        origin = self.tensors.get(source)
        if origin is None or origin.spec is None:
            self._leave(name, Role.ACTIVATION, layer, f"follows {source}, which is not quantized")
            return source
        root = origin.tied_to or source
        if origin.spec.axis is not None:
            self._leave(
                name, Role.ACTIVATION, layer, f"follows {source}, which is quantized per channel"
            )
            return source
        verb = (
            "only moves values"
            if node.op_type in self.target.follow_ops.exact
            else "stays in the range"
        )
        self.tensors[name] = TensorPlan(
            name,
            Role.ACTIVATION,
            layer,
            origin.spec,
            f"{node.op_type} {verb}: uses the encoding of {root}",
            tied_to=root,
        )
        return root


def _title(group: tuple[ir.Node, ...]) -> str:
    return " + ".join(node.op_type for node in group)


def _can_quantize(value: ir.Value) -> bool:
    return not _not_quantizable(value)


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


def _act_only(settings: LayerSettings) -> LayerSettings:
    return LayerSettings(**{k: v for k, v in settings.given().items() if k.startswith("act_")})


def _weight_only(settings: LayerSettings) -> LayerSettings:
    return LayerSettings(**{k: v for k, v in settings.given().items() if k.startswith("weight_")})
