"""What a user says about a model: where it is, what it is fed. Plain data, quick to import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import ModelError

PYTHON = re.compile(r"^(?P<file>.+?\.py)(?::(?P<factory>.*))?$", re.DOTALL)
INSTALLED = re.compile(
    r"^(?P<module>[A-Za-z_]\w+(?:\.[A-Za-z_]\w*)*):(?P<factory>[A-Za-z_][\w.]*\s*(?:\(.*\))?)$",
    re.DOTALL,
)
SHAPE = re.compile(r"\(?\s*\d+(\s*[,x×]\s*\d+)*\s*,?\s*\)?|\(\s*\)|scalar")
DTYPES = (
    "float32", "float16", "float64", "bfloat16",
    "int8", "int16", "int32", "int64", "uint8", "bool",
)  # fmt: skip
ALIASES = {"float": "float32", "double": "float64", "half": "float16", "int": "int64"}
INPUT_HINT = (
    "Write an input as [name:]shape[:type], for example 1,3,224,224 or input_ids:1,16:int64."
)
LARGEST_INPUT = 2**31
"""Elements; what claims more is a mistake."""


@dataclass(frozen=True)
class ExampleInput:
    """One input to trace a model with.

    `shape` includes the batch dimension; `()` is a scalar. `name` is the parameter of `forward`
    (`batch.image` for the entry `image` of the dictionary `batch`, `states.0` for the first of a
    tuple); None takes the next one in order. `dtype` is one of `DTYPES`; None finds it out.
    """

    shape: tuple[int, ...]
    name: str | None = None
    dtype: str | None = None

    def __str__(self) -> str:
        """As `parse_inputs` reads it."""
        shape = ",".join(map(str, self.shape)) or "scalar"
        return ":".join(part for part in (self.name, shape, self.dtype) if part)


@dataclass(frozen=True)
class ModelSource:
    """Where a model came from.

    `path` is its file; None for an installed package, whose dotted `module` then is given. For
    Python, `factory` is the callable that returns the `nn.Module`, with keyword arguments if it
    needs any: `make(num_classes=10)`. `weights` is an optional `.safetensors` / `.pth` file for
    it. `inputs` are what the model was traced with, `fixed_inputs` the values of inputs that stay
    the same from run to run, `fixed_size` keeps every size but the batch's as traced. `without`
    names the rules of preparation that are switched off. `encodings` is a file that says how the
    model is quantized, `encodings_partial` that its other tensors follow the settings.
    """

    path: Path | None
    factory: str | None = None
    module: str | None = None
    weights: Path | None = None
    inputs: tuple[ExampleInput, ...] = ()
    fixed_inputs: Mapping[str, Any] = field(default_factory=dict)
    fixed_size: bool = False
    without: tuple[str, ...] = ()
    encodings: Path | None = None
    encodings_partial: bool = False

    @property
    def is_module(self) -> bool:
        """True if it is made by Python code, whose `forward` is given the fixed inputs."""
        return self.factory is not None or self.module is not None

    @property
    def file_name(self) -> str:
        """The file or package, as messages name it."""
        return self.module or "" if self.path is None else self.path.name

    @property
    def name(self) -> str:
        """Short name shown in titles and used for file names."""
        place = self.module or "" if self.path is None else self.path.stem
        return place if self.factory is None else f"{place}:{parse_call(self.factory)[0]}"


def parse_source(
    source: str | Path | ModelSource,
    *,
    weights: str | Path | None = None,
    inputs: str | Iterable[str | ExampleInput] = (),
    fixed_inputs: Mapping[str, Any] | None = None,
    fixed_size: bool = False,
    without: Sequence[str] = (),
) -> ModelSource:
    """A file, `file.py:factory(...)` or `package.module:factory(...)` as a ModelSource.

    Nothing is read. Raises ModelError for what cannot be understood.
    """
    if isinstance(source, ModelSource):
        return source
    text = str(source)
    python, installed = PYTHON.match(text), INSTALLED.match(text)
    path: Path | None = Path(text)
    factory = module = None
    if python:
        path, factory = Path(python["file"]), python["factory"]
        if not factory:
            raise ModelError(
                f"{path.name} is Python code; which function makes the model is not said.",
                f"Write {path.name}:NAME with the name of a function that returns it.",
            )
    elif installed and not Path(text).exists():
        path, module, factory = None, installed["module"], installed["factory"]
    if factory is not None:
        parse_call(factory)
    return ModelSource(
        path,
        factory,
        module,
        None if weights is None else Path(weights),
        parse_inputs(inputs),
        dict(fixed_inputs or {}),
        fixed_size,
        tuple(without),
    )


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """`make(a=1, b="x")` -> ("make", {"a": 1, "b": "x"}); arguments are literals with a name.

    Raises ModelError.
    """
    hint = "Write for example make or make(num_classes=10, pretrained=False)."
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ModelError(f"{text!r} is not the name of a function.", hint) from None
    call = tree if isinstance(tree, ast.Call) else None
    name = ast.unparse(call.func if call else tree)
    if re.fullmatch(r"[A-Za-z_][\w.]*", name) is None:
        raise ModelError(f"{text!r} is not the name of a function.", hint)
    if call is None:
        return name, {}
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ModelError(f"The arguments in {text!r} need their names.", hint)
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        try:
            values[keyword.arg or ""] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            raise ModelError(
                f"The argument {keyword.arg!r} in {text!r} is not a plain value.",
                "Use numbers, texts in quotes, True, False, None, lists, tuples and dictionaries.",
            ) from None
    return name, values


def parse_inputs(inputs: str | Iterable[str | ExampleInput]) -> tuple[ExampleInput, ...]:
    """`1,3,224,224; mask:1,16:bool` (or several such texts) as inputs. Raises ModelError."""
    found: list[ExampleInput] = []
    for item in [inputs] if isinstance(inputs, str) else inputs:
        if isinstance(item, ExampleInput):
            found.append(item)
        else:
            found += [_input(part) for part in item.split(";") if part.strip()]
    names = [item.name for item in found if item.name]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(f"The input {name!r} is given twice.", INPUT_HINT)
    return tuple(found)


def _input(text: str) -> ExampleInput:
    parts = [part.strip() for part in text.split(":")]
    places = [i for i, part in enumerate(parts) if SHAPE.fullmatch(part)]
    if not places or places[0] > 1 or len(parts) > places[0] + 2:
        raise ModelError(f"“{text.strip()}” is not a shape such as 1,3,224,224.", INPUT_HINT)
    place = places[0]
    name = parts[0] if place else None
    if name is not None and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", name) is None:
        raise ModelError(f"“{name}” is not the name of an input.", INPUT_HINT)
    dtype = parts[place + 1] if len(parts) > place + 1 else None
    return ExampleInput(parse_shape(parts[place]), name, parse_dtype(dtype) if dtype else None)


def parse_shape(text: str) -> tuple[int, ...]:
    """`1,3,224,224`, `1x16` or `scalar`. Raises ModelError."""
    if SHAPE.fullmatch(text.strip()) is None:
        raise ModelError(f"“{text.strip()}” is not a shape such as 1,3,224,224.", INPUT_HINT)
    shape = tuple(int(number) for number in re.findall(r"\d+", text))
    elements = 1
    for size in shape:
        elements *= size
    if elements < 1 or elements > LARGEST_INPUT:
        raise ModelError(
            f"An input of {'×'.join(map(str, shape))} has {'no' if elements < 1 else 'too many'}"
            " elements.",
            INPUT_HINT,
        )
    return shape


def parse_dtype(text: str) -> str:
    """One of `DTYPES`, also by its short name. Raises ModelError."""
    name = text.strip().removeprefix("torch.")
    name = ALIASES.get(name, name)
    if name not in DTYPES:
        raise ModelError(f"“{text}” is not a type of numbers.", f"Use one of {', '.join(DTYPES)}.")
    return name


def parse_fixed(texts: Iterable[str]) -> dict[str, Any]:
    """`["sr=16000", "window=[1, 2]"]` -> {"sr": 16000, "window": [1, 2]}. Raises ModelError."""
    values: dict[str, Any] = {}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or re.fullmatch(r"[\w./:-]+", name) is None:
            raise ModelError(
                f"“{text}” does not give an input a value.", "Write NAME=VALUE, such as sr=16000."
            )
        values[name] = parse_value(value)
    return values


def parse_value(text: str) -> Any:
    """A number, true, false or a nested list of them. Raises ModelError."""
    words = {"true": "True", "false": "False"}
    try:
        value = ast.literal_eval(words.get(text.strip(), text.strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        value = None
    if not _plain(value):
        raise ModelError(
            f"“{text.strip()}” is not a value of an input.",
            "Give a number, or a list of numbers such as [1, 2].",
        )
    return value


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_plain(item) for item in value)
    return isinstance(value, (bool, int, float))
