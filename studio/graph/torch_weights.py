"""Load a file of weights into a PyTorch module, without executing anything in it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import ModelError
from studio.graph.sources import pickles
from studio.graph.sources.archive import AGAIN, ZIP_MAGIC, read_archive

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
SAVE = "Save only the tensors: torch.save(model.state_dict(), path), or use .safetensors."
LARGEST_HEADER = 2**23
"""Bytes of the table at the beginning of a .safetensors file: some 80,000 tensors."""

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
    from safetensors.torch import load_file

    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > LARGEST_HEADER:
        raise ModelError(
            f"{path.name} claims a table of {header} bytes; no file of weights has that.", AGAIN
        )
    try:
        return _plain(load_file(path), path)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path.name} cannot be read as safetensors: {error}.", AGAIN) from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    """What is in the pickle is looked at first: torch would follow one of any length or depth."""
    import torch

    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(ZIP_MAGIC):
        entries = read_archive(path)
        if "data.pkl" not in entries or "constants.pkl" in entries:
            raise ModelError(f"{path.name} holds no weights of torch.save.", SAVE)
        foreign = pickles.in_archive(path, entries)
    elif head.startswith(pickles.LEGACY_MAGIC):
        foreign = pickles.in_file(path)
    else:
        raise ModelError(f"{path.name} is {pickles.described(head)}.", SAVE)
    if foreign:
        raise _not_only_tensors(path, f" ({_listed(list(foreign))})")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _not_only_tensors(path, "") from error
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(f"{path.name} cannot be read: {reason.rstrip('.')}.", AGAIN) from error
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{path.name} holds no dictionary of tensors.", SAVE)
    if not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()):
        raise ModelError(f"{path.name} holds no plain dictionary of tensors.", SAVE)
    return _plain(content, path)


def _not_only_tensors(path: Path, which: str) -> ModelError:
    return ModelError(
        f"{path.name} holds Python objects besides tensors{which}; they are not loaded, for that"
        " could execute code.",
        SAVE,
    )


def _plain(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """`state`, if all tensors are of the ordinary kind."""
    for name, tensor in state.items():
        if kind := _peculiar(tensor):
            raise ModelError(
                f"The weights {name!r} in {path.name} are {kind}.",
                "Save them as plain tensors, in floating point.",
            )
    return state


def _peculiar(tensor: torch.Tensor) -> str:
    """What a tensor is that is not simply numbers in memory; else empty."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized:
        return "quantized"
    if tensor.device.type != "cpu":
        return "without numbers"
    return "" if str(tensor.layout) == "torch.strided" else "sparse"


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
