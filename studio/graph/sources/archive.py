"""Looking into a PyTorch file (a zip archive) without unpacking or executing anything."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from studio.errors import ModelError

SLACK = 2**26
"""Bytes that an archive may unpack to beyond four times its size: its text files are packed."""
RATIO = 4
LARGEST_TEXT = 2**26
MOST_ENTRIES = 200_000
AGAIN = "Copy or save the file again; it may be incomplete."


def read_archive(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Entries by name, the archive's own top folder left out.

    Raises ModelError for a damaged archive, names that leave the folder, and declared sizes that
    no file of weights has (a zip bomb).
    """
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        reason = str(error).rstrip(".") or "it is damaged"
        raise ModelError(f"{path.name} cannot be read: {reason}.", AGAIN) from error
    if not entries or len(entries) > MOST_ENTRIES:
        raise ModelError(f"{path.name} has {len(entries)} entries; no model has that.", AGAIN)
    size = path.stat().st_size
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if unpacked > RATIO * size + SLACK or packed > size:
        raise ModelError(
            f"{path.name} ({size} bytes) claims to unpack to {unpacked} bytes; it is not opened.",
            "Get the file from its source again.",
        )
    names: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        odd = "\\" in entry.filename or "\0" in entry.filename
        if odd or not parts or parts[0] == "/" or ".." in parts or entry.filename in names:
            raise ModelError(
                f"{path.name} has an entry {entry.filename!r}, which no PyTorch file has.",
                "Get the file from its source again.",
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
            "Get the file from its source again.",
        )
    try:
        with zipfile.ZipFile(path) as file:
            return file.read(entry)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}.", AGAIN) from error
