"""A TorchScript program (`torch.jit.save`), by torch's older exporter."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.graph.sources.agreement import Agreement, agreement
from studio.graph.sources.examples import Examples, find_examples
from studio.graph.sources.explain import decisive_line, describe
from studio.graph.sources.interface import (
    forward_parameters,
    required_names,
    wants_python_value,
)
from studio.graph.sources.sizes import SPATIAL, OpenSizes, open_sizes
from studio.graph.sources.source import ModelSource

if TYPE_CHECKING:
    import torch

OPSET = 17
LARGEST = 2**31 - 2**20
"""Bytes of weights: the older exporter writes one protobuf message."""
WAY_OUT = "Open the Python code it was made from, as file.py:factory."


def capture_script(source: ModelSource) -> ModelGraph:
    """Load, translate and check against the program, at the example's sizes and at others.

    The caller has the user's consent to running the program. Raises ModelError if it cannot be
    translated, or not with the same results.
    """
    import torch

    path = source.path
    assert path is not None
    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:
        raise ModelError(f"{path.name} cannot be loaded: {describe(error)}", WAY_OUT) from error
    weights = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    if weights > LARGEST:
        raise ModelError(
            f"{path.name} has {weights / 2**30:.1f} GiB of weights; of TorchScript at most 2 can be"
            " read.",
            WAY_OUT,
        )
    plain = [p.name for p in forward_parameters(module) if wants_python_value(p)]
    passed = [name for name in plain if name in (*required_names(module), *source.fixed_inputs)]
    if passed:
        raise ModelError(
            f"{path.name} takes a plain number besides tensors ({', '.join(passed)}). What"
            " translates TorchScript can neither pass nor fix one.",
            "Open the Python code it was made from, as file.py:factory with --fix"
            f" {passed[0]}=VALUE; or the same model as .onnx, if it is published so.",
        )
    # Fixed inputs become constants of the graph afterwards.
    examples = find_examples(module, replace(source, fixed_inputs={}))
    found = open_sizes(module, examples, batch_only=source.fixed_size)
    for sizes in dict.fromkeys((found, found.batch, OpenSizes(frozenset(), found.batch_problem))):
        model = ir.from_proto(_export(module, examples, sizes, source))
        if agreement(model, module, examples, sizes) is Agreement.FULL:
            return _graph(model, examples, sizes, found, source)
    raise ModelError(
        f"{path.name} was translated, but computes something else then.",
        f"{WAY_OUT} TorchScript's exporter is no longer developed.",
    )


def _graph(
    model: ir.Model,
    examples: Examples,
    sizes: OpenSizes,
    found: OpenSizes,
    source: ModelSource,
) -> ModelGraph:
    notes = [examples.note] if examples.note else []
    if not sizes.batch.axes:
        first = next((item.shape[0] for item in examples.inputs if item.shape), 1)
        reason = found.batch_problem or "the program was traced with it"
        notes.append(f"The batch size is fixed at {first}: {reason}.")
    known = replace(source, inputs=examples.inputs)
    return ModelGraph(model, known, (), tuple(notes))


def _export(
    module: torch.jit.ScriptModule, examples: Examples, sizes: OpenSizes, source: ModelSource
) -> onnx.ModelProto:
    import torch

    from studio.graph.torch_module import quiet

    names = examples.names
    outputs = [name or f"output_{i}" for i, name in enumerate(examples.outputs)]
    buffer = io.BytesIO()
    try:
        with quiet(), _no_log(), torch.no_grad():
            torch.onnx.export(
                module,
                examples.tensors(),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=outputs if len(outputs) > 1 else ["output"],
                dynamic_axes=_axis_names(examples, sizes),
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,  # or it would fold batch norms itself
            )
    except Exception as error:
        raise ModelError(
            f"{source.name} cannot be translated: {decisive_line(error)}",
            f"{WAY_OUT} TorchScript's exporter is no longer developed.",
        ) from error
    return onnx.load_model_from_string(buffer.getvalue())


@contextlib.contextmanager
def _no_log() -> Iterator[None]:
    """On an error, the exporter would print the whole program, whatever its log is set to."""
    import torch

    own = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *words: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = own


def _axis_names(examples: Examples, sizes: OpenSizes) -> dict[str, dict[int, str]]:
    named: dict[str, dict[int, str]] = {}
    for place, item in enumerate(examples.inputs):
        spatial = SPATIAL.get(len(item.shape), ())
        for axis in range(len(item.shape)):
            if (place, axis) in sizes.axes:
                inner = axis >= 2 and axis - 2 < len(spatial)
                batch = (place, axis) in sizes.batch_axes
                plain = "batch" if batch else spatial[axis - 2] if inner else f"size_{axis}"
                own = plain if place == 0 or batch else f"{item.name}_{plain}"
                named.setdefault(item.name or "", {})[axis] = own
    return named
