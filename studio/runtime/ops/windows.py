"""Where the window of a convolution or pooling lies: strides, dilations and padding per axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial axes, one number an axis.

    `begin` and `end` are the padding before and after; they may be negative (cropping).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        return self.begin == self.end and min(self.begin, default=0) >= 0

    @property
    def extents(self) -> tuple[int, ...]:
        """Input elements from the window's first to its last, both counted."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def window(call: Call, size: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of `call` over an input of spatial `size`; `auto_pad` is resolved here."""
    rank = len(kernel)
    ones = [1] * rank
    strides = call.get("strides") or ones
    dilations = call.get("dilations") or ones
    mode = call.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
            total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            small, large = total // 2, total - total // 2
            begin.append(small if mode == "SAME_UPPER" else large)
            end.append(large if mode == "SAME_UPPER" else small)
    else:
        pads = call.get("pads") if mode == "NOTSET" else None
        pads = pads or [0] * (2 * rank)
        begin, end = pads[:rank], pads[rank:]
    return Window(tuple(kernel), tuple(strides), tuple(dilations), tuple(begin), tuple(end))


def pad_spatial(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """`x` padded (cropped where negative) along its last `len(begin)` axes."""
    amounts = [n for pair in zip(reversed(begin), reversed(end), strict=True) for n in pair]
    return F.pad(x, amounts, value=value) if any(amounts) else x
