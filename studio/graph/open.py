"""Open a model, whatever kind of file it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.errors import ModelError, UnsupportedOpsError
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.prepare import check_rules, prepare
from studio.graph.quantized import express_as_qdq, lift_quantization
from studio.graph.sources.load import load
from studio.graph.sources.source import ExampleInput, parse_source

# Given a prepared graph, the operators that cannot be executed, with their layers.
Check = Callable[[ModelGraph], dict[str, list[str]]]


def open_model(
    source: str | Path | ModelSource,
    *,
    weights: str | Path | None = None,
    inputs: str | Iterable[str | ExampleInput] = (),
    fixed_inputs: Mapping[str, Any] | None = None,
    fixed_size: bool = False,
    without: Sequence[str] | None = None,
    trust: bool = False,
    check: Check | None = None,
) -> ModelGraph:
    """Open and prepare a model.

    `source` is a file (`.onnx`, `.pt2`, TorchScript, a pickled module), `file.py:factory(...)` or
    `package.module:factory(...)`. `weights` is a file for a factory's module. `inputs` are what to
    trace with, as `[name:]shape[:type]` with the batch dimension; found out if not given.
    `fixed_inputs` become constants. `fixed_size` keeps all sizes but the batch as traced. `without`
    names rules of preparation to leave out (None: those of `source`). `trust` agrees to executing
    what is in the source. `check` names what no engine can run.

    Raises ModelError (InputsNeededError where the inputs are in question), ConsentRequiredError,
    ConfigError for an unknown rule, and UnsupportedOpsError with all those operators.
    """
    parsed = parse_source(
        source, weights=weights, inputs=inputs, fixed_inputs=fixed_inputs, fixed_size=fixed_size
    )
    left_out = parsed.without if without is None else tuple(dict.fromkeys(without))
    check_rules(left_out)
    raw = _with_fixed_inputs(load(parsed, trust=trust))
    _check_inputs(raw)
    raw = express_as_qdq(replace(raw, source=replace(raw.source, without=left_out)))
    return _prepared(raw, check)


def prepare_again(
    graph: ModelGraph, without: Sequence[str], check: Check | None = None
) -> ModelGraph:
    """The model of the prepared `graph`, prepared anew `without` the rules named.

    Neither reads its file nor executes its code again. Raises ConfigError for an unknown rule, and
    what `check` leads to.
    """
    raw = graph.captured or graph
    left_out = tuple(dict.fromkeys(without))
    return _prepared(replace(raw, source=replace(graph.source, without=left_out)), check)


def _prepared(raw: ModelGraph, check: Check | None) -> ModelGraph:
    graph = lift_quantization(prepare(raw))
    unsupported = check(graph) if check is not None else {}
    if unsupported:
        raise UnsupportedOpsError(unsupported)
    return graph


def _with_fixed_inputs(raw: ModelGraph) -> ModelGraph:
    """Inputs of the graph that are to have one value as constants; a module has its own already."""
    names = {value.name for value in raw.inputs}
    module = raw.source.is_module
    fixed = {n: v for n, v in raw.source.fixed_inputs.items() if n in names or not module}
    if not fixed:
        return raw
    from studio.graph.bind import bind_inputs

    changes = bind_inputs(raw.ir, fixed)
    return replace(raw, changes=(*raw.changes, *changes))


def _check_inputs(raw: ModelGraph) -> None:
    """Raises ModelError if the example inputs are not those of the graph."""
    shapes = {value.name: value.shape for value in raw.inputs}
    for item in raw.source.inputs:
        if item.name in raw.source.fixed_inputs or (item.name is None and len(shapes) == 1):
            continue
        if item.name not in shapes:
            own = ", ".join(str(name) for name in shapes)
            raise ModelError(
                f"The model has no input {item.name or 'without a name'!r}; it takes {own}.",
                "Write NAME:SHAPE for each, with these names.",
            )
        shape = shapes[item.name]
        if shape is not None and len(shape) != len(item.shape):
            raise ModelError(
                f"The input {item.name!r} has {len(shape)} dimensions, not {len(item.shape)}.",
                "Give as many sizes.",
            )
