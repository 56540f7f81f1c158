"""Looking into a PyTorch file (a zip archive) without unpacking or executing anything."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

from studio.errors import ModelError

ZIP_MAGIC = b"PK\x03\x04"
SLACK = 2**26
"""Bytes that an archive may unpack to beyond four times its size: its text files are packed."""
RATIO = 4
LARGEST_TEXT = 2**26
LARGEST_DIRECTORY = 2**23
"""Bytes of a list of entries: some 80,000 of them."""

AGAIN = "Copy or save the file again; it may be incomplete."
FROM_SOURCE = "Get the file from its source again."


def read_archive(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Entries by name, the archive's own top folder left out.

    Raises ModelError for a damaged archive, names that leave the folder, and declared sizes that
    no file of weights has (a zip bomb).
    """
    try:
        with _Bounded(path) as raw, zipfile.ZipFile(raw) as file:
            entries = file.infolist()
    except Exception as error:  # of zipfile and of the decompressors
        raise _unreadable(path, error) from error
    if not entries:
        raise ModelError(f"{path.name} is an empty archive.", AGAIN)
    size = path.stat().st_size
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if unpacked > RATIO * size + SLACK or packed > size:
        raise ModelError(
            f"{path.name} ({size} bytes) claims to unpack to {unpacked} bytes; it is not opened.",
            FROM_SOURCE,
        )
    names: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        odd = "\\" in entry.filename or "\0" in entry.filename
        if odd or not parts or parts[0] == "/" or ".." in parts or entry.filename in names:
            raise ModelError(
                f"{path.name} has an entry {entry.filename!r}, which no PyTorch file has.",
                FROM_SOURCE,
            )
        names[entry.filename] = entry
    tops = {name.split("/", 1)[0] for name in names}
    if len(tops) == 1 and all("/" in name for name in names):
        return {name.split("/", 1)[1]: entry for name, entry in names.items()}
    return names


def read_entry(path: Path, entry: zipfile.ZipInfo) -> bytes:
    """The content of a small entry. Raises ModelError."""
    if entry.file_size > LARGEST_TEXT:
        raise ModelError(
            f"{path.name} has a description of {entry.file_size} bytes; it is not opened.",
            FROM_SOURCE,
        )
    try:
        with zipfile.ZipFile(path) as file:
            return file.read(entry)
    except Exception as error:  # of zipfile and of the decompressors
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ModelError:
    reason = str(error).rstrip(".") or "it is damaged"
    return ModelError(f"{path.name} cannot be read: {reason}.", AGAIN)


class _Bounded(io.FileIO):
    """A file of which zipfile reads no list of entries that would take long and much memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > LARGEST_DIRECTORY:
            raise zipfile.BadZipFile("it has more entries than a model has")
        return super().read(-1 if size is None else size) or b""
