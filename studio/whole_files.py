"""Writing files so that a failure leaves nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.errors import ExportError


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move into `folder` all together when the block ends well.

    Whatever goes wrong inside the block, `folder` is as it was. Disk and permission problems become
    ExportError naming the folder.
    """
    existed = folder.exists()
    staging: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        yield staging
        _move_files(staging, folder)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        if not existed and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _move_files(source: Path, folder: Path) -> None:
    """Move the files of `source` into `folder`: all, or on an error none."""
    paths = sorted(source.iterdir())
    replaced = source / ".replaced"
    replaced.mkdir()
    moved: list[Path] = []
    try:
        for path in paths:
            target = folder / path.name
            if target.exists():
                _second_name(target, replaced / path.name)
            os.replace(path, target)
            moved.append(target)
    except BaseException:
        for target in moved:
            before = replaced / target.name
            if before.exists():
                os.replace(before, target)
            else:
                target.unlink()
        raise


def _second_name(path: Path, other: Path) -> None:
    """Keep the content of `path` as `other`, too: a link, or a copy where there are no links."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copy2(path, other)


def write_error(path: Path, error: OSError) -> ExportError:
    """An ExportError that names `path` and what to do about `error`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "The disk is full: free some space or choose another folder. Nothing was changed."
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "You may not write there: choose another folder. Nothing was changed."
    else:
        hint = "Choose another folder. Nothing was changed."
    return ExportError(f"Cannot write to {path}: {error.strerror or error}.", hint)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step; ExportError if that is not possible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
