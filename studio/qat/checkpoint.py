"""Checkpoints of a training: tensors in safetensors, all else in JSON, written as one.

A checkpoint is `state.safetensors` and, written after it, `state.json` with the name of the run it
belongs to. A process that is killed leaves the last complete pair.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.data.dataset import Dataset
from studio.errors import ConfigError
from studio.qat.options import QatOptions
from studio.sim.quantized_model import QuantizedModel
from studio.whole_files import write_error, write_text

_TENSOR = "tensor:"


@dataclass(frozen=True)
class Checkpoint:
    """`run` names options, data and model; `state` is made of dictionaries with text keys, lists,
    tensors, numbers, text and None."""

    run: str
    state: dict[str, Any]


def run_name(model: QuantizedModel, data: Dataset, batch: int, options: QatOptions) -> str:
    """A name of the training of `model` on `data` in batches of `batch` samples of all processes:
    another one has other options, data, weights or encodings at its start."""
    named = options.model_copy(update={"checkpoints": None})
    parts = [named.model_dump_json(), data.name, str(len(data)), str(batch)]
    for name in sorted(model.graph.initializers):
        parts += [name, _digest(model.graph.constant(name))]
    for name, item in sorted(model.encodings.items()):
        parts += [name, str(item.grid), _digest(item.scale), _digest(item.zero_point)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`; ExportError if that is not possible."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    outline = _outline(checkpoint.state, tensors)
    number = _number(folder) + 1
    path = folder / f"state-{number}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{path.name}.{os.getpid()}.tmp"
        save_file(tensors, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(folder, error) from error
    content = {"version": 1, "run": checkpoint.run, "number": number, "state": outline}
    write_text(folder / "state.json", json.dumps(content))
    for old in folder.glob("state-*.safetensors"):
        if old != path:
            old.unlink(missing_ok=True)


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`, None if there is none; ConfigError if it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "state.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(folder / f"state-{int(content['number'])}.safetensors")
        return Checkpoint(str(content["run"]), _filled(content["state"], tensors))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _unreadable(folder, error) from None


@dataclass(frozen=True)
class Saved:
    """How far the training of a checkpoint is: `step` of `total` done, with `options` as JSON,
    written at `time` (seconds since 1970)."""

    step: int
    total: int
    options: dict[str, Any]
    time: float


def saved(folder: Path) -> Saved | None:
    """What the checkpoint in `folder` says of itself, its tensors unread; None and ConfigError as
    `load`."""
    path = folder / "state.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        state = dict(content["state"]["items"])
        options = _filled(state["options"], {})
        return Saved(int(state["step"]), int(state["total"]), options, path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder, error) from None


def remove(folder: Path) -> None:
    """Delete the checkpoint in `folder`, and the folder if nothing else is in it."""
    for path in (folder / "state.json", *folder.glob("state-*.safetensors")):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _unreadable(folder: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"The checkpoint in {folder} cannot be read: {error}.",
        "Delete the folder to train from the start.",
    )


def _number(folder: Path) -> int:
    numbers = [int(path.stem.partition("-")[2]) for path in folder.glob("state-*.safetensors")]
    return max(numbers, default=0)


def _outline(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` for JSON, its tensors put into `tensors` under numbers."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return _TENSOR + name
    if isinstance(value, dict):
        # JSON has text keys only; optimizers number their parameters.
        return {"items": [[key, _outline(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_outline(item, tensors) for item in value]
    return value


def _filled(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    if isinstance(value, dict):
        return {key: _filled(item, tensors) for key, item in value["items"]}
    if isinstance(value, list):
        return [_filled(item, tensors) for item in value]
    return value


def random_state() -> dict[str, Any]:
    """What torch's random numbers go on from."""
    return {"torch": torch.get_rng_state()}


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
