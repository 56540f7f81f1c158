"""How a module is called: flat, named tensors in, flat, named tensors out.

`forward` may take and return dictionaries, tuples and dataclasses; a graph has a list of tensors on
either side. The names say where each belongs: `batch.image`, `states.0`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.errors import ModelError
from studio.graph.sources.source import DTYPES, ExampleInput

if TYPE_CHECKING:
    import torch
    from torch import nn

EMPTY = inspect.Parameter.empty
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class InputRow:
    """What is known about one parameter of `forward`; texts as a user writes them.

    `shape` and `dtype` are empty where they are not known. `fixed` is the value the parameter is
    to have in every run. `required`: it has no default.
    """

    name: str
    shape: str = ""
    dtype: str = ""
    fixed: str = ""
    required: bool = True


class InputsNeededError(ModelError):
    """The inputs are not known, or the module does not take those given; `rows` has them all."""

    def __init__(self, message: str, hint: str, rows: Sequence[InputRow]) -> None:
        super().__init__(message, hint)
        self.rows = tuple(rows)


def forward_parameters(module: nn.Module) -> list[inspect.Parameter]:
    """The parameters of `forward`, in order; a single unnamed one if it does not say."""
    schema = getattr(module.forward, "schema", None)
    if schema is not None:  # TorchScript
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return [
            inspect.Parameter(
                argument.name,
                kind,
                default=argument.default_value if argument.has_default_value() else EMPTY,
                annotation=str(argument.type),
            )
            for argument in schema.arguments[1:]
        ]
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return [inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)]


def required_names(module: nn.Module) -> list[str]:
    """Parameters that must be given; the first one if all have defaults."""
    parameters = forward_parameters(module)
    single = [p for p in parameters if p.kind not in VARIADIC]
    needed = [p.name for p in single if p.default is EMPTY]
    if needed or not parameters:
        return needed
    return [single[0].name] if single else [f"{parameters[0].name}.0"]


def wants_python_value(parameter: inspect.Parameter) -> bool:
    """True if the parameter is declared as a number or a text rather than a tensor."""
    declared = str(parameter.annotation).replace("<class '", "").removesuffix("'>")
    return declared in ("int", "float", "bool", "str")


def named(
    module: nn.Module, inputs: Sequence[ExampleInput], fixed: Mapping[str, Any]
) -> tuple[ExampleInput, ...]:
    """`inputs` with the names of the parameters they go to. Raises ModelError."""
    parameters = forward_parameters(module)
    kinds = {p.name: p.kind for p in parameters}
    open_ended = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    taken = {item.name.split(".")[0] for item in inputs if item.name}
    free = [n for n in kinds if n not in taken and n not in fixed and kinds[n] not in VARIADIC]
    found: list[ExampleInput] = []
    surplus = 0
    for item in inputs:
        name = item.name
        if name is None and free:
            name = free.pop(0)
        elif name is None and open_ended:
            name, surplus = f"{open_ended[0]}.{surplus}", surplus + 1
        elif name is None or (name.split(".")[0] not in kinds and not anything):
            own = ", ".join(n for n in kinds) or "nothing"
            what = f"no input {name!r}" if name else f"fewer inputs than the {len(inputs)} given"
            raise ModelError(f"The model has {what}; it takes {own}.", "Give one shape for each.")
        found.append(dataclasses.replace(item, name=name))
    return tuple(found)


def call_arguments(
    parameters: Sequence[inspect.Parameter], values: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """(args, kwargs) of `forward` from values by name, `batch.image` and `states.0` put together.

    Parameters are passed by name where `forward` allows it.
    """
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    tree = {name: _tuples(value) for name, value in tree.items()}
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    by_order = True  # until a parameter is left out
    variadic = any(
        p.kind is inspect.Parameter.VAR_POSITIONAL and p.name in tree for p in parameters
    )
    for parameter in parameters:
        if parameter.name not in tree:
            by_order = by_order and parameter.kind in VARIADIC
            continue
        value = tree.pop(parameter.name)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            args += value if isinstance(value, tuple) else [value]
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            kwargs |= value
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY or (by_order and variadic):
            args.append(value)
        else:
            kwargs[parameter.name] = value
    return args, kwargs | tree


def _tuples(value: Any) -> Any:
    """Dictionaries whose keys are 0, 1, 2, ... as tuples."""
    if not isinstance(value, dict):
        return value
    inner = {key: _tuples(item) for key, item in value.items()}
    if sorted(inner, key=str) == sorted(map(str, range(len(inner))), key=str):
        return tuple(inner[str(i)] for i in range(len(inner)))
    return inner


def flat_outputs(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every tensor in what `forward` returned; what is no tensor is left out."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
        return
    items: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif hasattr(value, "_asdict"):  # a named tuple
        items = iter(value._asdict().items())
    elif isinstance(value, (tuple, list)):
        items = enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    else:
        return
    for key, item in items:
        yield from flat_outputs(item, f"{name}.{key}" if name else str(key))


def output_names(outputs: Sequence[tuple[str, torch.Tensor]]) -> list[str | None]:
    """Names that the model itself gives; None for places in a tuple, which say nothing."""
    return [
        name if any(not part.isdigit() for part in name.split(".")) else None for name, _ in outputs
    ]


@contextlib.contextmanager
def flat_forward(
    module: nn.Module, names: Sequence[str], constants: Mapping[str, Any]
) -> Iterator[None]:
    """Let `module` be called with the tensors of `names` alone, and return a tuple of tensors."""
    original, parameters = module.forward, forward_parameters(module)
    own = module.__dict__.get("forward")

    def forward(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = dict(zip(names, tensors, strict=True)) | dict(constants)
        args, kwargs = call_arguments(parameters, values)
        return tuple(tensor for _, tensor in flat_outputs(original(*args, **kwargs)))

    identifiers = [re.sub(r"\W", "_", name) for name in names]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in identifiers]
    )
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def rows(
    module: nn.Module, inputs: Sequence[ExampleInput], fixed: Mapping[str, Any]
) -> list[InputRow]:
    """One row for every parameter of `forward` and every input, for a form."""
    known = {item.name: item for item in inputs if item.name}
    found: list[InputRow] = []
    for parameter in forward_parameters(module):
        name, own = parameter.name, [n for n in known if n.split(".")[0] == parameter.name]
        for entry in own or ([] if parameter.kind in VARIADIC else [name]):
            item = known.get(entry)
            found.append(
                InputRow(
                    entry,
                    "" if item is None else ",".join(map(str, item.shape)) or "scalar",
                    (item.dtype if item else None) or declared_dtype(parameter),
                    "" if entry not in fixed else repr(fixed[entry]),
                    parameter.default is EMPTY,
                )
            )
    shown = {row.name for row in found}
    found += [
        InputRow(item.name or "", ",".join(map(str, item.shape)), item.dtype or "")
        for item in inputs
        if item.name and item.name not in shown
    ]
    return found or [InputRow("args.0")]


def declared_dtype(parameter: inspect.Parameter) -> str:
    """The type that an annotation such as `torch.LongTensor` says; empty if it says none."""
    text = str(parameter.annotation)
    kinds = {"LongTensor": "int64", "IntTensor": "int32", "BoolTensor": "bool",
             "HalfTensor": "float16", "DoubleTensor": "float64"}  # fmt: skip
    found = next((dtype for word, dtype in kinds.items() if word in text), "")
    assert not found or found in DTYPES
    return found
