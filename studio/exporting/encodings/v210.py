"""Version 2.1.0: version 2.0.0 but for blocks whose scales are quantized themselves.

Their `y_scale` is an object: `x` the quantized scales, `x_scale` what they are multiplied by.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studio.exporting.encodings import v200
from studio.exporting.encodings.fields import EntryError, get, integer, integers, scales
from studio.exporting.encodings.stored import (
    EncodingsFile,
    StoredEncoding,
    channel_axis,
)

problem = v200.problem
entries = v200.entries


def write(file: EncodingsFile) -> dict[str, Any]:
    return {
        "producer": dict(file.producer),
        "version": file.version,
        "encodings": [
            _low_power_entry(encoding)
            if encoding.integer_scale is not None
            else v200.entry_of(encoding)
            for encoding in file.encodings.values()
            if encoding.scaled
        ],
    }


def _low_power_entry(encoding: StoredEncoding) -> dict[str, Any]:
    """The inner axis, that of the channels, counts from the end."""
    assert encoding.integer_scale is not None
    assert encoding.channel_scale is not None
    assert encoding.axis is not None
    rank = encoding.integer_scale.ndim
    return {
        "name": encoding.name,
        "y_scale": {
            "x": encoding.integer_scale.tolist(),
            "x_scale": encoding.channel_scale.tolist(),
            "axis": channel_axis(encoding.axis, rank) - rank,
        },
        "axis": encoding.axis,
        "block_size": encoding.block_size,
        "output_dtype": v200.dtype_of(encoding),
    }


def read(name: str, entry: Any, parameter: bool) -> StoredEncoding:
    scale = get(entry, "y_scale")
    if not isinstance(scale, dict):
        return v200.read(name, entry, parameter)
    outer = scales(get(scale, "x_scale"), "x_scale")
    if scale.get("input_dtype"):  # NVFP4: the products are all that counts for the numbers
        inner = scales(get(scale, "x"), "x")
        return v200.plain(name, entry, np.asarray(inner * _spread(outer, inner, scale)))
    blocks = integers(get(scale, "x"), "x")
    return v200.low_power(name, entry, blocks, outer.reshape(-1))


def _spread(outer: np.ndarray, inner: np.ndarray, scale: dict[str, Any]) -> np.ndarray:
    if outer.size == 1:
        return outer.reshape(())
    axis = integer(scale, "axis", -inner.ndim, inner.ndim - 1)
    shape = [1] * inner.ndim
    shape[axis] = -1
    if inner.shape[axis] != outer.size:
        raise EntryError(f"has {outer.size} values of x_scale for {inner.shape[axis]} channels")
    return outer.reshape(shape)
