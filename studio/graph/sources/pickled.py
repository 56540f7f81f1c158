"""A whole module pickled by torch.save(module, path). Loading one runs code that is in the file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.graph.sources.explain import describe
from studio.graph.sources.kinds import weights_only
from studio.graph.sources.python_source import unwrap
from studio.graph.sources.source import ModelSource

if TYPE_CHECKING:
    from torch import nn

ENTRIES = ("ema", "model", "net", "module", "network")
"""Where training scripts put the module in a checkpoint; averaged weights are the better ones."""

FROM_CODE = "Open the model's Python code as file.py:factory, and give its weights as a file."


def capture_pickled(source: ModelSource) -> ModelGraph:
    """Unpickle and trace. The caller has the user's consent to running what is in the file.

    Raises ModelError, which names the module of Python that is missing if one is.
    """
    from studio.graph.torch_module import capture_module

    module, notes = load_module(source)
    return capture_module(module, source, notes)


def load_module(source: ModelSource) -> tuple[nn.Module, tuple[str, ...]]:
    """The module in the file, on the CPU, in eval mode and in float32; notes. Executes code."""
    import torch
    from torch import nn

    path = source.path
    assert path is not None
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{path.name} needs the Python module {error.name!r}, which is not installed: a pickle"
            " holds the names of classes, not their code.",
            f"Install it into the studio's Python environment. {FROM_CODE}",
        ) from error
    except AttributeError as error:
        raise ModelError(
            f"{path.name} needs a class that is not there: {error}.",
            f"Use the version of the code that made the file. {FROM_CODE}",
        ) from error
    except (Exception, pickle.UnpicklingError) as error:
        raise ModelError(f"{path.name} cannot be loaded: {describe(error)}", FROM_CODE) from error
    module, notes = _module_in(content)
    if module is None:
        if isinstance(content, Mapping):
            raise weights_only(path)
        raise ModelError(
            f"{path.name} holds {type(content).__name__}, not a torch.nn.Module.", FROM_CODE
        )
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"{path.name} holds no plain torch.nn.Module.", FROM_CODE)
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())
    if half:
        module = module.float()
        notes = (*notes, "The weights were in 16-bit floats; they are used in float32.")
    return unwrap(module), notes


def _module_in(content: Any) -> tuple[nn.Module | None, tuple[str, ...]]:
    from torch import nn

    if isinstance(content, nn.Module):
        return content, ()
    if isinstance(content, Mapping):
        for key in ENTRIES:
            if isinstance(content.get(key), nn.Module):
                return content[key], (f"The module is the entry {key!r} of the checkpoint.",)
    return None, ()
