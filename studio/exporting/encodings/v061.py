"""Version 0.6.1: tensor name -> a list of entries, one for each channel or block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from studio.exporting.encodings.fields import EntryError, get, integer, integers, scales, truth
from studio.exporting.encodings.one_x import grid_of, header, zero_points
from studio.exporting.encodings.stored import UNSCALED, EncodingsFile, StoredEncoding
from studio.quant.grid import FloatGrid, Grid

SECTIONS = ("activation_encodings", "param_encodings")


def problem(encoding: StoredEncoding) -> str:
    """Why this version has no entry for `encoding`; empty if it has."""
    if isinstance(encoding.grid, FloatGrid) and encoding.grid.format != "float16":
        return f"it has no entry for {encoding.grid.format}"
    return ""


def write(file: EncodingsFile) -> dict[str, Any]:
    parts: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    for name, encoding in file.encodings.items():
        parts[bool(encoding.parameter)][name] = _entries(encoding)
    return header(file, parts[False], parts[True])


def _entries(encoding: StoredEncoding) -> list[dict[str, Any]]:
    grid = encoding.grid
    if isinstance(grid, FloatGrid):
        return [{"bitwidth": grid.bits, "dtype": "float"}]
    scale = encoding.scale.reshape(-1).astype(np.float32)  # the ends are products in float32
    offset = encoding.offset.reshape(-1)
    low, high = scale * offset.astype(np.float32), scale * (offset + grid.steps).astype(np.float32)
    return [
        {
            "min": float(low[i]),
            "max": float(high[i]),
            "scale": float(encoding.scale.flat[i]),
            "offset": int(offset[i]),
            "bitwidth": grid.bits,
            "dtype": "int",
            "is_symmetric": str(grid.symmetric),
        }
        for i in range(scale.size)
    ]


def entries(document: Mapping[str, Any]) -> list[tuple[str, Any, bool]]:
    """(name, entry, whether it is a parameter's)."""
    found = []
    for section in SECTIONS:
        part = document.get(section, {})
        if not isinstance(part, Mapping):
            raise EntryError(f"has {section} that is no object")
        found += [(name, entry, section == SECTIONS[1]) for name, entry in part.items()]
    return found


def read(name: str, entry: Any, parameter: bool) -> StoredEncoding:
    if not isinstance(entry, list) or not entry:
        raise EntryError("is no list of entries")
    kinds = {_kind(item) for item in entry}
    if len(kinds) > 1:
        raise EntryError("mixes entries of different type, bitwidth or symmetry")
    dtype, bits, symmetric = kinds.pop()
    if dtype == "float":
        grid = FloatGrid(UNSCALED[0])
        ones = np.ones(())
        return StoredEncoding(name, grid, ones, np.zeros((), np.int64), parameter=parameter)
    scale = scales([get(item, "scale") for item in entry])
    offset = integers([get(item, "offset") for item in entry], "offset")
    if len(entry) == 1:
        scale, offset = scale.reshape(()), offset.reshape(())
    whole: Grid = grid_of(bits, symmetric, offset)
    return StoredEncoding(name, whole, scale, zero_points(whole, offset), parameter=parameter)


def _kind(item: Any) -> tuple[str, int, bool]:
    dtype = get(item, "dtype")
    if dtype == "float":
        return dtype, integer(item, "bitwidth", 16, 16), True
    if dtype != "int":
        raise EntryError(f"has the unknown dtype {dtype!r}")
    return dtype, integer(item, "bitwidth", 2, 32), truth(item, "is_symmetric")
