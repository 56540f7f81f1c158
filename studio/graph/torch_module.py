"""Capture a PyTorch module as a graph, by torch.export and torch's ONNX exporter."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from studio.errors import ModelError
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.sources import interface
from studio.graph.sources.agreement import Agreement, agreement, shut_axes
from studio.graph.sources.examples import Examples, find_examples, shape_text
from studio.graph.sources.explain import decisive_line
from studio.graph.sources.recurrences import translations, whole_recurrences
from studio.graph.sources.same_padding import MESSAGE, pads_by_size
from studio.graph.sources.size_arithmetic import size_arithmetic
from studio.graph.sources.sizes import (
    OpenSizes,
    open_sizes,
    rename_sizes,
    size_names,
    traced_shapes,
)
from studio.graph.sources.spelled_out import spelled_out

if TYPE_CHECKING:
    from torch import nn

STACK = "pkg.torch.onnx.stack_trace"
OWN_FRAME = re.compile(
    rf'^\s*File "{re.escape(str(Path(interface.__file__)))}", line \d+.*\n.*\n?', re.MULTILINE
)


def capture_module(module: nn.Module, source: ModelSource, notes: Sequence[str] = ()) -> ModelGraph:
    """Turn `module` (on the CPU, in eval mode) into a graph; the weights are not copied.

    Sizes are dynamic where the module allows it: the batch (axis 0 of every input), and the others
    unless `source.fixed_size`, or unless the graph would then compute paddings or factors from
    them, which cannot be merged into layers; a note says what was fixed and why. Module names and
    source lines are kept as node metadata.

    Raises InputsNeededError if the inputs are not known or refused, ModelError if the exporter
    cannot follow the module's code.
    """
    examples = find_examples(module, source)
    found = open_sizes(module, examples, batch_only=source.fixed_size)
    model, notes_on_sizes = _export(module, examples, found, source)
    known = replace(source, inputs=examples.inputs)
    said = [*notes, *([examples.note] if examples.note else []), *notes_on_sizes]
    return ModelGraph(model, known, (), tuple(said))


def _export(
    module: nn.Module, examples: Examples, found: OpenSizes, source: ModelSource
) -> tuple[ir.Model, list[str]]:
    """The graph with as many open sizes as possible, and notes on those that are not."""
    reason, fixed_because = found.batch_problem, ""
    nothing = OpenSizes(frozenset(), found.batch_problem)
    attempts = [found, found.batch, nothing]
    if pads_by_size(module, examples, found):
        fixed_because = MESSAGE
        attempts = attempts[1:]
    problem: Exception | None = None
    for sizes in dict.fromkeys(attempts):
        why = ""
        inner = sizes.axes != sizes.batch.axes
        try:
            model = _run_exporter(module, examples, sizes)
        except Exception as error:
            problem, why = error, decisive_line(error)
        else:
            computed = size_arithmetic(model) if inner else ""
            same = agreement(model, module, examples, sizes)
            if same is Agreement.NONE and not sizes.axes:
                raise ModelError(
                    f"The graph exported from {source.name} does not compute what the module does.",
                    "This is an error of torch's exporter; write the part concerned differently.",
                )
            if computed:
                why = f"with an open size the model would have to {computed}"
            elif same in (Agreement.TRACED, Agreement.NONE):
                why = "with open sizes the exported graph computes something else"
            else:
                notes = _notes(model, examples, sizes, fixed_because, reason)
                return model, [*notes, *_shut(model, examples, sizes)]
        if inner:
            fixed_because = fixed_because or why
        else:
            reason = reason or why
    raise ModelError(
        f"{source.name} cannot be exported: {decisive_line(problem) if problem else ''}",
        "Rewrite the part named so that torch.export can follow it.",
    ) from problem


def _notes(
    model: ir.Model, examples: Examples, sizes: OpenSizes, computed: str, reason: str
) -> list[str]:
    notes = []
    shut = [axis for axis in shut_axes(model, sizes) if axis in sizes.batch_axes]
    if shut or not sizes.batch_axes:
        first = [shape[0] for shape in traced_shapes(examples, sizes) if shape]
        why = reason or "the module's code depends on it"
        notes.append(f"The batch size is fixed at {first[0] if first else 1}: {why}.")
    if computed:
        shown = ", ".join(shape_text(item) for item in examples.inputs)
        notes.append(f"The input size is fixed at {shown} (the batch apart): {computed}.")
    return notes


def _shut(model: ir.Model, examples: Examples, sizes: OpenSizes) -> list[str]:
    """Notes on sizes other than the batch that the exporter made constants."""
    return [
        f"The size {examples.inputs[place].shape[axis]} of axis {axis} of"
        f" {examples.inputs[place].name} is fixed: the module's code depends on it."
        for place, axis in shut_axes(model, sizes)
        if (place, axis) not in sizes.batch_axes
    ]


def _run_exporter(module: nn.Module, examples: Examples, sizes: OpenSizes) -> ir.Model:
    import torch

    shapes = traced_shapes(examples, sizes)
    dynamic = tuple(
        {axis: torch.export.Dim.AUTO for axis in range(len(shape)) if (place, axis) in sizes.axes}
        for place, shape in enumerate(shapes)
    )
    tensors = examples.tensors(shapes)
    with (
        interface.flat_forward(module, examples.names, examples.constants),
        whole_recurrences(),
        spelled_out(),
        quiet(),
        torch.no_grad(),
    ):
        program = torch.onnx.export(
            module,
            tensors,
            dynamo=True,
            optimize=False,
            dynamic_shapes=dynamic if any(dynamic) else None,
            custom_translation_table=translations(),
            verbose=False,
        )
    assert program is not None
    model = program.model
    finish(model, examples.names, examples.outputs)
    rename_sizes(model, size_names(examples.inputs, model))
    return model


def finish(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str | None]) -> None:
    """Names of inputs and outputs as the module has them; weights as arrays, not copied.

    An output that is an input, or another output too, gets a tensor of its own.
    """
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy(), name=name)
    for node in model.graph:
        stack = node.metadata_props.get(STACK)
        if stack:
            node.metadata_props[STACK] = OWN_FRAME.sub("", stack)
    taken = {v.name for v in (*model.graph.inputs, *model.graph.initializers.values())}
    taken |= {v.name for node in model.graph for v in node.outputs}
    seen = set(model.graph.inputs)
    for place, value in enumerate(model.graph.outputs):
        if value in seen or value.is_initializer():
            copy = ir.node("Identity", [value])
            copy.outputs[0].name = _free(f"{value.name}_out", taken)
            copy.outputs[0].shape, copy.outputs[0].type = value.shape, value.type
            model.graph.append(copy)
            model.graph.outputs[place] = copy.outputs[0]
        seen.add(value)
    if len(inputs) == len(model.graph.inputs):
        _rename(list(model.graph.inputs), inputs, taken)
    if len(outputs) == len(model.graph.outputs):
        _rename(list(model.graph.outputs), outputs, taken)


def _rename(values: Sequence[ir.Value], names: Sequence[str | None], taken: set[Any]) -> None:
    for value, name in zip(values, names, strict=True):
        if name and name != value.name:
            taken.discard(value.name)
            value.name = _free(name, taken)


def _free(name: str, taken: set[Any]) -> str:
    """`name`, or `name_1`, ... if something else has it; from now on taken."""
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the exporter tells about itself; other threads may go on logging."""
    known = ("torch", "onnxscript", "onnx_ir")
    names = [name for name in logging.Logger.manager.loggerDict if name.split(".")[0] in known]
    loggers = [logging.getLogger(name) for name in {*known, *names}]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
