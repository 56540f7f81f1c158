"""Version 1.0.0: a list of activations and one of parameters, scales and offsets as lists.

Blocks are listed row by row of the array [channels, blocks] (or of its transpose, where the blocks
lie along the first axis of the tensor); no axis is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.exporting.encodings.fields import (
    EntryError,
    get,
    integer,
    integers,
    name_of,
    same_size,
    scales,
    truth,
)
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
    parts: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for encoding in file.encodings.values():
        parts[bool(encoding.parameter)].append(_entry(encoding))
    return header(file, parts[False], parts[True])


def _entry(encoding: StoredEncoding) -> dict[str, Any]:
    grid, name = encoding.grid, encoding.name
    if isinstance(grid, FloatGrid):
        return {"name": name, "dtype": "FLOAT", "bw": grid.bits, "enc_type": "PER_TENSOR"}
    entry = {"name": name, "dtype": "INT", "bw": grid.bits, "is_sym": grid.symmetric}
    if encoding.integer_scale is not None:
        assert encoding.channel_scale is not None
        bits = encoding.decompressed_bits or 8
        return {
            **entry,
            "bw": bits,
            "scale": encoding.channel_scale.tolist(),
            "offset": [-(2 ** (bits - 1))] * encoding.channel_scale.size,
            "enc_type": "LPBQ",
            "block_size": encoding.block_size,
            "compressed_bw": grid.bits,
            "per_block_int_scale": encoding.integer_scale.reshape(-1).tolist(),
        }
    entry |= {
        "scale": encoding.scale.reshape(-1).tolist(),
        "offset": encoding.offset.reshape(-1).tolist(),
    }
    if encoding.block_size is not None:
        return {**entry, "enc_type": "PER_BLOCK", "block_size": encoding.block_size}
    return {**entry, "enc_type": "PER_CHANNEL" if encoding.scale.ndim else "PER_TENSOR"}


def entries(document: Mapping[str, Any]) -> list[tuple[str, Any, bool]]:
    """(name, entry, whether it is a parameter's)."""
    found = []
    for section in SECTIONS:
        part = document.get(section, [])
        if not isinstance(part, list):
            raise EntryError(f"has {section} that is no list")
        found += [(name_of(entry), entry, section == SECTIONS[1]) for entry in part]
    return found


def read(name: str, entry: Any, parameter: bool) -> StoredEncoding:
    dtype, kind = get(entry, "dtype"), get(entry, "enc_type")
    if dtype == "FLOAT":
        integer(entry, "bw", 16, 16)
        ones = np.ones(())
        whole = FloatGrid(UNSCALED[0])
        return StoredEncoding(name, whole, ones, np.zeros((), np.int64), parameter=parameter)
    if dtype != "INT":
        raise EntryError(f"has the unknown dtype {dtype!r}")
    shifts = entry.get("zero_point_shift")
    if shifts is not None and np.any(shifts):
        raise EntryError("has a zero_point_shift, which no ONNX runtime computes")
    if kind == "LPBQ":
        return _low_power(name, entry, parameter)
    if kind not in ("PER_TENSOR", "PER_CHANNEL", "PER_BLOCK"):
        raise EntryError(f"has the enc_type {kind!r}, which cannot be read")
    scale: npt.NDArray[np.float64] = scales(get(entry, "scale")).reshape(-1)
    offset = same_size(integers(get(entry, "offset"), "offset"), scale, "offset")
    if kind == "PER_TENSOR":
        if scale.size != 1:
            raise EntryError(f"is PER_TENSOR with {scale.size} scales")
        scale, offset = scale.reshape(()), offset.reshape(())
    grid = grid_of(integer(entry, "bw", 2, 32), truth(entry, "is_sym"), offset)
    size = integer(entry, "block_size", 1, 2**31) if kind == "PER_BLOCK" else None
    zero_point = zero_points(grid, offset)
    return StoredEncoding(name, grid, scale, zero_point, None, size, parameter=parameter)


def _low_power(name: str, entry: Mapping[str, Any], parameter: bool) -> StoredEncoding:
    channels = scales(get(entry, "scale")).reshape(-1)
    blocks = integers(get(entry, "per_block_int_scale"), "per_block_int_scale").reshape(-1)
    if blocks.size % channels.size or (blocks < 1).any():
        raise EntryError(
            f"has {blocks.size} values of per_block_int_scale for {channels.size} channels; each is"
            " at least 1, and every channel has as many"
        )
    grid = Grid(integer(entry, "compressed_bw", 2, 16), signed=True, symmetric=True)
    return StoredEncoding(
        name,
        grid,
        blocks.astype(np.float64) * np.repeat(channels, blocks.size // channels.size),
        np.zeros(blocks.size, np.int64),
        None,
        integer(entry, "block_size", 1, 2**31),
        blocks,
        channels,
        integer(entry, "bw", 2, 32),
        parameter,
    )
