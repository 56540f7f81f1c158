"""Sequences of tensors (Python lists) and optional values (None where there is none)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from studio.runtime.ops.registry import Call, Result, op

Sequences = tuple[list[Tensor]]


@op("SequenceEmpty", since=11)
def sequence_empty(call: Call) -> Sequences:
    return ([],)


@op("SequenceConstruct", since=11)
def sequence_construct(call: Call, *tensors: Tensor) -> Sequences:
    return (list(tensors),)


@op("SequenceLength", since=11)
def sequence_length(call: Call, sequence: Sequence[Tensor]) -> Tensor:
    return torch.tensor(len(sequence), dtype=torch.int64)


@op("SequenceAt", since=11, host=(1,))
def sequence_at(call: Call, sequence: Sequence[Tensor], position: Tensor) -> Tensor:
    return sequence[int(position.item())]


@op("SequenceInsert", since=11, host=(2,))
def sequence_insert(
    call: Call, sequence: Sequence[Tensor], x: Tensor, position: Tensor | None = None
) -> Sequences:
    """Before `position`, by default at the end."""
    at = len(sequence) if position is None else int(position.item())
    return ([*sequence[:at], x, *sequence[at:]],)


@op("SequenceErase", since=11, host=(1,))
def sequence_erase(
    call: Call, sequence: Sequence[Tensor], position: Tensor | None = None
) -> Sequences:
    """The element at `position` goes, by default the last."""
    at = -1 if position is None else int(position.item())
    at = at + len(sequence) if at < 0 else at
    return ([*sequence[:at], *sequence[at + 1 :]],)


@op("SplitToSequence", since=11, host=(1,))
def split_to_sequence(call: Call, x: Tensor, split: Tensor | None = None) -> Sequences:
    """`split` is the size of each part or a list of sizes; without it, slices of size 1."""
    axis = call.get("axis", 0)
    if split is None:
        parts = x.split(1, axis) if call.get("keepdims", 1) else x.unbind(axis)
    else:
        parts = x.split(split.tolist(), axis)
    return (list(parts),)


@op("ConcatFromSequence", since=11, fresh=True)
def concat_from_sequence(call: Call, sequence: Sequence[Tensor]) -> Tensor:
    join = torch.stack if call.get("new_axis", 0) else torch.cat
    return join(list(sequence), call.get("axis"))


@op("Optional", since=15)
def optional(call: Call, x: Tensor | None = None) -> Result:
    return (x,)


@op("OptionalHasElement", since=15)
def optional_has_element(call: Call, x: Tensor | None = None) -> Tensor:
    return torch.tensor(x is not None)


@op("OptionalGetElement", since=15)
def optional_get_element(call: Call, x: Tensor | None = None) -> Result:
    if x is None:
        raise ValueError("the optional value is empty")
    return (x,)
