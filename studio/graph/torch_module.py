"""Open a PyTorch model: a Python file with a factory that returns the module."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from studio.errors import ConsentRequiredError, ModelError
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.torch_weights import load_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

SHAPES_HINT = "Give the shape of each input with its batch dimension, for example 1,3,224,224."
Shapes = tuple[tuple[int, ...], ...]


def capture(source: ModelSource, *, trust: bool) -> ModelGraph:
    """Run the file, call the factory, and turn the module (in eval mode) into a graph.

    The batch (axis 0 of every input) is dynamic where the module allows it, else a warning says
    why not. Module names and source lines are kept as node metadata. No file is written.

    Raises ConsentRequiredError unless `trust`, for opening Python code executes it; ModelError for
    whatever fails: importing, the factory, the weights, the shapes, the export.
    """
    if not trust:
        raise ConsentRequiredError(
            f"Opening {source.path.name} executes the Python code in it.",
            "Agree to that only if you trust the file (--trust on the command line).",
        )
    with _importable(source.path.parent):
        module = build_module(source)
        shapes, guessed = source.input_shapes, False
        if not shapes:
            shapes, guessed = _guess_shapes(module, source), True
        model, fixed = _export(module, shapes, source, guessed)
    notes: tuple[str, ...] = ()
    if guessed:
        shown = ", ".join("×".join(map(str, shape)) for shape in shapes)
        notes = (f"The input shape was not given; {shown} was assumed.",)
    return ModelGraph(model, source, (), (*notes, *fixed))


def build_module(source: ModelSource) -> nn.Module:
    """The module of `source` with its weights, on the CPU, in eval mode. Executes the file."""
    from torch import nn

    with _importable(source.path.parent):
        namespace = _import_file(source.path)
        factory = _factory(namespace, source)
        try:
            module = factory()
        except Exception as error:
            raise ModelError(
                f"{source.name}() failed: {_describe(error, source.path)}",
                "The factory must be callable without arguments and return the module.",
            ) from error
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"{source.name}() returned {type(module).__name__}, not a torch.nn.Module.",
                "Make the factory return the module alone.",
            )
    module = module.to("cpu").eval()
    if source.weights is not None:
        load_weights(module, source.weights)
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let files in `folder` be imported; afterwards nothing imported from there is remembered.

    So a changed file is read anew the next time, and a `utils.py` of one model does not stand in
    for that of another. Bytecode is not written.
    """
    path, modules, bytecode = list(sys.path), dict(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder.resolve()))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:] = path
        sys.dont_write_bytecode = bytecode
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name not in modules and file and Path(file).is_relative_to(folder.resolve()):
                del sys.modules[name]


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"{path} does not exist.", "Check the name of the Python file.")
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else "_model_file"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is not a Python file.", "Give a .py file, as file.py:factory.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{path.name} needs the module {error.name!r}, which is not installed.",
            "Install it into the studio's Python environment, or put it beside the file.",
        ) from error
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{path.name} cannot be imported: {_describe(error, path)}",
            "Make sure that `python` alone can import the file.",
        ) from error
    return module


def _factory(namespace: ModuleType, source: ModelSource) -> Callable[[], Any]:
    factory = getattr(namespace, source.factory or "", None)
    if callable(factory):
        return factory
    own = sorted(
        (inspect.isclass(value), name)
        for name, value in vars(namespace).items()
        if getattr(value, "__module__", None) == namespace.__name__
        and (inspect.isfunction(value) or inspect.isclass(value))
        and not name.startswith("_")
    )
    names = ", ".join(name for _, name in own[:8])  # functions first
    hint = f"It defines {names}." if own else "It defines no function or class."
    raise ModelError(f"{source.path.name} has no callable {source.factory!r}.", hint)


