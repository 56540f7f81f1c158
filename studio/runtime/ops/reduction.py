"""Reductions, arg-extremes and cumulative ops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from studio.runtime.ops.registry import Call, op


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    return x.to(torch.float64).mean(axes, keepdim=keep).to(x.dtype)


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _extreme(
    function: Callable[..., Tensor], least: bool
) -> Callable[[Tensor, list[int], bool], Tensor]:
    def reduce(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if all(x.shape[axis] for axis in axes):
            return function(x, axes, keepdim=keep)
        # The extreme of nothing is the other end of the type's range.
        shape = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
        if x.is_floating_point():
            filler = float("inf") if least else float("-inf")
        elif x.dtype == torch.bool:
            filler = least
        else:
            info = torch.iinfo(x.dtype)
            filler = info.max if least else info.min
        full = torch.full(shape, filler, dtype=x.dtype, device=x.device)
        return full if keep else full.squeeze(axes)

    return reduce


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.square().sum(axes, keepdim=keep).sqrt()
    return x.to(torch.float64).square().sum(axes, keepdim=keep).sqrt().to(x.dtype)


_REDUCE: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": _prod,
    "ReduceMax": _extreme(torch.amax, least=False),
    "ReduceMin": _extreme(torch.amin, least=True),
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": _l2,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x.square(), axes, keep),
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
}


def _register(name: str, function: Callable[[Tensor, list[int], bool], Tensor]) -> None:
    @op(name, host=(1,))
    def reduce(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
        """Axes are an attribute before opset 18 (ReduceSum: 13), an input since."""
        chosen = call.get("axes") if axes is None else axes.tolist()
        if not chosen:
            if call.get("noop_with_empty_axes", 0):
                # Nothing is reduced, but the function of one element still applies.
                return function(x.unsqueeze(-1), [x.dim()], False)
            chosen = list(range(x.dim()))
        chosen = [axis + x.dim() if axis < 0 else axis for axis in chosen]
        return (
            function(x, chosen, bool(call.get("keepdims", 1)))
            if x.dim()
            else function(x.unsqueeze(0), [0], False)
        )


for _name, _function in _REDUCE.items():
    _register(_name, _function)


@op("ArgMax", "ArgMin", fresh=True)
def arg_extreme(call: Call, x: Tensor) -> Tensor:
    axis, keep = call.get("axis", 0), bool(call.get("keepdims", 1))
    find = torch.argmax if call.op_type == "ArgMax" else torch.argmin
    if not call.get("select_last_index", 0):
        return find(x, axis, keepdim=keep)
    return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)


def _cumulative(
    call: Call, x: Tensor, axis: Tensor, function: Callable[..., Tensor], neutral: int
) -> Tensor:
    dim = int(axis.item())
    data = x.flip(dim) if call.get("reverse", 0) else x
    result = function(data, dim, dtype=x.dtype)
    if call.get("exclusive", 0):
        first = torch.full_like(result.narrow(dim, 0, 1), neutral)
        result = torch.cat([first, result.narrow(dim, 0, x.shape[dim] - 1)], dim)
    return result.flip(dim) if call.get("reverse", 0) else result


@op("CumSum", since=11, host=(1,), fresh=True)
def cum_sum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    return _cumulative(call, x, axis, torch.cumsum, 0)


@op("CumProd", since=26, host=(1,), fresh=True)
def cum_prod(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    return _cumulative(call, x, axis, torch.cumprod, 1)


@op("TopK", host=(1,), fresh=True)
def top_k(call: Call, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """k is an attribute before opset 10. Among equals the lower index comes first."""
    count = call.get("k") if k is None else int(k.item())
    axis = call.get("axis", -1)
    largest = bool(call.get("largest", 1))
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)
