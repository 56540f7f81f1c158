"""The simulation as a `.pt2` file: plain torch operators that compute what was simulated.

Quantizing is written as torch's own `div`, `round`, `clamp`, `mul`, weights as integers with a
`sub` and a `mul` behind them. `quantized_decomposed::quantize_per_tensor`, which PyTorch's own
flows use, is not: it multiplies by the reciprocal of the scale, so values half-way between two
steps go another way than in onnxruntime and in the simulation; and it is registered only after an
import, so that a fresh process could not load the file with `torch.export.load` alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.errors import ExportError
from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid
from studio.sim.plan import Plan

if TYPE_CHECKING:
    import torch

TRACED_BATCH = 2
"""Samples to trace with: one would fix the batch size."""

SHAPE_LIKE = 64
"""Integer constants of up to that many elements may be shapes and axes."""

UNKNOWN_SIZE = 32
"""Stands for a size that is open in the graph and in the example it was traced with."""


def write_exported_program(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding], path: Path
) -> tuple[str, ...]:
    """Write the simulation of `graph` for `torch.export.load`, which needs torch alone.

    It takes the model's inputs in order and returns its outputs in order. Returns notes: which
    sizes are fixed because torch.export cannot keep them open. Raises ExportError if it cannot
    follow the model or the file cannot be written.
    """
    import torch

    program, notes = exported_program(graph, plan, encodings)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.pt2")
    try:
        torch.export.save(program, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise ExportError(f"Cannot write {path}: {error}.", "Choose another folder.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return notes


def exported_program(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding]
) -> tuple[torch.export.ExportedProgram, tuple[str, ...]]:
    """The simulation as torch.export has it, and notes on sizes that are fixed."""
    import torch

    from studio.graph.torch_module import quiet

    ranged = [name for name, row in plan.tensors.items() if row.dynamic]
    if ranged:
        raise ExportError(
            f"Tensors that are ranged at every inference ({ranged[0]}) cannot be written as .pt2.",
            "Leave this file out, or switch dynamic quantization off.",
        )
    module = _simulation(graph, plan, encodings)
    problem: Exception | None = None
    for trace in (_traced_open, _traced_fixed):
        try:
            # torch.export prints the graph it could not finish.
            with quiet(), torch.no_grad(), redirect_stderr(StringIO()):
                return trace(graph, module)
        except Exception as error:
            problem = error
    raise ExportError(
        f"{graph.source.file_name} cannot be written as .pt2: torch.export cannot follow it: "
        f"{next(iter(str(problem).splitlines()), type(problem).__name__)}",
        "Leave this file out of the export.",
    ) from problem


def _traced_open(
    graph: ModelGraph, module: torch.nn.Module
) -> tuple[torch.export.ExportedProgram, tuple[str, ...]]:
    """By symbolic sizes: those that the operators leave open stay so."""
    import torch

    shapes = _shapes(graph, TRACED_BATCH)
    inputs = tuple(_example(graph, name, shape) for name, shape in shapes.items())
    axes = [_open_axes(graph, name) for name in shapes]
    sizes = tuple(dict.fromkeys(opened, torch.export.Dim.AUTO) for opened in axes)
    program = torch.export.export(module, inputs, dynamic_shapes=(sizes,), strict=False)
    fixed = [
        f"axis {axis} of {name} is {shapes[name][axis]}"
        for name, opened, found in zip(shapes, axes, _traced_sizes(program), strict=True)
        for axis in opened
        if isinstance(found[axis], int)
    ]
    if any(name.startswith("axis 0 ") for name in fixed):
        raise ValueError("the batch size cannot stay open")
    return program, (f"The .pt2 file has fixed sizes: {', '.join(fixed)}.",) if fixed else ()


def _traced_sizes(program: torch.export.ExportedProgram) -> list[Any]:
    """Sizes of the inputs: numbers where they are fixed."""
    users = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    return [node.meta["val"].shape for node in nodes if node.name in users]


def _traced_fixed(
    graph: ModelGraph, module: torch.nn.Module
) -> tuple[torch.export.ExportedProgram, tuple[str, ...]]:
    """By running the model once, for what computes sizes with its numbers."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    shapes = _shapes(graph, 1)
    inputs = tuple(_example(graph, name, shape) for name, shape in shapes.items())
    recorded = make_fx(module, tracing_mode="real")(*inputs)
    program = torch.export.export(recorded, inputs, strict=False)
    shown = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return program, (f"The .pt2 file takes inputs of one size only: {shown}.",)


