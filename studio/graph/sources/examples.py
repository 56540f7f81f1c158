"""Inputs to trace a module with: those given, or those that it is found to take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from studio.errors import ModelError
from studio.graph.sources.explain import describe
from studio.graph.sources.guess import MASK, NUMBERS, guesses, table_sizes
from studio.graph.sources.interface import (
    InputsNeededError,
    call_arguments,
    flat_outputs,
    forward_parameters,
    named,
    output_names,
    required_names,
    rows,
    wants_python_value,
)
from studio.graph.sources.source import INPUT_HINT, ExampleInput, ModelSource

if TYPE_CHECKING:
    import torch
    from torch import nn

SEGMENT = re.compile(r"type|segment", re.IGNORECASE)


@dataclass(frozen=True)
class Examples:
    """What a module is traced with. `below`: the exclusive upper bound of random integers."""

    inputs: tuple[ExampleInput, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    below: int = 2
    outputs: tuple[str | None, ...] = ()
    note: str = ""

    @property
    def names(self) -> list[str]:
        return [item.name or "" for item in self.inputs]

    def tensors(self, shapes: Sequence[tuple[int, ...]] | None = None) -> tuple[torch.Tensor, ...]:
        """Values of the inputs, always the same ones; of other `shapes` if given."""
        sizes = shapes or [item.shape for item in self.inputs]
        return tuple(
            _values(replace(item, shape=shape), self.below, seed)
            for seed, (item, shape) in enumerate(zip(self.inputs, sizes, strict=True))
        )

    def run(
        self, module: nn.Module, shapes: Sequence[tuple[int, ...]] | None = None
    ) -> list[tuple[str, torch.Tensor]]:
        """(name, tensor) of what `module` returns for them."""
        import torch

        values = dict(zip(self.names, self.tensors(shapes), strict=True)) | dict(self.constants)
        args, kwargs = call_arguments(forward_parameters(module), values)
        with torch.no_grad():
            return list(flat_outputs(module(*args, **kwargs)))


def find_examples(module: nn.Module, source: ModelSource) -> Examples:
    """The inputs of `source`, or if there are none, the first that `module` is found to take.

    Raises InputsNeededError if the module refuses those given, or all that were tried.
    """
    constants, inputs = _constants(module, source)
    _need_values(module, source, inputs)
    if inputs or (constants and not _still_needed(module, constants)):
        return _accepted(module, inputs, constants, source)
    problem = ""
    for candidate in guesses(module, constants):
        try:
            found = _accepted(module, candidate, constants, source)
        except ModelError as error:
            problem = problem or error.message
            continue
        shown = ", ".join(
            f"{item.name} " * (len(candidate) > 1) + shape_text(item) for item in found.inputs
        )
        return replace(found, note=f"The input shape was not given; {shown} was assumed.")
    raise InputsNeededError(
        f"The shape of the input of {source.name} is not known."
        + (f" What was tried was refused: {problem}" if problem else ""),
        "Give the shape of each input with its batch dimension, for example 1,3,224,224.",
        rows(module, next(guesses(module, constants), ()), source.fixed_inputs),
    )


def _need_values(module: nn.Module, source: ModelSource, inputs: tuple[ExampleInput, ...]) -> None:
    """Raises InputsNeededError if `forward` must be given a number or a text that is not there."""
    given = {*source.fixed_inputs, *(item.name for item in inputs)}
    plain = {p.name for p in forward_parameters(module) if wants_python_value(p)}
    missing = [name for name in required_names(module) if name in plain and name not in given]
    if not missing:
        return
    shapes = inputs or next(guesses(module, [*source.fixed_inputs, *missing]), ())
    raise InputsNeededError(
        f"{source.name} needs a value for {', '.join(missing)}, which is no tensor.",
        f"Give it for good, as --fix {missing[0]}=VALUE on the command line.",
        rows(module, shapes, source.fixed_inputs),
    )


def shape_text(item: ExampleInput) -> str:
    """`1×3×224×224`, with the type unless that is float32."""
    shape = "×".join(map(str, item.shape)) or "a scalar"
    return shape if item.dtype in (None, "float32") else f"{shape} {item.dtype}"


def _still_needed(module: nn.Module, constants: Mapping[str, Any]) -> bool:
    return any(name not in constants for name in required_names(module))


def _constants(
    module: nn.Module, source: ModelSource
) -> tuple[dict[str, Any], tuple[ExampleInput, ...]]:
    """Fixed values as `forward` takes them, and the inputs that are not fixed.

    A value is a tensor where its shape or type is given or `forward` declares a tensor, else it is
    passed as it is.
    """
    import torch

    fixed = dict(source.fixed_inputs)
    inputs = named(module, source.inputs, {})
    declared = {p.name: str(p.annotation) for p in forward_parameters(module)}
    for name in fixed:
        spec = next((item for item in inputs if item.name == name), None)
        if spec is None and name.split(".")[0] not in declared and not _keywords(module):
            raise ModelError(
                f"The model has no input {name!r}; it takes {', '.join(declared) or 'nothing'}.",
                "Fix one of its inputs.",
            )
        if spec is None and "Tensor" not in declared.get(name, ""):
            continue
        try:
            value = (
                torch.tensor(fixed[name], dtype=getattr(torch, spec.dtype or "float32"))
                if spec and spec.dtype
                else torch.tensor(fixed[name])
            )
            fixed[name] = value if spec is None else value.expand(spec.shape).contiguous()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"The value of {name!r} does not have the shape given: {describe(error)}",
                "Give a list of as many numbers as the shape says, or one number for all.",
            ) from error
    return fixed, tuple(item for item in inputs if item.name not in fixed)


def _keywords(module: nn.Module) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in forward_parameters(module))


def _accepted(
    module: nn.Module,
    inputs: tuple[ExampleInput, ...],
    constants: Mapping[str, Any],
    source: ModelSource,
) -> Examples:
    """`inputs` with their types, after one ordinary call: its errors are far easier to understand
    than the exporter's."""
    tables = table_sizes(module)
    problem: Exception | None = None
    for typed in _typed(inputs, bool(tables)):
        for below in dict.fromkeys((*tables[:1], *([min(tables)] if tables else []), 2)):
            examples = Examples(typed, constants, below)
            try:
                outputs = examples.run(module)
            except Exception as error:
                problem = problem or error
                continue
            if not outputs:
                raise ModelError(
                    f"{source.name} returns no tensor.",
                    "Make forward() return tensors, in a tuple or a dictionary if several.",
                )
            return replace(examples, outputs=tuple(output_names(outputs)))
    assert problem is not None
    shown = ", ".join(shape_text(item) for item in inputs) or "no input"
    folder = None if source.path is None else source.path.parent
    raise InputsNeededError(
        f"{source.name} does not accept inputs of the shape {shown}: {describe(problem, folder)}",
        INPUT_HINT,
        rows(module, inputs, source.fixed_inputs),
    ) from problem


