"""What versions 0.6.1 and 1.0.0 share: grids by bits, symmetry and offset; files of two parts.

Sign convention: real = (q + offset) * scale with unsigned q, so offset = qmin - zero_point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.exporting.encodings.fields import EntryError
from studio.exporting.encodings.stored import EncodingsFile
from studio.quant.grid import Grid


def grid_of(bits: int, symmetric: bool, offset: npt.NDArray[np.int64]) -> Grid:
    """The grid behind an offset. Symmetric integers are taken as signed: -128 of 8 bits, -127 where
    the lowest integer is left out (strict), 0 where no value is negative (unsigned symmetric)."""
    if not symmetric:
        return Grid(bits, signed=False, symmetric=False)
    half = 2 ** (bits - 1)
    if (offset == 1 - half).all():
        return Grid(bits, signed=True, symmetric=True, strict=True)
    if (offset == 0).all():
        return Grid(bits, signed=False, symmetric=True, unsigned_symmetric=True)
    return Grid(bits, signed=True, symmetric=True)


def zero_points(grid: Grid, offset: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    zero_point = grid.qmin - offset
    if ((zero_point < grid.qmin) | (zero_point > grid.qmax)).any():
        low, high = grid.qmin - grid.qmax, 0
        raise EntryError(f"has offset {offset.flat[0]}; for {grid} it goes from {low} to {high}")
    if grid.symmetric and not grid.unsigned_symmetric and zero_point.any():
        raise EntryError(f"is symmetric with offset {offset.flat[0]}, which is not the middle")
    return zero_point


def header(file: EncodingsFile, activations: Any, parameters: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "producer": dict(file.producer),
        "version": file.version,
        "activation_encodings": activations,
        "param_encodings": parameters,
        "excluded_layers": list(file.excluded_layers),
    }
    if file.quantizer_args is not None:
        document["quantizer_args"] = dict(file.quantizer_args)
    return document


def other_fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a document that are no encodings."""
    producer, args = document.get("producer"), document.get("quantizer_args")
    excluded = document.get("excluded_layers")
    return {
        "producer": producer if isinstance(producer, Mapping) else {},
        "quantizer_args": args if isinstance(args, Mapping) else None,
        "excluded_layers": tuple(map(str, excluded)) if isinstance(excluded, list) else (),
    }
