"""PyTorch code: a Python file or an installed package with a callable that returns the module."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.graph.sources.explain import describe, wanted_network
from studio.graph.sources.source import ModelSource, parse_call
from studio.graph.torch_weights import load_weights

if TYPE_CHECKING:
    from torch import nn


def capture_python(source: ModelSource) -> ModelGraph:
    """Run the code, call the factory, load the weights, and trace the module.

    Raises ModelError for whatever fails: importing, the factory, the weights, the inputs, the
    export.
    """
    from studio.graph.torch_module import capture_module

    with _importable(source):
        module, notes = _build(source)
        return capture_module(module, source, notes)


def build_module(source: ModelSource) -> nn.Module:
    """The module of `source` with its weights, on the CPU, in eval mode. Executes code."""
    return _build(source)[0]


def _build(source: ModelSource) -> tuple[nn.Module, tuple[str, ...]]:
    """The module, and notes on its weights."""
    from torch import nn

    folder = None if source.path is None else source.path.parent
    with _importable(source):
        namespace = _import_package(source) if source.path is None else _import_file(source.path)
        name, arguments = parse_call(source.factory or "")
        factory = _factory(namespace, name, source)
        try:
            module = factory(**arguments)
        except Exception as error:
            raise _factory_error(error, source, folder) from error
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"{source.name}() returned {type(module).__name__}, not a torch.nn.Module.",
                "Make the factory return the module alone.",
            )
    module = unwrap(module)
    notes = () if source.weights is None else load_weights(module, source.weights)
    return module, notes


def unwrap(module: nn.Module) -> nn.Module:
    """The module itself, out of torch.compile and DataParallel; on the CPU, in eval mode."""
    from torch import nn

    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and type(module).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            return module.to("cpu").eval()
        module = inner


@contextlib.contextmanager
def _importable(source: ModelSource) -> Iterator[None]:
    """Let files beside `source` be imported; afterwards nothing imported from there is remembered.

    So a changed file is read anew the next time, and a `utils.py` of one model does not stand in
    for that of another. Bytecode is not written. Installed packages need nothing of this.
    """
    if source.path is None:
        yield
        return
    folder = source.path.parent.resolve()
    path, modules, bytecode = list(sys.path), dict(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:] = path
        sys.dont_write_bytecode = bytecode
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name not in modules and file and Path(file).is_relative_to(folder):
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
    except (Exception, SystemExit) as error:
        raise _import_error(error, path.name, path.parent) from error
    return module


def _import_package(source: ModelSource) -> ModuleType:
    name = source.module or ""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise ModelError(
                f"The package {error.name!r} is not installed.",
                "Install it into the studio's Python environment, or open a file as"
                " file.py:factory.",
            ) from None
        raise _import_error(error, name, None) from error


def _import_error(error: BaseException, name: str, folder: Path | None) -> ModelError:
    if isinstance(error, ModuleNotFoundError):
        where = ", or put it beside the file" if folder is not None else ""
        return ModelError(
            f"{name} needs the module {error.name!r}, which is not installed.",
            f"Install it into the studio's Python environment{where}.",
        )
    return ModelError(
        f"{name} cannot be imported: {describe(error, folder)}",
        "Make sure that `python` alone can import it.",
    )


def _factory(namespace: ModuleType, name: str, source: ModelSource) -> Callable[..., Any]:
    factory: Any = namespace
    for part in name.split("."):
        factory = getattr(factory, part, None)
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
    raise ModelError(f"{source.file_name} has no callable {name!r}.", hint)


def _factory_error(error: Exception, source: ModelSource, folder: Path | None) -> ModelError:
    said = f"{source.name}() failed: {describe(error, folder)}"
    if wanted_network(error):
        return ModelError(
            f"{said} It tried to download something.",
            "Make it without: with an argument such as pretrained=False, and a file of weights.",
        )
    return ModelError(
        said,
        "The factory must return the module; give what it needs as NAME(argument=value).",
    )
