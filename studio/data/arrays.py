"""Arrays in `.npy` and `.npz` files as a dataset."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from studio.data.dataset import Batch, Cancel, InputSpec, evenly_spaced, reading_order
from studio.data.preprocess import format_shape
from studio.errors import DataError

LABEL_KEYS = ("labels", "y")


class ArrayData:
    """Samples along the batch axes of `arrays` (model input name -> array), with labels (n, ...)
    or None. An input without a batch axis has one value for all samples.

    Values are converted to the input's type within one kind (float64 to float32, not integers to
    floats), labels to int64 or float32. A batch with NaN or infinite values is refused, naming the
    sample.
    """

    synthetic = False

    def __init__(
        self,
        name: str,
        arrays: Mapping[str, np.ndarray],
        labels: np.ndarray | None,
        specs: Sequence[InputSpec],
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.warnings = warnings
        self._arrays = dict(arrays)
        self._labels = labels
        self._specs = tuple(specs)
        self._check()
        total = next(
            self._arrays[spec.name].shape[spec.batch]
            for spec in self._specs
            if spec.batch is not None
        )
        self._picked = np.arange(total, dtype=np.int64)

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    def __len__(self) -> int:
        return len(self._picked)

    def subset(self, count: int) -> ArrayData:
        """`count` samples spread evenly over all."""
        return self.select(evenly_spaced(len(self), count))

    def select(self, positions: np.ndarray) -> ArrayData:
        """The samples at `positions`, in that order."""
        part = copy(self)
        part._picked = self._picked[positions]
        return part

    def batches(
        self,
        batch_size: int,
        *,
        limit: int | None = None,
        seed: int | None = None,
        cancel: Cancel | None = None,
    ) -> Iterator[Batch]:
        order = reading_order(len(self), limit, seed)
        for start in range(0, len(order), batch_size):
            if cancel is not None:
                cancel.check()
            indices = order[start : start + batch_size]
            rows = self._picked[indices]
            inputs = {spec.name: self._read(spec, rows) for spec in self._specs}
            yield Batch(inputs, self._read_labels(rows), indices)

    def _read(self, spec: InputSpec, rows: np.ndarray) -> np.ndarray:
        array = self._arrays[spec.name]
        if spec.batch is None:
            return np.array(array, spec.dtype).reshape([size or 1 for size in spec.shape])
        values = np.ascontiguousarray(
            array[rows] if spec.batch == 0 else array.take(rows, spec.batch)
        )
        if values.dtype.kind == "f":
            others = tuple(axis for axis in range(values.ndim) if axis != spec.batch)
            finite = np.isfinite(values).all(axis=others)
            if not finite.all():
                raise DataError(
                    f"{self.name}: sample {rows[~finite][0]} of {spec.name!r} has NaN or infinite "
                    "values.",
                    "Remove or correct this sample.",
                )
        return values.astype(spec.dtype, copy=False)

    def _read_labels(self, rows: np.ndarray) -> np.ndarray | None:
        if self._labels is None:
            return None
        labels = np.ascontiguousarray(self._labels[rows])
        if labels.dtype.kind != "f":
            return labels.astype(np.int64)
        finite = np.isfinite(labels.reshape(len(rows), -1)).all(axis=1)
        if not finite.all():
            raise DataError(
                f"{self.name}: the labels of sample {rows[~finite][0]} are NaN or infinite.",
                "Remove or correct this sample.",
            )
        return labels.astype(np.float32)

    def _check(self) -> None:
        counts = {}
        for spec in self._specs:
            array = self._arrays[spec.name]
            check_type(self.name, array, spec)
            if spec.batch is None:
                _check_single(self.name, array, spec)
            else:
                _check_shape(self.name, array, spec)
                counts[spec.name] = array.shape[spec.batch]
        if self._labels is not None:
            if not self._labels.ndim or self._labels.dtype.kind not in "iufb":
                raise DataError(
                    f"{self.name}: the labels are {self._labels.dtype} of shape "
                    f"{format_shape(self._labels.shape)}.",
                    "Give numbers for each sample along the first axis: a class index, or what the "
                    "loss of a training compares with.",
                )
            counts["the labels"] = len(self._labels)
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(
                f"{self.name}: different numbers of samples: {shown}.",
                "Give every array the same length.",
            )
        if not next(iter(counts.values())):
            raise DataError(f"{self.name} holds no sample.", "Choose other data.")


def open_arrays(path: Path, specs: Sequence[InputSpec]) -> ArrayData:
    """The samples of a `.npy` file (for the only model input) or a `.npz` file.

    A `.npz` file has one array for each model input, under the input's name, and optionally the
    labels as `labels` or `y`. A model with a single input takes the file's only other
    array, whatever its name. Uncompressed arrays are mapped into memory, not read. Pickled
    objects are refused. Raises DataError that names the array, both shapes and what to do.
    """
    arrays = open_members(path)
    if path.suffix.lower() == ".npy":
        arrays = {specs[0].name: arrays[path.stem]}
    labels = next((arrays.pop(key) for key in LABEL_KEYS if _is_labels(key, arrays, specs)), None)
    warnings: tuple[str, ...] = ()
    if len(specs) == 1 and len(arrays) == 1 and specs[0].name not in arrays:
        ((key, array),) = arrays.items()
        arrays = {specs[0].name: array}
        warnings = (f"The array {key!r} of {path.name} is used for the input {specs[0].name!r}.",)
    missing = [spec.name for spec in specs if spec.name not in arrays]
    if missing:
        raise DataError(
            f"{path} has no array for the model input {', '.join(map(repr, missing))}; "
            f"it has {', '.join(map(repr, arrays)) or 'none'}.",
            "Write a .npz file with one array for each model input, under the input's name.",
        )
    wanted = {spec.name for spec in specs}
    ignored = [key for key in arrays if key not in wanted]
    if ignored:
        shown = ", ".join(map(repr, ignored))
        warnings = (
            *warnings,
            f"{path.name}: not used, since no model input has the name: {shown}.",
        )
    return ArrayData(path.name, {name: arrays[name] for name in wanted}, labels, specs, warnings)


def open_members(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file by name, the one of a `.npy` file under the file's.

    Raises DataError if it cannot be read.
    """
    try:
        if path.suffix.lower() == ".npy":
            return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)}
        return dict(_members(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, struct.error) as error:
        raise DataError(
            f"{path} is not a readable NumPy file: {error}.",
            "Write it with numpy.save or numpy.savez, without Python objects.",
        ) from None


def _is_labels(key: str, arrays: Mapping[str, Any], specs: Sequence[InputSpec]) -> bool:
    return key in arrays and all(spec.name != key for spec in specs)


def _members(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array of every member of a `.npz` file, memory-mapped where it is not compressed."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if info.compress_type != zipfile.ZIP_STORED:
                with archive.open(info) as member:
                    yield name, np.lib.format.read_array(member, allow_pickle=False)
                continue
            # The local header's extra field may differ in length from the central directory's.
            file.seek(info.header_offset + 26)
            name_length, extra_length = struct.unpack("<HH", file.read(4))
            file.seek(name_length + extra_length, 1)
            yield name, _mapped(path, file)


def _mapped(path: Path, file: Any) -> np.ndarray:
    """Map the array whose `.npy` header begins at the position of `file`."""
    major, _ = np.lib.format.read_magic(file)
    if major == 1:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if not shape:
        return np.fromfile(file, dtype, 1).reshape(())
    if 0 in shape:
        return np.zeros(shape, dtype)
    offset = file.tell()
    if fortran:
        return np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order="F")
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape)


