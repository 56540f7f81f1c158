"""Which axis of each model input is the batch."""

from __future__ import annotations

import re
from collections.abc import Sequence

Size = int | str | None
"""Of an axis: fixed, open with a name, or open."""

CALLED_BATCH = re.compile(r"batch|^(n|b|bs)$", re.IGNORECASE)
OTHERWISE = re.compile(r"seq|len|time|frame|step|token|node|edge|height|width", re.IGNORECASE)


def batch_axes(shapes: Sequence[Sequence[Size]]) -> list[int | None]:
    """The batch axis of each input of these shapes; None for one that has none.

    It is axis 0 where that may be of one size in all, or else the axes that have the same name:
    `[batch, 512]` and `[2, batch, 128]`. Single numbers need none, and are the same for all
    samples. All None: the inputs have no batch in common, or it cannot be told which axis it is.
    """
    single = [all(size == 1 for size in shape) for shape in shapes]
    whole = [list(shape) for shape, one in zip(shapes, single, strict=True) if not one]
    first = {size if isinstance(size, int) else None for size, *_ in whole}
    leading = {size for size, *_ in whole if isinstance(size, str) and size}
    crossed = any(size in leading for _, *inner in whole for size in inner)
    if not whole:
        return [0 if all(shapes) else None for _ in shapes]
    if len(first) == 1 and not crossed:
        (size,) = first
        return [
            None if one and (not shape or shape[0] != size) else 0
            for shape, one in zip(shapes, single, strict=True)
        ]
    name = _common_name(whole)
    if name is None:
        return [None] * len(shapes)
    return [
        None if one else list(shape).index(name) for shape, one in zip(shapes, single, strict=True)
    ]


def _common_name(shapes: Sequence[list[Size]]) -> str | None:
    """The name of one axis of every shape that is that of the batch."""
    named = {size for size in shapes[0] if isinstance(size, str) and size}
    common = {name for name in named if all(shape.count(name) == 1 for shape in shapes)}
    called = {name for name in common if CALLED_BATCH.search(name)}
    leading = {
        name
        for name in common
        if not OTHERWISE.search(name) and any(shape[0] == name for shape in shapes)
    }
    found = called or leading
    return next(iter(found)) if len(found) == 1 else None
