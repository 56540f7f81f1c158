"""Load a file of weights into a PyTorch module, without executing anything in it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

SHOWN = 5
CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
OTHER_MODEL = "Choose the weights that belong to this model."


def load_weights(module: nn.Module, path: Path) -> None:
    """Load `.safetensors`, `.pth` or `.pt`; every key and shape must fit.

    Raises ModelError with the first few missing, unexpected or misshapen entries.
    """
    state = read_weights(path)
    own = module.state_dict()
    if state and all(key.startswith("module.") for key in state):  # saved by DataParallel
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} ({_shape(state[key])} in the file, {_shape(own[key])} in the model)"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{word}: {', '.join(keys[:SHOWN])}"
        + (f" and {len(keys) - SHOWN} more" if keys[SHOWN:] else "")
        for word, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise ModelError(f"{path.name} does not fit the model; {'; '.join(problems)}.", OTHER_MODEL)
    module.load_state_dict(state, strict=False)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name; a checkpoint's other entries are left out."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist.", "Check the name of the weights file.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return _read_torch(path)
    raise ModelError(
        f"{path.name} is not a known kind of weights file.",
        "Use .safetensors, or .pth / .pt made by torch.save(model.state_dict(), path).",
    )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path.name} cannot be read as safetensors: {error}.", "Copy or save the file again."
        ) from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    import torch

    save = "Save only the tensors: torch.save(model.state_dict(), path), or use .safetensors."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path.name} holds Python objects besides tensors; they are not loaded, for that could"
            " execute code.",
            save,
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        lines = str(error).splitlines() or ["it is damaged"]
        raise ModelError(
            f"{path.name} cannot be read: {lines[0].rstrip('.')}.",
            "Copy or save the file again; it may be incomplete.",
        ) from error
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{path.name} holds no dictionary of tensors.", save)
    if not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()):
        raise ModelError(f"{path.name} holds no plain dictionary of tensors.", save)
    return content


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