def _guess_shapes(module: nn.Module, source: ModelSource) -> Shapes:
    """The usual shape for a module whose first layer is a 2-D convolution over colour or grey."""
    from torch import nn

    for layer in module.modules():
        if next(layer.parameters(recurse=False), None) is None:
            continue
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3:
            return ((1, 3, 224, 224),)
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 1:
            return ((1, 1, 28, 28),)
        break
    raise ModelError(f"The shape of the input of {source.name} is not known.", SHAPES_HINT)


def _examples(module: nn.Module, shapes: Shapes, batch: int | None) -> tuple[torch.Tensor, ...]:
    """Random inputs; token numbers (zeros) for a module that begins with an embedding."""
    import torch
    from torch import nn

    layers = [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]
    tokens = bool(layers) and isinstance(layers[0], nn.Embedding)
    generator = torch.Generator().manual_seed(0)
    examples = []
    for shape in shapes:
        if shape and batch is not None:
            shape = (max(batch, shape[0]), *shape[1:])
        whole = torch.zeros(shape, dtype=torch.int64)
        examples.append(whole if tokens else torch.randn(shape, generator=generator))
    return tuple(examples)


def _export(
    module: nn.Module, shapes: Shapes, source: ModelSource, guessed: bool
) -> tuple[ir.Model, tuple[str, ...]]:
    """The exported model, and a warning if the batch had to be fixed."""
    import torch

    if any(size < 1 for shape in shapes for size in shape):
        raise ModelError(f"The input shapes {shapes} have sizes below 1.", SHAPES_HINT)
    _try_forward(module, shapes, source, guessed)
    batch = torch.export.Dim("batch")
    dynamic = tuple({0: batch} if shape else {} for shape in shapes)
    reason = "its inputs have no batch dimension"
    if any(dynamic):
        try:
            # with a batch of 1, torch takes 1 for a constant
            model = _run_exporter(module, _examples(module, shapes, 2), dynamic)
            if not any(v.shape and isinstance(v.shape[0], int) for v in model.graph.inputs):
                return model, ()
            reason = "the module's code depends on it"
        except Exception as error:
            reason = _decisive_line(error)
    try:
        model = _run_exporter(module, _examples(module, shapes, None), None)
    except Exception as error:
        raise ModelError(
            f"{source.name} cannot be exported: {_decisive_line(error)}",
            "Rewrite the part named so that torch.export can follow it.",
        ) from error
    return model, (f"The batch size is fixed at {shapes[0][0] if shapes[0] else 1}: {reason}.",)


def _try_forward(module: nn.Module, shapes: Shapes, source: ModelSource, guessed: bool) -> None:
    """One ordinary call: its errors are far easier to understand than the exporter's."""
    import torch

    try:
        with torch.no_grad():
            module(*_examples(module, shapes, None))
    except Exception as error:
        shown = ", ".join("×".join(map(str, shape)) for shape in shapes)
        how = "assumed" if guessed else "given"
        raise ModelError(
            f"{source.name} does not accept inputs of the {how} shape {shown}:"
            f" {_describe(error, source.path)}",
            SHAPES_HINT,
        ) from error


def _run_exporter(
    module: nn.Module, examples: tuple[torch.Tensor, ...], dynamic: tuple[Any, ...] | None
) -> ir.Model:
    import torch

    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module, examples, dynamo=True, optimize=False, dynamic_shapes=dynamic, verbose=False
        )
    assert program is not None
    model = program.model
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:  # leave the module's own tensors alone
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=name)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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


def _describe(error: BaseException, file: Path) -> str:
    """`TypeError: text (model.py:12)`: the line of the user's file where it happened."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({Path(error.filename or file).name}:{error.lineno})"
    text = str(error).strip().splitlines()
    where = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(file.resolve().parent)
    ]
    place = f" ({Path(where[-1].filename).name}:{where[-1].lineno})" if where else ""
    return f"{type(error).__name__}: {text[0] if text else 'no message'}{place}"


def _decisive_line(error: BaseException) -> str:
    """The first line of the exception that started it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
