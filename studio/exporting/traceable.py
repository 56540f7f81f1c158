"""Running a compiled plan so that torch.export can follow it with open sizes.

The executor keeps shapes in tensors, as ONNX does; a tracer that has only symbols for sizes loses
them there. Here numbers made of shapes and constants stay Python numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.runtime.ops.registry import Call
from studio.runtime.steps import Plan


class Numbers:
    """A tensor of Python numbers or symbols: what operators ask of shapes, axes and factors."""

    device = torch.device("cpu")

    def __init__(self, values: Any, dtype: torch.dtype = torch.int64) -> None:
        self.array = np.asarray(values, dtype=object)
        self.dtype = dtype

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def dim(self) -> int:
        return self.array.ndim

    def numel(self) -> int:
        return self.array.size

    def tolist(self) -> Any:
        return self.array.tolist()

    def item(self) -> Any:
        return self.array.reshape(-1)[0]

    def reshape(self, *shape: int) -> Numbers:
        return Numbers(self.array.reshape(*shape), self.dtype)

    def tensor(self) -> Tensor:
        return torch.tensor(self.array.tolist(), dtype=self.dtype)


def run_plan(plan: Plan, values: Mapping[str, Any]) -> list[Any]:
    """The results of `plan` for `values` of its feeds and constants by name, as `Plan.run` gives
    them on the CPU; nothing is overwritten."""
    slots: list[Any] = [None] * plan.size
    for name, slot in (*plan.constants, *plan.feeds):
        slots[slot] = values[name]
    for step in plan.steps:
        arguments = [None if slot < 0 else slots[slot] for slot in step.inputs]
        result: Any = _numbers(step.call, arguments)
        if result is None:
            arguments = [
                x.tensor() if isinstance(x, Numbers) and i not in step.host else x
                for i, x in enumerate(arguments)
            ]
            try:
                result = step.function(step.call, *arguments)
            except (AttributeError, TypeError):  # it asks for more than plain numbers
                tensors = [x.tensor() if isinstance(x, Numbers) else x for x in arguments]
                result = step.function(step.call, *tensors)
        if isinstance(result, (Tensor, Numbers)):
            result = (result,)
        for index, slot, hook, _ in step.outputs:
            value = result[index]
            slots[slot] = value if hook is None or not isinstance(value, Tensor) else hook(value)
    found = [slots[slot] for _, slot in plan.results]
    return [x.tensor() if isinstance(x, Numbers) else x for x in found]


def _numbers(call: Call, arguments: list[Any]) -> Numbers | None:
    """The result where it is arithmetic of sizes; None where it is not."""
    if call.op_type in ("Shape", "Size") and isinstance(arguments[0], (Tensor, Numbers)):
        sizes = list(arguments[0].shape)
        if call.op_type == "Shape":
            return Numbers(sizes[call.get("start") : call.get("end")])
        total: Any = 1
        for size in sizes:
            total = total * size
        return Numbers(total)
    function = _ARITHMETIC.get(call.op_type)
    known = [x for x in arguments if x is not None]
    whole = all(isinstance(x, Numbers) and x.dtype == torch.int64 for x in known)
    if function is None or not known or not whole:
        return None
    found = function(call, *(None if x is None else x.array for x in arguments))
    return None if found is None else Numbers(found)


def _axes(call: Call, axes: np.ndarray | None) -> tuple[int, ...] | None:
    chosen = call.get("axes") if axes is None else axes.reshape(-1).tolist()
    return None if chosen is None else tuple(chosen)


def _unsqueeze(call: Call, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return np.expand_dims(x, _axes(call, axes) or ())


def _slice(
    call: Call,
    x: np.ndarray,
    starts: np.ndarray | None = None,
    ends: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> np.ndarray | None:
    if starts is None or ends is None:
        return None
    strides = [1] * starts.size if steps is None else steps.tolist()
    dims = range(starts.size) if axes is None else axes.tolist()
    index: list[Any] = [slice(None)] * x.ndim
    for low, high, dim, stride in zip(starts.tolist(), ends.tolist(), dims, strides, strict=True):
        if stride < 0:
            return None
        index[dim] = slice(low, high, stride)
    return x[tuple(index)]


def _gather(call: Call, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take(x, indices.astype(np.int64), call.get("axis", 0))


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Towards zero, as ONNX has it: the same as downwards for sizes."""
    positive = all(isinstance(n, int) and n > 0 for n in b.reshape(-1).tolist())
    known = all(not isinstance(n, int) or n >= 0 for n in a.reshape(-1).tolist())
    return a // b if positive and known else None


def _reshape(call: Call, x: np.ndarray, shape: np.ndarray) -> np.ndarray | None:
    sizes = [int(n) for n in shape.tolist()]
    return None if 0 in sizes else x.reshape(sizes)


_ARITHMETIC: dict[str, Callable[..., np.ndarray | None]] = {
    "Add": lambda call, a, b: a + b,
    "Sub": lambda call, a, b: a - b,
    "Mul": lambda call, a, b: a * b,
    "Div": lambda call, a, b: _divided(a, b),
    "Concat": lambda call, *parts: np.concatenate(parts, call.get("axis")),
    "Gather": _gather,
    "Identity": lambda call, x: x,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": lambda call, x, axes=None: np.squeeze(x, _axes(call, axes)),
    "Unsqueeze": _unsqueeze,
}
"""Operators on sizes that keep the symbols; others get a tensor."""
