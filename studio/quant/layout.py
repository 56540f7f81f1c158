"""How the scales of a tensor lie along it, in torch: one, one a channel, one a block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Layout:
    """Where scales apply: `axis` and `block_size` as in `Encoding`, `ndim` the tensor's rank."""

    axis: int | None = None
    block_size: int | None = None
    ndim: int | None = None

    def __post_init__(self) -> None:
        assert self.axis is None or self.ndim is not None, "the rank must be known"

    def split(self, x: Tensor) -> Tensor:
        """A view of `x` to which `spread` scales broadcast: blocks that all are full on an axis of
        their own, behind `axis`."""
        if self.block_size is None or x.shape[self._place] % self.block_size:
            return x
        return x.unflatten(self._place, (-1, self.block_size))

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        """`y`, shaped like `split(x)`, in the shape of `x`."""
        return y if y.ndim == x.ndim else y.flatten(self._place, self._place + 1)

    def along_axis(self, values: Tensor) -> Tensor:
        """`values` per tensor or per channel such that they broadcast to any tensor."""
        if self.axis is None:
            return values
        assert self.ndim is not None
        shape = [1] * self.ndim
        shape[self._place] = -1
        return values.view(shape)

    def spread(self, values: Tensor, x: Tensor) -> Tensor:
        """`values` of a scale's shape such that they broadcast to `split(x)`; differentiable."""
        if self.block_size is None:
            return self.along_axis(values)
        size = x.shape[self._place]
        if size % self.block_size == 0:
            return values.unsqueeze(self._place + 1)
        repeated = values.repeat_interleave(self.block_size, self._place)
        return repeated.narrow(self._place, 0, size)

    def ranges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest value for each scale, of a scale's shape; a short last block's range
        includes zero."""
        if self.axis is None:
            low, high = x.aminmax()
            return low, high
        if self.block_size is None:
            others = [i for i in range(x.ndim) if i != self._place]
            return (x.amin(others), x.amax(others)) if others else (x, x)
        missing = -x.shape[self._place] % self.block_size
        if missing:
            x = pad(x, [0, 0] * (x.ndim - 1 - self._place) + [0, missing])
        low, high = self.split(x).aminmax(dim=self._place + 1)
        return low, high

    @property
    def _place(self) -> int:
        assert self.axis is not None and self.ndim is not None
        return self.axis % self.ndim