def _simulation(graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding]) -> Any:
    """A module that runs the simulation; constants are its buffers, quantized ones as integers."""
    import torch

    from studio.exporting.traceable import Numbers, run_plan
    from studio.runtime.ops.dtypes import from_numpy
    from studio.sim.simulator import simulating_executor

    class Simulation(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.integers: dict[str, str] = {}
            rows = {
                name: replace(row, spec=None) if name in graph.initializers else row
                for name, row in plan.tensors.items()
            }
            executor = simulating_executor(graph, replace(plan, tensors=rows), encodings)
            self.names = {
                name: _identifier(name, index) for index, name in enumerate(executor.parameters)
            }
            self.inputs = [value.name or "" for value in graph.inputs]
            outputs = tuple(value.name or "" for value in graph.outputs)
            self.plan = executor._plan(None, tuple(self.inputs), outputs)
            self.numbers: dict[str, tuple[Any, torch.dtype]] = {}
            self.constants: dict[str, str] = {}
            for index, (name, tensor) in enumerate(executor._constants.items()):
                if tensor.dtype == torch.int64 and tensor.numel() <= SHAPE_LIKE:
                    self.numbers[name] = (tensor.tolist(), tensor.dtype)
                else:
                    self.constants[name] = f"{_identifier(name, index)}_integers"
                    self.register_buffer(self.constants[name], tensor)
            host = _host_numbers(self.plan)
            for name in [name for name in self.names if name in host]:
                tensor = executor.parameters[name]
                if tensor.numel() <= SHAPE_LIKE:
                    self.numbers[name] = (tensor.tolist(), tensor.dtype)
                    del self.names[name]
            for name, attribute in self.names.items():
                encoding = encodings.get(name) if plan.tensors[name].spec is not None else None
                if encoding is None:
                    self.register_buffer(attribute, executor.parameters[name])
                    continue
                array = graph.constant(name)
                if isinstance(encoding.grid, FloatGrid):
                    rounded = from_numpy(encoding.quantize_dequantize(array))
                    self.register_buffer(attribute, rounded)
                    continue
                integers = encoding.quantize(array)
                dtype = np.dtype(_storage(encoding.grid.qmin, encoding.grid.qmax))
                self.register_buffer(f"{attribute}_q", from_numpy(integers.astype(dtype)))
                scale, zero_point = encoding.scale, encoding.zero_point.astype(np.int32)
                if encoding.block_size is None:
                    scale, zero_point = (
                        np.asarray(encoding.spread(x, array.shape)) for x in (scale, zero_point)
                    )
                self.register_buffer(f"{attribute}_scale", from_numpy(scale.copy()))
                if zero_point.any():
                    self.register_buffer(f"{attribute}_zero_point", from_numpy(zero_point.copy()))
                self.integers[name] = attribute

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values: dict[str, Any] = {
                name: Numbers(list_of, dtype) for name, (list_of, dtype) in self.numbers.items()
            }
            for name, attribute in self.constants.items():
                values[name] = getattr(self, attribute)
            for name, attribute in self.names.items():
                quantized = name in self.integers
                values[name] = self._dequantized(name) if quantized else getattr(self, attribute)
            values |= dict(zip(self.inputs, inputs, strict=True))
            for name, target, hook in self.plan.feed_hooks:
                values[target] = hook(values[name])
            return tuple(run_plan(self.plan, values))

        def _dequantized(self, name: str) -> torch.Tensor:
            attribute, encoding = self.integers[name], encodings[name]
            integers = getattr(self, f"{attribute}_q").to(torch.int32)

            def spread(what: str) -> torch.Tensor:
                values: torch.Tensor = getattr(self, f"{attribute}_{what}")
                if encoding.block_size is None or encoding.axis is None:
                    return values
                repeated = values.repeat_interleave(encoding.block_size, encoding.axis)
                return repeated.narrow(encoding.axis, 0, integers.shape[encoding.axis])

            if hasattr(self, f"{attribute}_zero_point"):
                integers = integers - spread("zero_point")
            return integers.to(torch.float32) * spread("scale")

    return Simulation().eval()


def _host_numbers(plan: Any) -> set[str]:
    """Constants that operators read as plain numbers alone."""
    host = {step.inputs[i] for step in plan.steps for i in step.host if i < len(step.inputs)}
    data = {slot for step in plan.steps for i, slot in enumerate(step.inputs) if i not in step.host}
    data |= {slot for _, slot in plan.results}
    return {name for name, slot in plan.constants if slot in host - data}


def _storage(lowest: int, highest: int) -> str:
    """The smallest integer type that torch computes with."""
    kinds = ("int8", "uint8", "int16", "int32")
    return next(k for k in kinds if np.iinfo(k).min <= lowest and highest <= np.iinfo(k).max)


def _identifier(name: str, index: int) -> str:
    """`name` as an attribute; unique by the number."""
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', name).lstrip('_') or 'constant'}_{index}"


def _open_axes(graph: ModelGraph, name: str) -> list[int]:
    shape = graph.value(name).shape
    sizes = [] if shape is None else list(shape)
    return [axis for axis, size in enumerate(sizes) if not isinstance(size, int) or size < 1]


def _shapes(graph: ModelGraph, batch: int) -> dict[str, tuple[int, ...]]:
    """Sizes to trace with, by input."""
    found = {}
    for value in graph.inputs:
        name = value.name or ""
        opened = _open_axes(graph, name)
        sizes = [size or UNKNOWN_SIZE for size in graph.example_shape(name)]
        found[name] = tuple(batch if i == 0 and 0 in opened else n for i, n in enumerate(sizes))
    return found


def _example(graph: ModelGraph, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    from studio.runtime.ops.dtypes import TORCH_DTYPES

    dtype = graph.value(name).dtype
    return torch.zeros(shape, dtype=torch.float32 if dtype is None else TORCH_DTYPES[dtype])
