"""Settings that the target cannot do: named, with what is possible."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from studio.graph.model import ModelGraph
from studio.quant.grid import FloatGrid, Grid
from studio.sim.fusion import FusedGroup
from studio.sim.plan import QuantSpec, Role, TensorPlan
from studio.sim.rules.context import Context, first_input
from studio.sim.rules.grids import number
from studio.sim.rules.names import unit_names
from studio.sim.target_rules import Kernel, Numbers

Message = tuple[str, str]
"""(layer, what is wrong with it)"""


def impossible(context: Context) -> tuple[str, ...]:
    """What the target cannot do at all, layers with the same trouble together."""
    found: list[Message] = []
    for row in context.rows.values():
        if row.spec is not None and not row.from_file:
            found += [(row.layer, text) for text in _about_row(context, row)]
    for group in context.groups:
        found += [(group.name, text) for text in _about_layer(context, group)]
    return _together(found)


def through_float(context: Context) -> tuple[str, ...]:
    """Layers whose pair of numbers the target computes in float only."""
    numbers = context.target.numbers
    found: list[Message] = []
    for group in context.groups:
        kernels = _kernels(numbers, group)
        if not kernels:
            continue
        weights = context.weights_of(group.units[0])
        weight = context.rows.get(weights[0].name or "") if weights else None
        source = context.rows.get(first_input(group.nodes[0]))
        if weight is None or weight.spec is None or source is None or source.spec is None:
            continue
        pair = (source.spec.grid, weight.spec.grid)
        if not any(
            number(pair[0]) == kernel.activations and _fits(pair[1], (kernel.weights,))
            for kernel in kernels
        ):
            known = ", ".join(f"{k.activations} x {k.weights}" for k in kernels)
            text = (
                f"{number(pair[0])} activations with {number(pair[1])} weights are computed in "
                f"float on {context.target.title}: it has kernels for {known}"
            )
            found.append((group.name, text))
    return _together(found)


def _kernels(numbers: Numbers, group: FusedGroup) -> tuple[Kernel, ...]:
    own = (numbers.op_kernels.get(name) for name in sorted(unit_names(group.units[0])))
    return next((kernels for kernels in own if kernels), numbers.kernels)


def _about_row(context: Context, row: TensorPlan) -> Iterator[str]:
    assert row.spec is not None
    numbers, title = context.target.numbers, context.target.title
    grid = row.spec.grid
    if row.role is Role.WEIGHT:
        key = "weight_format" if isinstance(grid, FloatGrid) else "weight_bits"
        if numbers.weights is not None and not _fits(grid, numbers.weights):
            yield _not_there(title, key, grid, "weights", numbers.weights)
        if not grid.symmetric and not numbers.asymmetric_weights:
            yield f"weight_symmetric=False is not possible on {title}: weights are symmetric there"
        if row.spec.block_size is not None:
            yield from _about_blocks(context, row.name, row.spec)
    elif row.role is not Role.BIAS:
        allowed = numbers.activations
        key = "act_format" if isinstance(grid, FloatGrid) else "act_bits"
        exact = allowed is None or number(grid) in allowed
        if not exact and not (numbers.narrow_activations and _fits(grid, allowed or ())):
            yield _not_there(title, key, grid, "activations", allowed or ())
        if not grid.symmetric and not numbers.asymmetric_activations:
            yield (
                f"act_symmetric=False is not possible on {title}: activations are symmetric there"
            )
        if row.dynamic and grid != Grid(8, signed=False, symmetric=False):
            yield (
                f"{grid} activations cannot be ranged at inference: DynamicQuantizeLinear makes "
                "uint8 asymmetric ones; set act_bits=8 and act_symmetric=false"
            )


def _not_there(
    title: str, key: str, grid: Grid | FloatGrid, what: str, allowed: Collection[str]
) -> str:
    value = grid.format if isinstance(grid, FloatGrid) else grid.bits
    return f"{key}={value} is not possible on {title}: {what} there are {', '.join(allowed)}"


def _about_blocks(context: Context, name: str, spec: QuantSpec) -> Iterator[str]:
    numbers, title = context.target.numbers, context.target.title
    size = spec.block_size
    assert size is not None
    assert spec.axis is not None
    setting = f"weight_block_size={size}"
    if numbers.block_sizes is not None and size not in numbers.block_sizes:
        if numbers.block_sizes:
            sizes = ", ".join(map(str, numbers.block_sizes))
            yield f"{setting} is not possible on {title}: blocks there are {sizes}"
        else:
            yield f"{setting} is not possible on {title}: weights have no blocks there; set it to 0"
    elif not numbers.partial_blocks:
        channels = _size(context.graph, name, spec.axis)
        if channels % size:
            fitting = [n for n in numbers.block_sizes or _powers(channels) if channels % n == 0]
            sizes = ", ".join(map(str, fitting)) or "none"
            yield (
                f"{setting} does not divide the {channels} input channels of {name}; {sizes} would"
            )
    if spec.lpbq:
        if not numbers.lpbq:
            yield f"weight_lpbq is not possible on {title}: blocks have scales of their own there"
        if isinstance(spec.grid, FloatGrid) or not spec.grid.symmetric:
            yield "weight_lpbq needs symmetric integers; set weight_symmetric=true"


def _about_layer(context: Context, group: FusedGroup) -> Iterator[str]:
    """Settings of the layer itself that no row of it shows."""
    settings, target = context.settings_of(group), context.target
    values, head = settings.values, group.units[0]
    weights = [context.rows[value.name or ""] for value in context.weights_of(head)]
    weights = [row for row in weights if row.spec is not None and not row.from_file]
    if weights and values.weight_lpbq and not values.weight_block_size:
        yield "weight_lpbq needs blocks; set weight_block_size too, to 32 for example"
    blocked = any(row.spec is not None and row.spec.block_size is not None for row in weights)
    if (
        weights
        and values.weight_block_size
        and not blocked
        and settings.is_named("weight_block_size")
    ):
        yield (
            f"weight_block_size is not possible for {head.label} on {target.title}: blocks are for "
            f"matrices of {', '.join(sorted(target.block_ops))}"
        )
    if settings.is_named("act_dynamic") and values.act_dynamic:
        dynamic_ops = target.numbers.dynamic_ops
        if not weights or not unit_names(head) & dynamic_ops:
            listed = ", ".join(sorted(dynamic_ops)) or "no op"
            yield (
                f"act_dynamic is not possible for {head.label} on {target.title}: it ranges "
                f"activations at inference for {listed}"
            )


def _fits(grid: Grid | FloatGrid, numbers: Collection[str]) -> bool:
    """True if a number of the grid can be held by one of `numbers`."""
    if isinstance(grid, FloatGrid):
        return grid.format in numbers
    sizes = [int(found[1]) for name in numbers if (found := re.fullmatch(r"int(\d+)", name))]
    return any(grid.bits <= size for size in sizes)


def _powers(channels: int) -> list[int]:
    return [size for size in (16, 32, 64, 128, 256) if size <= channels]


def _size(graph: ModelGraph, name: str, axis: int) -> int:
    shape = graph.value(name).shape
    assert shape is not None
    return int(shape.numpy()[axis])


def _together(found: list[Message]) -> tuple[str, ...]:
    """One message a trouble, with the layers that have it."""
    layers: dict[str, list[str]] = {}
    for layer, text in found:
        if layer not in layers.setdefault(text, []):
            layers[text].append(layer)
    return tuple(f"{_some(names)}: {text}." for text, names in layers.items())


def _some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more layers" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
