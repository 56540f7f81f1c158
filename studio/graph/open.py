"""Open a model, whatever kind of file it comes from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from studio.errors import ModelError, UnsupportedOpsError
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.prepare import prepare

PYTHON_SOURCE = re.compile(r"^(?P<file>.+\.py)(?::(?P<factory>[A-Za-z_]\w*))?$")

# Given a prepared graph, the operators that cannot be executed, with their layers.
Check = Callable[[ModelGraph], dict[str, list[str]]]


def parse_source(
    source: str | Path | ModelSource,
    *,
    factory: str | None = None,
    weights: str | Path | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
) -> ModelSource:
    """`model.onnx`, `file.py:factory` or a path with a separate factory, as a ModelSource.

    Raises ModelError if the kind of file is unknown or a Python file has no factory.
    """
    if isinstance(source, ModelSource):
        return source
    text = str(source)
    match = PYTHON_SOURCE.match(text)
    if match:
        factory = match["factory"] or factory
        if factory is None:
            raise ModelError(
                f"{Path(text).name} is Python code; which function makes the model is not said.",
                f"Write {Path(text).name}:NAME with the name of a function that returns it.",
            )
        shapes = tuple(tuple(int(size) for size in shape) for shape in input_shapes or ())
        return ModelSource(
            Path(match["file"]), factory, None if weights is None else Path(weights), shapes
        )
    path = Path(text)
    if path.suffix in (".pth", ".pt", ".safetensors", ".bin", ".ckpt"):
        raise ModelError(
            f"{path.name} holds weights only, not the model's structure.",
            "Open the model's Python code as file.py:factory, and give this file as its weights.",
        )
    if factory is not None or weights is not None:
        raise ModelError(
            f"{path.name} is no Python file; a factory or weights file is of no use with it.",
            "Leave them out, or open a .py file.",
        )
    return ModelSource(path)


def open_model(
    source: str | Path | ModelSource,
    *,
    factory: str | None = None,
    weights: str | Path | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
    trust: bool = False,
    check: Check | None = None,
) -> ModelGraph:
    """Open and prepare a model.

    `source` is an `.onnx` file or `file.py:factory`; `weights` and `input_shapes` (with the batch
    dimension) belong to the latter. `trust` agrees to executing the Python file. `check` names what
    no engine can run.

    Raises ModelError, ConsentRequiredError, and UnsupportedOpsError with all those operators.
    """
    parsed = parse_source(source, factory=factory, weights=weights, input_shapes=input_shapes)
    if parsed.is_python:
        from studio.graph.torch_module import capture

        raw = capture(parsed, trust=trust)
    else:
        from studio.graph.onnx_file import load_onnx

        raw = load_onnx(parsed.path)
    graph = prepare(raw)
    unsupported = check(graph) if check is not None else {}
    if unsupported:
        raise UnsupportedOpsError(unsupported)
    return graph
