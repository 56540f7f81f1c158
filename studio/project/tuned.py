"""What techniques made of a model, beside its project file: constants, encodings, operators."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter

from studio.errors import ConfigError
from studio.graph.additions import Additions, additions_of, with_additions
from studio.graph.model import ModelGraph
from studio.project.document import Document
from studio.project.techniques import with_model
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid, Grid
from studio.sim.quantized_model import QuantizedModel, quantized_model
from studio.techniques.applied import Applied
from studio.whole_files import write_error

_APPLIED: TypeAdapter[tuple[Applied, ...]] = TypeAdapter(tuple[Applied, ...])


class _Given(BaseModel):
    """An encoding, its arrays apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grid: Grid | FloatGrid
    axis: int | None
    block_size: int | None


class _Added(BaseModel):
    """Nodes that something was added to, the arrays apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()


class Tuned(BaseModel):
    """`file` in the project's folder holds the arrays: `constant/NAME`, for each entry of `given`
    `scale/NAME`, `zero_point/NAME` and perhaps `integer_scale/NAME`, and for what was `added` to
    the graph `lower/NAME`, `upper/NAME` and `factor/NAME`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    applied: tuple[Any, ...]
    given: dict[str, _Given]
    added: _Added = _Added()


def save_tuned(document: Document, path: Path) -> Tuned | None:
    """Write what techniques made of `document` into a file beside the project `path`; None if there
    is nothing. Raises ExportError."""
    from safetensors.numpy import save

    if not document.applied:
        return None
    arrays = {f"constant/{name}": document.graph.constant(name) for name in sorted(document.tuned)}
    for name, encoding in document.given.items():
        arrays[f"scale/{name}"] = encoding.scale
        arrays[f"zero_point/{name}"] = encoding.zero_point
        if encoding.integer_scale is not None:
            arrays[f"integer_scale/{name}"] = encoding.integer_scale
    additions = additions_of(document.graph)
    for name, (lower, upper) in additions.clips.items():
        arrays |= {f"lower/{name}": lower, f"upper/{name}": upper}
    arrays |= {f"factor/{name}": factor for name, factor in additions.scales.items()}
    content = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    # Another name for another content: the old project stays whole until its file is replaced.
    file = f"{path.stem}.{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    temporary = path.parent / f".{file}.{os.getpid()}.tmp"
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path.parent / file)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    given = {
        name: _Given(grid=item.grid, axis=item.axis, block_size=item.block_size)
        for name, item in document.given.items()
    }
    added = _Added(
        clips=tuple(additions.clips),
        biases=tuple(sorted(additions.biases)),
        scales=tuple(additions.scales),
    )
    applied = tuple(map(asdict, document.applied))
    return Tuned(file=file, applied=applied, given=given, added=added)


def remove_other_files(path: Path, tuned: Tuned | None) -> None:
    """Delete the files that earlier versions of the project `path` belonged to."""
    for other in path.parent.glob(f"{path.stem}.{'[0-9a-f]' * 12}.safetensors"):
        if tuned is None or other.name != tuned.file:
            other.unlink(missing_ok=True)


def with_tuned(document: Document, path: Path, tuned: Tuned) -> Document:
    """`document`, opened and calibrated as before, as the techniques left it.

    Raises ConfigError if the file beside the project `path` is missing or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path.parent / tuned.file)
        given = {name: _encoding(name, item, arrays) for name, item in tuned.given.items()}
        graph = _with_added(document.graph, tuned.added, arrays)
        constants = _constants(graph, arrays)
        applied = _APPLIED.validate_python(tuned.applied)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"{tuned.file}, which belongs to {path}, cannot be used: {error}.",
            "Put it back beside the project, or open the model itself.",
        ) from None
    before = document.model
    model: QuantizedModel = quantized_model(graph, before.config, before.statistics, given).changed(
        constants=constants
    )
    opened = with_model(document, model)
    return replace(opened, applied=applied)


def _with_added(graph: ModelGraph, added: _Added, arrays: Mapping[str, np.ndarray]) -> ModelGraph:
    """Raises KeyError or ValueError for what does not fit the model."""
    additions = Additions(
        {name: (arrays[f"lower/{name}"], arrays[f"upper/{name}"]) for name in added.clips},
        frozenset(added.biases),
        {name: arrays[f"factor/{name}"] for name in added.scales},
    )
    return with_additions(graph, additions) if additions else graph


def _constants(graph: ModelGraph, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Raises ValueError for a constant that the model does not have, or of another shape."""
    constants = {}
    for key, array in arrays.items():
        kind, _, name = key.partition("/")
        if kind != "constant":
            continue
        if name not in graph.initializers:
            raise ValueError(f"the model has no constant {name}")
        if graph.constant(name).shape != array.shape:
            raise ValueError(f"the constant {name} has another shape in the model")
        constants[name] = array
    return constants


def _encoding(name: str, item: _Given, arrays: Mapping[str, np.ndarray]) -> Encoding:
    scale, zero_point = arrays[f"scale/{name}"], arrays[f"zero_point/{name}"]
    if scale.shape != zero_point.shape or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError(f"the encoding of {name} is not valid")
    return Encoding(
        item.grid,
        scale,
        zero_point,
        item.axis,
        item.block_size,
        arrays.get(f"integer_scale/{name}"),
    )
