"""Gather, scatter and selection."""

from __future__ import annotations

import torch
from torch import Tensor

from studio.runtime.ops.registry import Call, Result, op

_SCATTER_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def positive(indices: Tensor, length: int) -> Tensor:
    """Negative indices count from the end."""
    return torch.where(indices < 0, indices + length, indices).to(torch.int64)


@op("Gather", fresh=True)
def gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0) % x.dim()
    picked = x.index_select(axis, positive(indices.reshape(-1), x.shape[axis]))
    return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@op("GatherElements", since=11, fresh=True)
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0)
    return x.gather(axis, positive(indices, x.shape[axis]))


def _nd_index(indices: Tensor, batch: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Index tensors for indices [*batch, ..., k] that follow the axes of `batch`."""
    rank = indices.dim() - 1
    lead = [
        torch.arange(n, device=indices.device).reshape([-1 if i == j else 1 for j in range(rank)])
        for i, n in enumerate(batch)
    ]
    return (*lead, *indices.to(torch.int64).unbind(-1))


@op("GatherND", since=11, fresh=True)
def gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    return x[_nd_index(indices, tuple(x.shape[: call.get("batch_dims", 0)]))]


@op("ScatterElements", "Scatter", since=9, fresh=True)
def scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, reduction = call.get("axis", 0), call.get("reduction", "none")
    where = positive(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, where, updates)
    return x.scatter_reduce(axis, where, updates, _SCATTER_REDUCE[reduction])


@op("ScatterND", since=11, fresh=True)
def scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    reduction = call.get("reduction", "none")
    depth = indices.shape[-1]
    if reduction in ("none", "add"):
        where = _nd_index(indices, ())
        return x.index_put(where, updates, accumulate=reduction == "add")
    # One flat row of x for each index tuple.
    row = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for i in range(depth):
        row = row * x.shape[i] + positive(indices[..., i], x.shape[i])
    rows = x.reshape(-1, *x.shape[depth:])
    values = updates.reshape(-1, *x.shape[depth:])
    target = row.reshape([-1] + [1] * (values.dim() - 1)).expand_as(values)
    return rows.scatter_reduce(0, target, values, _SCATTER_REDUCE[reduction]).reshape(x.shape)


@op("TensorScatter", since=24, fresh=True)
def tensor_scatter(call: Call, past: Tensor, update: Tensor, write: Tensor | None = None) -> Tensor:
    """Write `update` into the cache `past` along `axis`, from index `write` [batch] on."""
    axis = call.get("axis", -2) % past.dim()
    count, length = update.shape[axis], past.shape[axis]
    start = write if write is not None else torch.zeros(past.shape[0], dtype=torch.int64)
    where = start.to(past.device).reshape(-1, 1) + torch.arange(count, device=past.device)
    if call.get("mode", "linear") == "circular":
        where = where % length
    shape = [1] * past.dim()
    shape[0], shape[axis] = past.shape[0], count
    return past.scatter(axis, where.reshape(shape).expand_as(update), update)


@op("OneHot", since=9, host=(1,), fresh=True)
def one_hot(call: Call, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """`values` is [off, on]. An index outside the depth gives a row of off."""
    count, axis = int(depth.item()), call.get("axis", -1)
    axis = axis + indices.dim() + 1 if axis < 0 else axis
    whole = indices.to(torch.int64)
    whole = torch.where(whole < 0, whole + count, whole).unsqueeze(axis)
    shape = [1] * whole.dim()
    shape[axis] = count
    classes = torch.arange(count, device=whole.device).reshape(shape)
    return torch.where(whole == classes, values[1], values[0])


@op("NonZero", since=9, fresh=True)
def non_zero(call: Call, x: Tensor) -> Tensor:
    return x.nonzero().t()


@op("Compress", since=9, fresh=True)
def compress(call: Call, x: Tensor, condition: Tensor) -> Tensor:
    axis = call.get("axis")
    if axis is None:
        x, axis = x.reshape(-1), 0
    return x.index_select(axis, condition.nonzero().reshape(-1))


@op("Trilu", since=14, host=(1,), fresh=True)
def trilu(call: Call, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k.item())
    return torch.triu(x, diagonal) if call.get("upper", 1) else torch.tril(x, diagonal)


@op("ReverseSequence", since=10, host=(1,), fresh=True)
def reverse_sequence(call: Call, x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the first `lengths[b]` steps of each sequence."""
    time, batch = call.get("time_axis", 0), call.get("batch_axis", 1)
    steps = torch.arange(x.shape[time]).unsqueeze(1)
    where = torch.where(steps < lengths, lengths - 1 - steps, steps)
    shape = [1] * x.dim()
    shape[time], shape[batch] = x.shape[time], x.shape[batch]
    where = (where if time < batch else where.t()).reshape(shape)
    return x.gather(time, where.to(x.device).expand_as(x))


@op("Unique", since=11, fresh=True)
def unique(call: Call, x: Tensor) -> Result:
    """Outputs: values, first index of each, index of the value of each element, counts."""
    axis, by_value = call.get("axis"), bool(call.get("sorted", 1))
    dim = 0 if axis is None else axis
    data = x.reshape(-1) if axis is None else x
    values, inverse, counts = torch.unique(
        data, sorted=True, return_inverse=True, return_counts=True, dim=dim
    )
    positions = torch.arange(len(inverse), device=x.device)
    first = torch.full((len(counts),), len(inverse), device=x.device)
    first = first.scatter_reduce(0, inverse, positions, "amin")
    if not by_value:
        order = first.argsort()
        rank = order.argsort()
        values, first, counts = values.index_select(dim, order), first[order], counts[order]
        inverse = rank[inverse]
    return (values, first, inverse, counts)[: call.outputs]
