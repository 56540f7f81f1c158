"""Finding the pictures of a folder and their labels."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio.errors import DataError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
)
_NUMBERED = re.compile(r"(\d+)(?:[_-]|$)")


@dataclass(frozen=True)
class ImageList:
    """Paths in a fixed order, (n,) int64 labels or None, and class index -> name."""

    paths: tuple[str, ...]
    labels: np.ndarray | None
    classes: dict[int, str]
    warnings: tuple[str, ...] = ()


def list_images(path: Path) -> ImageList:
    """The pictures of a folder, or of a CSV file of path and label.

    In a folder, `labels.csv` says the labels; else each subfolder is a class; else there are no
    labels. If all names of subfolders begin with a number (`0682_obelisk`, `7-seven`, `3`), that
    is the class index, otherwise the classes are counted in sorted order. Files are recognised by
    their suffix, hidden ones are left out. Raises DataError if there is no picture.
    """
    if path.is_file():
        return read_labels(path)
    if (path / "labels.csv").is_file():
        return read_labels(path / "labels.csv")
    folders, loose = _scan(path)
    by_class = {name: sorted(_walk(os.path.join(path, name))) for name in sorted(folders)}
    by_class = {name: files for name, files in by_class.items() if files}
    if not by_class and not loose:
        raise DataError(
            f"{path} holds no picture.",
            f"Choose a folder with {', '.join(sorted(SUFFIXES))} files, or .npy or .npz arrays.",
        )
    if not by_class:
        return ImageList(tuple(sorted(loose)), None, {})
    numbers = class_indices(list(by_class))
    labels = [numbers[name] for name, files in by_class.items() for _ in files]
    warnings = []
    if loose:
        warnings.append(f"{len(loose)} pictures beside the class folders are not used.")
    return ImageList(
        tuple(file for files in by_class.values() for file in files),
        np.array(labels, np.int64),
        {number: name for name, number in numbers.items()},
        tuple(warnings),
    )


def class_indices(names: list[str]) -> dict[str, int]:
    """Class index of each subfolder, by the rule of `list_images`."""
    found = [_NUMBERED.match(name) for name in names]
    if not all(found):
        return {name: index for index, name in enumerate(sorted(names))}
    numbers = {name: int(match[1]) for name, match in zip(names, found, strict=True) if match}
    taken: dict[int, str] = {}
    for name, number in numbers.items():
        if number in taken:
            raise DataError(
                f"The folders {taken[number]!r} and {name!r} both stand for class {number}.",
                "Rename one of them.",
            )
        taken[number] = name
    return numbers


def read_labels(path: Path) -> ImageList:
    """The pictures and labels of a CSV file; paths are relative to the file's folder.

    Columns are path and label, separated by comma, semicolon or tab; a first line whose path is
    no picture's is a header. Labels are class indices, or names that are counted in sorted order.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Save it as UTF-8 text.") from None
    lines = text.splitlines()
    delimiter = max(",;\t", key=(lines[0] if lines else "").count)
    files: list[str] = []
    labels: list[str] = []
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path} is not valid CSV: {error}.", "Correct the file.") from None
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if number == 1 and not _is_image(cells[0]):
            continue
        if len(cells) < 2 or not cells[0] or not cells[1]:
            raise DataError(
                f"{path}, line {number} is not a path and a label: {delimiter.join(row)!r}.",
                "Write each line as path,label.",
            )
        files.append(os.path.join(path.parent, cells[0]))
        labels.append(cells[1])
    if not files:
        raise DataError(f"{path} lists no picture.", "Write each line as path,label.")
    if all(label.isdecimal() for label in labels):
        return ImageList(tuple(files), np.array([int(label) for label in labels], np.int64), {})
    names = sorted(set(labels))
    index = {name: number for number, name in enumerate(names)}
    return ImageList(
        tuple(files),
        np.array([index[label] for label in labels], np.int64),
        dict(enumerate(names)),
    )


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _scan(folder: str | Path) -> tuple[list[str], list[str]]:
    """Names of the subfolders and paths of the pictures of `folder`; asks nothing of each file."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif _is_image(entry.name):
                    files.append(entry.path)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.", "Check the path.") from None
    return folders, files


def _walk(folder: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Pictures below `folder`; a link back to a folder above is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    folders, files = _scan(folder)
    yield from files
    for name in folders:
        yield from _walk(os.path.join(folder, name), above | {real})
