"""Load a file of weights into a PyTorch module, without executing anything in it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import ModelError
from studio.graph.sources.archive import read_archive

if TYPE_CHECKING:
    import torch
    from torch import nn

SHOWN = 5
CONTAINERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params",
    "ema", "ema_state_dict", "state_dict_ema", "model_ema", "params_ema",
)  # fmt: skip
"""Entries of a checkpoint that hold the weights; averaged ones only where there are no others."""

PREFIXES = ("", "module.", "_orig_mod.", "model.", "net.", "network.")
"""What DataParallel, torch.compile and training frameworks put before the names of weights."""

OTHER_MODEL = "Choose the weights that belong to this model."
ASSIGNED = 2**30
"""Bytes of weights from which on they take the place of the module's own instead of being copied
into them: for a moment, both have to fit into memory."""


def load_weights(module: nn.Module, path: Path) -> tuple[str, ...]:
    """Load `.safetensors`, `.pth` or `.pt`; every weight of the module must be there and fit.

    Returns notes: which entries of the file the module has no use for. Raises ModelError with the
    first few missing, unexpected or misshapen entries.
    """
    own = module.state_dict()
    state = _named_as(own, read_weights(path))
    places = {name: tensor.data_ptr() for name, tensor in own.items() if tensor.numel()}
    given = {places[name] for name in state if name in places}  # tied weights are stored once
    missing = [
        k
        for k in own
        if k not in state and not k.endswith("num_batches_tracked") and places.get(k) not in given
    ]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} ({_shape(state[key])} in the file, {_shape(own[key])} in the model)"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or misshapen or len(unexpected) == len(state):
        problems = [
            f"{word}: {_listed(keys)}"
            for word, keys in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("wrong shape", misshapen),
            )
            if keys
        ]
        raise ModelError(f"{path.name} does not fit the model; {'; '.join(problems)}.", OTHER_MODEL)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    tied = len(set(places.values())) < len(places)
    same = all(state[key].dtype == own[key].dtype for key in state if key in own)
    assign = size > ASSIGNED and same and not tied
    module.load_state_dict(state, strict=False, assign=assign)
    if not unexpected:
        return ()
    return (f"{path.name} has weights that the model does not use: {_listed(unexpected)}.",)


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if keys[SHOWN:] else "")


def _named_as(
    own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """`state` without the prefixes that keep its names from being those of `own`."""
    best, matched = state, sum(key in own for key in state)
    for first in PREFIXES:
        for second in PREFIXES:
            prefix = first + second
            renamed = {
                key.removeprefix(prefix).replace("._orig_mod.", "."): tensor
                for key, tensor in state.items()
            }
            count = sum(key in own for key in renamed)
            if count > matched and len(renamed) == len(state):
                best, matched = renamed, count
    return best


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name; a checkpoint's other entries are left out."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist.", "Check the name of the weights file.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
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
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped:
        read_archive(path)
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
