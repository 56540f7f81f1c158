"""Rows of constants: weights, and operands that are quantized like activations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.additions import is_scale
from studio.graph.patterns import float_reason
from studio.sim import op_rules
from studio.sim.fusion import Unit
from studio.sim.plan import QuantSpec, Role, TensorPlan
from studio.sim.rules.context import Context, not_quantizable
from studio.sim.rules.grids import activation_grid, weight_grid
from studio.sim.rules.names import is_one_of, unit_names
from studio.sim.settings import ResolvedSettings


def place_weight(
    context: Context, unit: Unit, value: ir.Value, layer: str, settings: ResolvedSettings
) -> str:
    """Put the row of a weight; returns what to warn of, "" if nothing."""
    name = value.name or ""
    if name in context.rows:
        other = context.rows[name].layer
        return (
            f"{layer} shares its weight {name} with {other}: one encoding, by the settings of the "
            "latter, serves both."
        )
    reason = not_quantizable(value)
    if not reason and not settings.values.weight_enabled:
        reason = f"switched off: {settings.origin('weight_enabled')}"
    if reason:
        context.leave(name, Role.WEIGHT, layer, reason)
        return ""
    spec, reason = _weight_spec(context, unit, settings)
    context.put(TensorPlan(name, Role.WEIGHT, layer, spec, reason))
    return ""


def _weight_spec(context: Context, unit: Unit, settings: ResolvedSettings) -> tuple[QuantSpec, str]:
    values, target = settings.values, context.target
    assert values.weight_observer is not None
    grid = weight_grid(values, target)
    shown = "weight_bits" if values.weight_format == "int" else "weight_format"
    reason = settings.origin(shown)
    head = unit.nodes[0]
    spelled_out = unit.kind in op_rules.NORMALIZATIONS
    if values.weight_block_size:
        axis = _block_axis(context, unit)
        if axis is not None:
            spec = QuantSpec(
                grid,
                axis,
                values.weight_observer,
                block_size=values.weight_block_size,
                lpbq=bool(values.weight_lpbq),
            )
            return spec, reason
        reason += "; without blocks, which are for matrices of " + ", ".join(
            sorted(target.block_ops)
        )
    axis = None
    if values.weight_per_channel and any(
        name in target.per_channel_ops for name in (*unit_names(unit), head.op_type)
    ):
        axis = None if spelled_out else op_rules.channel_axis(head)
        if axis is None:
            reason += "; per tensor because no weight axis holds the output channels alone"
    return QuantSpec(grid, axis, values.weight_observer), reason


def _block_axis(context: Context, unit: Unit) -> int | None:
    """The axis that blocks of the unit's weight lie along; None if it has no blocks."""
    head = unit.nodes[0]
    if unit.kind in op_rules.NORMALIZATIONS:
        return None
    if not any(name in context.target.block_ops for name in (*unit_names(unit), head.op_type)):
        return None
    return op_rules.input_axis(head)


def place_constant(
    context: Context,
    unit: Unit,
    node: ir.Node,
    slot: int,
    layer: str,
    settings: ResolvedSettings,
) -> TensorPlan:
    """Quantize a constant operand like an activation, unless it is a parameter of the op."""
    value = node.inputs[slot]
    assert value is not None
    name = value.name or ""
    if name in context.rows:
        return context.rows[name]
    reason = not_quantizable(value) or float_reason(node.outputs[0])
    if not reason and is_scale(node):
        reason = "scale of channels, used in float"
    if not reason and (unit.kind or slot not in op_rules.data_slots(node)):
        reason = f"parameter of {unit.label}, used in float"
    if not reason and is_one_of(node.op_type, context.target.float_ops):
        reason = context.target.float_ops[node.op_type]
    if not reason:
        reason = _float_by_target(context, unit, slot)
    if not reason and not settings.values.act_enabled:
        reason = "switched off with the layer's output"
    if not reason and not _is_finite(value):
        reason = "holds infinite values, as masks do"
    if reason:
        return context.leave(name, Role.CONSTANT, layer, reason)
    spec = QuantSpec(activation_grid(settings.values, context.target), None, "minmax")
    reason = f"constant operand of {node.op_type}, quantized like an activation"
    return context.put(TensorPlan(name, Role.CONSTANT, layer, spec, reason))


def _float_by_target(context: Context, unit: Unit, slot: int) -> str:
    """Why the target reads the constant at input `slot` of the unit's op as it is."""
    rule = context.target.quantized_inputs
    if rule is None:
        return ""
    names = unit_names(unit)
    if any(op in names and slot in slots for op, slots in rule.ops.items()):
        return "" if not rule.weighted_only else "read in float: the op has no quantized weight"
    return f"read in float: {context.target.title} does not round this input of {unit.label}"


def _is_finite(value: ir.Value) -> bool:
    return value.const_value is None or bool(np.isfinite(value.const_value.numpy()).all())
