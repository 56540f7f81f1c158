"""Functions of torch that its ONNX exporter cannot follow, spelled out while a module is traced.

What stands for each computes the same from operators that ONNX has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def spelled_out() -> Iterator[None]:
    """While this lasts, modules call the functions below.

    torch's fused Transformer layers are off: they look at the values of masks.
    """
    import torch
    from torch.nn import functional, modules

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (torch, "cdist", _distances(torch.cdist)),
        (functional, "embedding_bag", _bags(functional.embedding_bag)),
        (functional, "conv2d", _with_bias(functional.conv2d)),
        (functional, "conv3d", _with_bias(functional.conv3d)),
        (modules.transformer, "_detect_is_causal_mask", _causal_if_said),
        *(
            (functional, name, _over_everything(getattr(functional, name), rank, kind))
            for rank in (1, 2, 3)
            for kind in ("avg", "max")
            for name in (f"{kind}_pool{rank}d",)
        ),
    ]
    before = [getattr(place, name) for place, name, _ in replaced]
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for place, name, function in replaced:
            setattr(place, name, function)
        yield
    finally:
        for (place, name, _), function in zip(replaced, before, strict=True):
            setattr(place, name, function)
        torch.backends.mha.set_fastpath_enabled(fast)


def _distances(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Euclidean and Manhattan distances; others as torch has them."""

    def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, *args: Any, **kwargs: Any) -> Tensor:
        if p not in (1, 2):
            return own(x1, x2, p, *args, **kwargs)
        apart = x1.unsqueeze(-2) - x2.unsqueeze(-3)
        return apart.abs().sum(-1) if p == 1 else apart.square().sum(-1).sqrt()

    return cdist


def _bags(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Bags of one size, the rows of a matrix: looked up and reduced, not walked through in a loop.

    Others (`offsets`, padding) as torch has them.
    """
    from torch.nn import functional

    def embedding_bag(
        input: Tensor,
        weight: Tensor,
        offsets: Tensor | None = None,
        max_norm: float | None = None,
        norm_type: float = 2,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        per_sample_weights: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Tensor:
        if input.ndim != 2 or max_norm is not None or padding_idx is not None:
            return own(
                input,
                weight,
                offsets,
                max_norm,
                norm_type,
                scale_grad_by_freq,
                mode,
                sparse,
                per_sample_weights,
                include_last_offset,
                padding_idx,
            )
        found = functional.embedding(input, weight)
        if mode == "max":
            return found.amax(1)
        if per_sample_weights is not None:
            found = found * per_sample_weights.unsqueeze(-1)
        return found.sum(1) if mode == "sum" else found.mean(1)

    return embedding_bag


def _with_bias(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A bias of zeros where there is none: the exporter makes one of the wrong shape for conv3d,
    and for conv2d with `padding="same"`."""

    def conv(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        if bias is None and (weight.ndim == 5 or isinstance(padding, str)):
            bias = weight.new_zeros(weight.shape[0])
        return own(input, weight, bias, stride, padding, *args, **kwargs)

    return conv


def _over_everything(own: Callable[..., Tensor], rank: int, kind: str) -> Callable[..., Tensor]:
    """A pool whose window is the open size of its input, as `x.shape[2:]`, is a mean or a maximum
    over all positions: the exporter would write the traced size down as the window."""
    import torch

    def pool(input: Tensor, kernel_size: Any, *args: Any, **kwargs: Any) -> Tensor:
        window = (
            [kernel_size] * rank if isinstance(kernel_size, int | torch.SymInt) else kernel_size
        )
        whole = (
            not args
            and not kwargs
            and len(window) == rank
            and any(isinstance(size, torch.SymInt) for size in window)
            and tuple(window) == tuple(input.shape[-rank:])
        )
        if not whole:
            return own(input, kernel_size, *args, **kwargs)
        axes = tuple(range(-rank, 0))
        return input.mean(axes, keepdim=True) if kind == "avg" else input.amax(axes, keepdim=True)

    return pool


def _causal_if_said(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    """The mask is used either way; torch would compare its values with a causal one."""
    return bool(is_causal)
