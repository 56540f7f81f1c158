"""Rows of biases: int32 at the product of the input's and the weight's scale, or float."""

from __future__ import annotations

import onnx_ir as ir

from studio.quant.grid import FloatGrid, Grid
from studio.sim import op_rules
from studio.sim.fusion import FusedGroup
from studio.sim.plan import QuantSpec, Role, TensorPlan
from studio.sim.rules.context import Context, first_input, not_quantizable
from studio.sim.rules.grids import weight_grid
from studio.sim.rules.names import is_one_of, unit_names
from studio.sim.settings import ResolvedSettings

BIAS_GRID = Grid(32, signed=True, symmetric=True)


def place_bias(
    context: Context,
    group: FusedGroup,
    value: ir.Value,
    weight: ir.Value,
    settings: ResolvedSettings,
) -> None:
    """Put the row of the bias of `group`, whose rows of input and `weight` are there."""
    name = value.name or ""
    if name in context.rows:
        return
    head = group.nodes[0]
    if _is_normalization(group):
        _place_shift(context, group, value, weight, settings)
        return
    source = first_input(head)
    row = context.rows[weight.name or ""]
    reason = _why_float(context, group, value, row)
    if reason or row.spec is None:
        context.leave(name, Role.BIAS, group.name, reason)
        return
    axis = None
    if row.spec.axis is not None:
        assert value.shape is not None
        axis = len(value.shape) - 1
    spec = QuantSpec(BIAS_GRID, axis, "bias")
    reason = "int32 at the scale of input times weight"
    context.put(TensorPlan(name, Role.BIAS, group.name, spec, reason, bias_of=(source, row.name)))


def _is_normalization(group: FusedGroup) -> bool:
    head = group.units[0]
    return (
        head.kind in op_rules.NORMALIZATIONS or head.nodes[0].op_type in op_rules.NORMALIZATION_OPS
    )


def _place_shift(
    context: Context,
    group: FusedGroup,
    value: ir.Value,
    weight: ir.Value,
    settings: ResolvedSettings,
) -> None:
    """What a normalization adds is no sum of integer products: a constant of its own, or float."""
    name, label = value.name or "", group.units[0].label
    reason = not_quantizable(value)
    if not reason and not is_one_of(label, context.target.quantized_bias_ops):
        reason = f"parameter of {label}, used in float"
    if not reason and context.rows[weight.name or ""].spec is None:
        reason = "stays float because the layer's weight is not quantized"
    if reason:
        context.leave(name, Role.BIAS, group.name, reason)
        return
    spec = QuantSpec(weight_grid(settings.values, context.target), None, "minmax")
    reason = f"target {context.target.name}: the bias of {label} is quantized like its weight"
    context.put(TensorPlan(name, Role.CONSTANT, group.name, spec, reason))


def _why_float(context: Context, group: FusedGroup, value: ir.Value, weight: TensorPlan) -> str:
    target, head = context.target, group.nodes[0]
    names = unit_names(group.units[0])
    source = context.rows.get(first_input(head))
    wanted = context.config.bias or ("int32" if names & target.quantized_bias_ops else target.bias)
    if wanted == "float":
        return (
            "biases stay float by setting"
            if context.config.bias
            else (f"biases stay float on {target.title}")
        )
    if head.op_type in target.float_bias_ops:
        return target.float_bias_ops[head.op_type]
    if source is None or source.spec is None:
        return "stays float because the layer's input is not quantized"
    if source.dynamic:
        return "stays float because the scale of the layer's input changes at every inference"
    if source.read_by is not None and (head.name or "") not in source.read_by:
        return "stays float because the layer reads its input in float"
    if weight.spec is None:
        return "stays float because the layer's weight is not quantized"
    if isinstance(source.spec.grid, FloatGrid) or isinstance(weight.spec.grid, FloatGrid):
        return "stays float because input or weight are no integers"
    if weight.spec.block_size is not None:
        return "stays float because the weight has a scale for each block"
    if not _one_value_per_channel(value):
        return "stays float because it is not one value per channel"
    return ""


def _one_value_per_channel(value: ir.Value) -> bool:
    assert value.shape is not None
    sizes = [int(size) for size in value.shape.numpy()]
    return bool(sizes) and all(size == 1 for size in sizes[:-1])
