"""The checkpoint that a training which was cut off has left behind, looked for without waiting."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Signal

from studio.app.improve.run import find_checkpoint
from studio.errors import CancelledError, StudioError
from studio.jobs import Job

if TYPE_CHECKING:
    from studio.app.session import Session
    from studio.qat.checkpoint import Saved


class CheckpointOffer(QObject):
    """`changed` when `saved` or `problem` did: what is in the folder looked at last."""

    changed = Signal()

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._key: tuple[Path, int] | None = None
        self._job: Job[Any] | None = None
        self.saved: Saved | None = None
        self.problem = ""

    def look(self, folder: Path | None) -> None:
        """Read the checkpoint in `folder`, if there is another one than last time."""
        key = None
        if folder is not None:
            try:
                key = folder, (folder / "state.json").stat().st_mtime_ns
            except OSError:
                key = None
        if key == self._key:
            return
        self._key = key
        if self._job is not None:
            self._session.forget(self._job)
            self._job = None
        self._show(None)
        if key is not None:
            work = find_checkpoint(key[0])
            self._job = self._session.aside("look for a checkpoint", work, self._show, self._failed)

    def _show(self, saved: Saved | None, problem: str = "") -> None:
        self._job = None
        self.saved, self.problem = saved, problem
        self.changed.emit()

    def _failed(self, error: StudioError) -> None:
        if not isinstance(error, CancelledError):
            self._show(None, str(error))


def offer_text(saved: Saved) -> str:
    """`A training was cut off at step 120 of 300. Its checkpoint is of 21 Nov, 14:32.`"""
    when = datetime.fromtimestamp(saved.time)
    return (
        f"A training was cut off. Its checkpoint of {when.day} {when:%b, %H:%M} has step "
        f"{saved.step} of {saved.total}."
    )