def _typed(inputs: tuple[ExampleInput, ...], tokens: bool) -> list[tuple[ExampleInput, ...]]:
    """Types to try for inputs that have none: float, and token numbers where they are likely."""

    def typed(whole: Callable[[ExampleInput], bool]) -> tuple[ExampleInput, ...]:
        return tuple(
            replace(item, dtype=item.dtype or ("int64" if whole(item) else "float32"))
            for item in inputs
        )

    given = any(item.dtype and "int" in item.dtype for item in inputs)

    def likely(item: ExampleInput) -> bool:
        called = NUMBERS.search(item.name or "") is not None
        return tokens and len(item.shape) <= 2 and (called or not given)

    return list(dict.fromkeys([typed(likely), typed(lambda _: False), typed(lambda _: True)]))


def _values(item: ExampleInput, below: int, seed: int) -> torch.Tensor:
    """Normal floats, ones for masks, else integers from 0 to `below`."""
    import torch

    dtype = getattr(torch, item.dtype or "float32")
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(item.shape, generator=generator).to(dtype)
    name = item.name or ""
    if dtype == torch.bool or MASK.search(name):
        return torch.ones(item.shape, dtype=dtype)
    limit = min(below, 2 if SEGMENT.search(name) else below, torch.iinfo(dtype).max)
    return torch.randint(0, max(limit, 1), item.shape, generator=generator).to(dtype)