def _check_single(name: str, array: np.ndarray, spec: InputSpec) -> None:
    """Raise DataError unless it is one finite number."""
    if array.size != 1 or not np.isfinite(array).all():
        raise DataError(
            f"{name}: the array for {spec.name!r} has shape {format_shape(array.shape)}; the model "
            "takes one number, the same for all samples.",
            f"Give one finite number, or fix it for good with --fix {spec.name}=VALUE.",
        )


def _check_shape(name: str, array: np.ndarray, spec: InputSpec) -> None:
    wanted, axis = spec.sample_shape, spec.batch or 0
    if array.ndim > axis and fits((*array.shape[:axis], *array.shape[axis + 1 :]), wanted):
        return
    hint = "Give the samples along the first axis, each of the shape of the model input."
    if axis:
        hint = f"Give the samples along axis {axis}, as the model takes them in one batch."
    if array.ndim == len(wanted) and fits(array.shape, wanted):
        added = "[" + ":, " * axis + "None]"
        hint = f"This is a single sample: add the batch axis with array{added}."
    elif array.ndim == 4 and fits(tuple(array.shape[i] for i in (3, 1, 2)), wanted):
        hint = "The channels are last, the model wants them first: array.transpose(0, 3, 1, 2)."
    elif array.ndim == 4 and fits(tuple(array.shape[i] for i in (2, 3, 1)), wanted):
        hint = "The channels are first, the model wants them last: array.transpose(0, 2, 3, 1)."
    raise DataError(
        f"{name}: the array for {spec.name!r} has shape {format_shape(array.shape)}, the model "
        f"input has {format_shape(spec.shape)}.",
        hint,
    )


def fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    """True if `shape` has the sizes of `wanted`, where those are given."""
    return len(shape) == len(wanted) and all(
        side is None or side == found for found, side in zip(shape, wanted, strict=True)
    )


def check_type(name: str, array: np.ndarray, spec: InputSpec) -> None:
    """Raise DataError unless the values can be converted within one kind (int, float)."""
    found, wanted = array.dtype, spec.dtype
    same_kind = found.kind == wanted.kind or (found.kind in "iu" and wanted.kind in "iu")
    if same_kind and np.can_cast(found, wanted, "same_kind"):
        return
    hint = f"Convert it with array.astype('{wanted}')."
    if found.kind in "iu" and wanted.kind == "f":
        hint = f"Scale it as the model was trained, such as array.astype('{wanted}') / 255."
    raise DataError(
        f"{name}: the array for {spec.name!r} holds {found}, the model input takes {wanted}.", hint
    )
