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
    """Axes that may vary; those among them that are the batch; why it may not, if it may not."""

    axes: frozenset[Axis]
    batch_problem: str = ""
    batch_axes: frozenset[Axis] = frozenset()

    @property
    def batch(self) -> OpenSizes:
        """The batch alone."""
        return OpenSizes(self.batch_axes, self.batch_problem, self.batch_axes)


def traced_shapes(examples: Examples, open_sizes: OpenSizes) -> list[tuple[int, ...]]:
    """The shapes of the examples with an open batch of at least 2.

    torch.export takes a size of 1 for a constant.
    """
    return [
        tuple(
            max(size, 2) if (place, axis) in open_sizes.batch_axes else size
            for axis, size in enumerate(item.shape)
        )
        for place, item in enumerate(examples.inputs)
    ]


def open_sizes(module: nn.Module, examples: Examples, *, batch_only: bool) -> OpenSizes:
    """The axes along which `module` accepts another size than the example's.

    The batch is axis 0 of every input that has the first one's size there, or, where the module
    refuses that, axis 1 of the others, as recurrent states have it. Other axes of equal size
    are varied together first: a picture may have to stay square, a mask as long as the tokens. Axes
    of size 1 are left alone, for they may broadcast.
    """
    shapes = [item.shape for item in examples.inputs]
    if not any(shapes):
        return OpenSizes(frozenset(), "its inputs have no batch dimension")
    candidates = _batches(shapes)
    batch, problem = candidates[0], ""
    for axes in candidates:
        size = _size_along(shapes, axes)
        refusal = _refusal(module, examples, shapes, axes, size + 1 if size > 1 else 2)
        if not refusal:
            batch, problem = axes, ""
            break
        problem = problem or refusal
    if not problem and _size_along(shapes, batch) == 1:
        shapes = _with_size(shapes, batch, 2)  # the size that the others are traced with
    found: set[Axis] = set() if problem else set(batch)
    if not batch_only:
        found |= _others(module, examples, shapes, batch)
    return OpenSizes(frozenset(found), problem, frozenset() if problem else frozenset(batch))


def _batches(shapes: list[tuple[int, ...]]) -> list[list[Axis]]:
    """What the axes of the batch may be, the usual first."""
    first = next(shape for shape in shapes if shape)
    candidates = []
    for size in first[:2] if len(first) == 3 else first[:1]:
        usual = [(i, 0) for i, shape in enumerate(shapes) if shape and shape[0] == size]
        second = [(i, 1) for i, shape in enumerate(shapes) if len(shape) == 3 and shape[1] == size]
        states = [axis for axis in second if (axis[0], 0) not in usual]
        later = [axis for axis in second if axis[0] != usual[0][0]] if usual else second
        rest = [axis for axis in usual if (axis[0], 1) not in later]
        candidates += [usual, [*usual, *states], [*rest, *later]]
    return [
        axes for place, axes in enumerate(candidates) if axes and axes not in candidates[:place]
    ]


def _size_along(shapes: list[tuple[int, ...]], axes: list[Axis]) -> int:
    place, axis = axes[0]
    return shapes[place][axis]


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
    try:
        examples.run(module, _with_size(shapes, axes, size))
    except Exception as error:
        return describe(error)
    return ""


def _with_size(shapes: list[tuple[int, ...]], axes: list[Axis], size: int) -> list[tuple[int, ...]]:
    """`shapes` with `size` along `axes`."""
    changed = [list(shape) for shape in shapes]
    for place, axis in axes:
        changed[place][axis] = size
    return [tuple(shape) for shape in changed]


def size_names(inputs: Sequence[ExampleInput], model: ir.Model) -> dict[str, str]:
    """Readable names for the symbols of open sizes: `batch`, `height`, `mask_size_1`."""
    names: dict[str, str] = {}
    sizes = [
        (item, axis, size)
        for item, value in zip(inputs, model.graph.inputs, strict=True)
        for axis, size in enumerate(value.shape or ())
    ]
    for item, axis, size in sorted(sizes, key=lambda found: found[1] != 0):  # batches come first
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
