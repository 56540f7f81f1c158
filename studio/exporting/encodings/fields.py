"""Reading the fields of an entry: what is wrong is said with the name of the tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FLOAT_FORMATS = (
    "float16", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz",
    "float4e2m1",
)  # fmt: skip


class EntryError(Exception):
    """What is wrong with an entry, for people; the reader adds file and tensor."""


def get(entry: Mapping[str, Any], key: str) -> Any:
    if not isinstance(entry, Mapping):
        raise EntryError(f"is {type(entry).__name__}, not an object")
    if key not in entry:
        raise EntryError(f"has no {key!r}")
    return entry[key]


def name_of(entry: Mapping[str, Any]) -> str:
    name = get(entry, "name")
    if not isinstance(name, str) or not name:
        raise EntryError(f"has an entry with the name {name!r}")
    return name


def integer(entry: Mapping[str, Any], key: str, lowest: int, highest: int) -> int:
    value = get(entry, key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise EntryError(f"has {key} {value!r}, which is no integer")
    if not lowest <= value <= highest:
        raise EntryError(f"has {key} {value}; it goes from {lowest} to {highest}")
    return value


def truth(entry: Mapping[str, Any], key: str) -> bool:
    """A boolean, or one written as a string as version 0.6.1 does."""
    value = get(entry, key)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise EntryError(f"has {key} {value!r}, which is neither true nor false")
    return value


def scales(value: Any, key: str = "scale") -> npt.NDArray[np.float64]:
    """Numbers as nested lists or alone; each finite, positive, and within float32's range."""
    array = _numbers(value, key).astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        small = array.astype(np.float32)
    wrong = ~(np.isfinite(small) & (small > 0))
    if wrong.any():
        raise EntryError(f"has {key} {array[wrong].flat[0]}, which is no positive finite number")
    return array


def integers(value: Any, key: str) -> npt.NDArray[np.int64]:
    array = _numbers(value, key)
    if array.dtype.kind not in "iu" and not (np.isfinite(array) & (array == np.rint(array))).all():
        raise EntryError(f"has a {key} that is no integer")
    return array.astype(np.int64)


def _numbers(value: Any, key: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise EntryError(f"has lists of different lengths in {key}") from None
    if array.dtype.kind not in "iuf" or not array.size:
        raise EntryError(f"has {key} {value!r}, which are not numbers")
    return array


def same_size(array: np.ndarray, scale: np.ndarray, key: str) -> np.ndarray:
    if array.size != scale.size:
        raise EntryError(f"has {scale.size} scales and {array.size} values of {key}")
    return array.reshape(scale.shape)
