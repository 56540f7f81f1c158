"""From settings to the numbers a tensor is rounded to."""

from __future__ import annotations

from studio.quant.grid import FloatGrid, Grid
from studio.sim.config import LayerSettings
from studio.sim.target import Target


def weight_grid(values: LayerSettings, target: Target) -> Grid | FloatGrid:
    """The grid of weights under the resolved settings `values`."""
    if values.weight_format not in (None, "int"):
        return FloatGrid(str(values.weight_format), bool(values.weight_power_of_two))
    assert values.weight_bits is not None
    return Grid(
        values.weight_bits,
        target.weights.signed,
        bool(values.weight_symmetric),
        strict=bool(values.weight_strict),
        power_of_two=bool(values.weight_power_of_two),
    )


def activation_grid(values: LayerSettings, target: Target) -> Grid | FloatGrid:
    """The grid of activations under the resolved settings `values`."""
    if values.act_format not in (None, "int"):
        return FloatGrid(str(values.act_format), bool(values.act_power_of_two))
    assert values.act_bits is not None
    return Grid(
        values.act_bits,
        target.activations.signed,
        bool(values.act_symmetric),
        strict=bool(values.act_strict),
        power_of_two=bool(values.act_power_of_two),
        unsigned_symmetric=bool(values.act_symmetric and values.act_unsigned_symmetric),
    )


def number(grid: Grid | FloatGrid) -> str:
    """Name of the kind of number as rule files have it: `int8`, `float16`."""
    return grid.format if isinstance(grid, FloatGrid) else f"int{grid.bits}"
