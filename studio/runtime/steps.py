"""A compiled graph: the steps to take, the slots they read and write, and taking them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from studio.errors import ModelError, StudioError
from studio.runtime.ops.registry import Call, OpFunction

Hook = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One node ready to run.

    `inputs` are slots, -1 for an input left out, first those of the node and then those of the
    values its subgraphs capture; `outputs` the outputs that matter as (index, slot, quantizer,
    quantizer that may write over what it is given, if the memory is the output's own);
    `free` the slots nobody reads after this step. `inplace` is set where the first input's memory
    may take the result.
    """

    node: str
    call: Call
    function: OpFunction
    inplace: OpFunction | None
    host: frozenset[int]
    inputs: tuple[int, ...]
    outputs: tuple[tuple[int, int, Hook | None, Hook | None], ...]
    free: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Steps over `size` slots, and which slots the named values go into and come out of.

    `feed_hooks`: the value fed, the feed that takes the result, and what to apply.
    """

    steps: tuple[Step, ...]
    feeds: tuple[tuple[str, int], ...]
    feed_hooks: tuple[tuple[str, str, Hook], ...]
    constants: tuple[tuple[str, int], ...]
    results: tuple[tuple[str, int], ...]
    size: int

    def run(self, values: Mapping[str, Any], device: torch.device) -> list[Any]:
        """The results, for `values` of the feeds and constants by name.

        Raises ModelError naming the node that fails.
        """
        slots = self.filled(values)
        run_steps(self.steps, slots, device)
        return [slots[slot] for _, slot in self.results]

    def filled(self, values: Mapping[str, Any]) -> list[Any]:
        """The slots before the first step."""
        slots: list[Any] = [None] * self.size
        for name, slot in (*self.constants, *self.feeds):
            slots[slot] = values[name]
        return slots


def run_steps(steps: Sequence[Step], slots: list[Any], device: torch.device) -> None:
    """Take `steps`, on and into `slots`. Raises ModelError naming the node that fails."""
    overwrite = not torch.is_grad_enabled()
    elsewhere = device.type != "cpu"
    for step in steps:
        arguments = [None if slot < 0 else slots[slot] for slot in step.inputs]
        function = step.inplace if overwrite and step.inplace else step.function
        try:
            if elsewhere:
                arguments = _placed(arguments, step.host, device)
            result: Any = function(step.call, *arguments)
            if isinstance(result, Tensor):
                result = (result,)
            for index, slot, hook, over in step.outputs:
                value, hook = result[index], over if overwrite else hook
                slots[slot] = value if hook is None or value is None else hook(value)
        except StudioError:
            raise
        except Exception as error:
            raise _failure(step, arguments, error) from error
        for slot in step.free:
            slots[slot] = None
        # The frame must not keep what the free list let go.
        del arguments, result


@dataclass(frozen=True)
class Body:
    """A subgraph ready to run, any number of times.

    `inputs` are the names of its formal inputs, `captures` the place of each value that it reads
    from outside among those that its node captures, by name. `outputs` are the types and shapes
    that the graph states for its outputs.
    """

    plan: Plan
    inputs: tuple[str, ...]
    captures: tuple[tuple[str, int], ...]
    constants: Mapping[str, Tensor]
    outputs: tuple[tuple[ir.DataType | None, ir.Shape | None], ...]
    device: torch.device

    def run(self, inputs: Sequence[Any], captured: Sequence[Any]) -> list[Any]:
        """The outputs for `inputs`, with the values that the whole node captures."""
        values = dict(self.constants)
        values.update((name, captured[place]) for name, place in self.captures)
        values.update(zip(self.inputs, inputs, strict=True))
        return self.plan.run(values, self.device)


def _placed(arguments: list[Any], host: frozenset[int], device: torch.device) -> list[Any]:
    """Numbers to the CPU; the rest together on the device as soon as one of them is there."""
    tensors = [x for i, x in enumerate(arguments) if i not in host and isinstance(x, Tensor)]
    together = any(x.device.type != "cpu" for x in tensors)
    placed: list[Any] = []
    for i, x in enumerate(arguments):
        if not isinstance(x, Tensor):
            placed.append(x)
        elif i in host:
            placed.append(x.cpu())
        else:
            placed.append(x.to(device) if together else x)
    return placed


def _failure(step: Step, arguments: Sequence[Any], error: Exception) -> ModelError:
    shapes = ", ".join(map(_shape, arguments))
    return ModelError(
        f"The layer '{step.node}' ({step.call.op_type}) failed on inputs of shape {shapes}: "
        f"{type(error).__name__}: {error}",
        "Check that the data has the shape the model expects.",
    )


def _shape(x: Any) -> str:
    if isinstance(x, list):
        return f"a sequence of {len(x)}"
    return "none" if x is None else str(list(x.shape))
