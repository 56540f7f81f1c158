"""Version 2.0.0: one list, in ONNX's terms: real = (q - y_zero_point) * y_scale."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from studio.exporting.encodings.fields import (
    FLOAT_FORMATS,
    EntryError,
    get,
    integer,
    integers,
    name_of,
    same_size,
    scales,
)
from studio.exporting.encodings.stored import (
    EncodingsFile,
    StoredEncoding,
    channel_axis,
)
from studio.quant.grid import FloatGrid, Grid

INTEGER = re.compile(r"(u?)int(\d{1,2})")


def problem(encoding: StoredEncoding) -> str:
    """Why this version has no entry for `encoding`: it always has (float16 and bfloat16 need
    none: the tensor is only converted)."""
    return ""


def write(file: EncodingsFile) -> dict[str, Any]:
    return {
        "producer": dict(file.producer),
        "version": file.version,
        "encodings": [
            low_power_entry(encoding) if encoding.integer_scale is not None else entry_of(encoding)
            for encoding in file.encodings.values()
            if encoding.scaled
        ],
    }


def entry_of(encoding: StoredEncoding) -> dict[str, Any]:
    entry = {
        "name": encoding.name,
        "output_dtype": dtype_of(encoding),
        "y_scale": encoding.scale.tolist(),
    }
    if encoding.zero_point.any():
        entry["y_zero_point"] = encoding.zero_point.tolist()
    return entry | _place(encoding)


def low_power_entry(encoding: StoredEncoding) -> dict[str, Any]:
    """The scale of each channel as an array of the blocks' rank."""
    assert encoding.integer_scale is not None
    assert encoding.channel_scale is not None
    assert encoding.axis is not None
    shape = [1] * encoding.integer_scale.ndim
    shape[channel_axis(encoding.axis, len(shape))] = -1
    return {
        "name": encoding.name,
        **_place(encoding),
        "per_block_int_scale": encoding.integer_scale.tolist(),
        "per_channel_float_scale": encoding.channel_scale.reshape(shape).tolist(),
        "output_dtype": dtype_of(encoding),
    }


def dtype_of(encoding: StoredEncoding) -> str:
    grid = encoding.grid
    if isinstance(grid, FloatGrid):
        return grid.format
    return f"{'' if grid.signed else 'u'}int{grid.bits}"


def _place(encoding: StoredEncoding) -> dict[str, Any]:
    place: dict[str, Any] = {} if encoding.axis is None else {"axis": encoding.axis}
    return place if encoding.block_size is None else {**place, "block_size": encoding.block_size}


def entries(document: Mapping[str, Any]) -> list[tuple[str, Any, bool]]:
    """(name, entry, False: the file does not say what is a parameter)."""
    part = get(document, "encodings")
    if not isinstance(part, list):
        raise EntryError("has encodings that are no list")
    return [(name_of(entry), entry, False) for entry in part]


def read(name: str, entry: Any, parameter: bool) -> StoredEncoding:
    if "per_block_int_scale" in entry:
        blocks = integers(entry["per_block_int_scale"], "per_block_int_scale")
        channels = scales(get(entry, "per_channel_float_scale"), "per_channel_float_scale")
        return low_power(name, entry, blocks, channels.reshape(-1))
    return plain(name, entry, scales(get(entry, "y_scale"), "y_scale"))


def plain(name: str, entry: Mapping[str, Any], scale: np.ndarray) -> StoredEncoding:
    """The entry with one number for each scale."""
    grid = _grid(get(entry, "output_dtype"))
    axis, size = place_of(entry, scale.ndim)
    zero_point = np.zeros(scale.shape, np.int64)
    if entry.get("y_zero_point") is not None:
        zero_point = same_size(
            integers(entry["y_zero_point"], "y_zero_point"), scale, "y_zero_point"
        )
    if isinstance(grid, FloatGrid):
        if zero_point.any():
            raise EntryError(f"is {grid.format} with a zero point")
        return StoredEncoding(name, grid, scale, zero_point, axis, size)
    outside = (zero_point < grid.qmin) | (zero_point > grid.qmax)
    if outside.any():
        raise EntryError(
            f"has y_zero_point {zero_point[outside].flat[0]}; {get(entry, 'output_dtype')} goes "
            f"from {grid.qmin} to {grid.qmax}"
        )
    symmetric = grid.signed and not zero_point.any()
    grid = Grid(grid.bits, grid.signed, symmetric)
    return StoredEncoding(name, grid, scale, zero_point, axis, size)


def low_power(
    name: str, entry: Mapping[str, Any], blocks: np.ndarray, channels: np.ndarray
) -> StoredEncoding:
    """The entry whose scales are integers times a scale for each channel."""
    grid = _grid(get(entry, "output_dtype"))
    axis, size = place_of(entry, blocks.ndim)
    if axis is None or size is None or isinstance(grid, FloatGrid) or not grid.signed:
        raise EntryError("has low-power blocks without axis and block_size, or not of intN")
    own = channel_axis(axis, blocks.ndim)
    if blocks.shape[own] != channels.size or (blocks < 1).any():
        raise EntryError(
            f"has {channels.size} scales for {blocks.shape[own]} channels of low-power blocks, or "
            "integer scales below 1"
        )
    shape = [1] * blocks.ndim
    shape[own] = -1
    return StoredEncoding(
        name,
        Grid(grid.bits, signed=True, symmetric=True),
        blocks * channels.reshape(shape),
        np.zeros(blocks.shape, np.int64),
        axis,
        size,
        blocks,
        channels,
        max(8, grid.bits + int(np.ceil(np.log2(int(blocks.max()))))),
    )


def place_of(entry: Mapping[str, Any], rank: int) -> tuple[int | None, int | None]:
    """(axis, block size); the axis as the file has it."""
    size = integer(entry, "block_size", 1, 2**31) if entry.get("block_size") else None
    axis = integer(entry, "axis", -64, 64) if entry.get("axis") is not None else None
    if axis is None and rank:
        raise EntryError("has several scales and no axis")
    if size is not None:
        assert axis is not None
        if not -rank <= axis < rank:
            raise EntryError(f"has axis {axis} for blocks of rank {rank}")
        axis %= rank
    elif rank > 1:
        raise EntryError("has nested scales and no block_size")
    return axis if rank else None, size


def _grid(dtype: Any) -> Grid | FloatGrid:
    found = INTEGER.fullmatch(dtype) if isinstance(dtype, str) else None
    if found is not None and 2 <= int(found[2]) <= 32:
        return Grid(int(found[2]), signed=not found[1], symmetric=False)
    if dtype in FLOAT_FORMATS:
        return FloatGrid(dtype)
    raise EntryError(f"has the unknown output_dtype {dtype!r}")
