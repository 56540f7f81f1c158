"""Which sizes of its inputs a module lets vary, found out by calling it with others."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from studio.graph.sources.examples import Examples
from studio.graph.sources.explain import describe
from studio.graph.sources.source import ExampleInput

if TYPE_CHECKING:
    from torch import nn

Axis = tuple[int, int]
"""(place of the input, axis)."""

CHEAP = 2**22
"""Elements of the inputs of a call that is made just to see."""

SPATIAL = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}


@dataclass(frozen=True)
class OpenSizes:
    """Axes that may vary; why the batch may not, if it may not."""

    axes: frozenset[Axis]
    batch_problem: str = ""

    @property
    def batch(self) -> OpenSizes:
        """The batch alone."""
        return OpenSizes(frozenset(a for a in self.axes if a[1] == 0), self.batch_problem)


def traced_shapes(examples: Examples, open_sizes: OpenSizes) -> list[tuple[int, ...]]:
    """The shapes of the examples with an open batch of at least 2.

    torch.export takes a size of 1 for a constant.
    """
    return [
        tuple(
            max(size, 2) if axis == 0 and (place, 0) in open_sizes.axes else size
            for axis, size in enumerate(item.shape)
        )
        for place, item in enumerate(examples.inputs)
    ]


def open_sizes(module: nn.Module, examples: Examples, *, batch_only: bool) -> OpenSizes:
    """The axes along which `module` accepts another size than the example's.

    The batch is axis 0 of every input that has the first one's size there. Other axes of equal size
    are varied together first: a picture may have to stay square, a mask as long as the tokens. Axes
    of size 1 are left alone, for they may broadcast.
    """
    shapes = [item.shape for item in examples.inputs]
    if not any(shapes):
        return OpenSizes(frozenset(), "its inputs have no batch dimension")
    size = next(shape[0] for shape in shapes if shape)
    batch = [(i, 0) for i, shape in enumerate(shapes) if shape and shape[0] == size]
    found: set[Axis] = set()
    problem = _refusal(module, examples, shapes, batch, size + 1 if size > 1 else 2)
    if not problem:
        found.update(batch)
        if size == 1:  # so that the other axes are tried with the batch they are traced with
            shapes = [(2, *s[1:]) if (i, 0) in batch else s for i, s in enumerate(shapes)]
    if not batch_only:
        found |= _others(module, examples, shapes, batch)
    return OpenSizes(frozenset(found), problem)


def _others(
    module: nn.Module, examples: Examples, shapes: list[tuple[int, ...]], batch: list[Axis]
) -> set[Axis]:
    groups: dict[int, list[Axis]] = {}
    for place, shape in enumerate(shapes):
        for axis, size in enumerate(shape):
            if size > 1 and (place, axis) not in batch and not _is_channels(shape, axis):
                groups.setdefault(size, []).append((place, axis))
    found: set[Axis] = set()
    for side, axes in groups.items():
        if _accepts_more(module, examples, shapes, axes, side):
            found.update(axes)
            continue
        for one in axes:
            if len(axes) > 1 and _accepts_more(module, examples, shapes, [one], side):
                found.add(one)
    return found


def _accepts_more(
    module: nn.Module,
    examples: Examples,
    shapes: list[tuple[int, ...]],
    axes: list[Axis],
    size: int,
) -> bool:
    """True if `module` takes a little more than `size`, or (if that is cheap) twice as much.

    A little: what keeps a size divisible by as many twos as it was, up to 32, for networks that
    halve it several times.
    """
    step = min(size & -size, 32)
    double = sum(math.prod(shape) for shape in shapes) * 2 ** len(axes) < CHEAP
    return any(
        not _refusal(module, examples, shapes, axes, other)
        for other in (size + step, *([2 * size] if double and step != size else []))
    )


def _is_channels(shape: tuple[int, ...], axis: int) -> bool:
    """Axis 1 of pictures; a model that normalises or pools first would take any number there."""
    return axis == 1 and len(shape) >= 4


def _refusal(
    module: nn.Module,
    examples: Examples,
    shapes: list[tuple[int, ...]],
    axes: list[Axis],
    size: int,
) -> str:
    """Why `module` does not accept `size` along `axes`; empty if it does."""
    changed = [list(shape) for shape in shapes]
    for place, axis in axes:
        changed[place][axis] = size
    try:
        examples.run(module, [tuple(shape) for shape in changed])
    except Exception as error:
        return describe(error)
    return ""


def size_names(inputs: Sequence[ExampleInput], model: ir.Model) -> dict[str, str]:
    """Readable names for the symbols of open sizes: `batch`, `height`, `mask_size_1`."""
    names: dict[str, str] = {}
    for item, value in zip(inputs, model.graph.inputs, strict=True):
        for axis, size in enumerate(value.shape or ()):
            symbol = None if isinstance(size, int) else size.value
            if not symbol or symbol in names:
                continue
            spatial = SPATIAL.get(len(item.shape), ())
            plain = (
                "batch"
                if axis == 0
                else spatial[axis - 2]
                if axis >= 2 and axis - 2 < len(spatial)
                else f"size_{axis}"
            )
            own = re.sub(r"\W", "_", f"{item.name}_{plain}")
            names[symbol] = plain if plain not in names.values() else own
    return names


def rename_sizes(model: ir.Model, names: dict[str, str]) -> None:
    """Give the symbols in all shapes other names, in sums and products of them too."""
    if not names:
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    for value in values:
        if value.shape is None or value.shape.is_static():
            continue
        value.shape = ir.Shape(
            [
                size
                if isinstance(size, int) or size.value is None
                else pattern.sub(lambda found: names[found[0]], size.value)
                for size in value.shape
            ]
        )
