"""How the target will run each layer, worked out in the background after every change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer, Signal

from studio.app import tasks
from studio.errors import CancelledError, StudioError

if TYPE_CHECKING:
    from studio.analysis.forecast import Forecast, LayerForecast
    from studio.app.session import Session
    from studio.jobs import Job

DELAY_MS = 120


class Forecasts(QObject):
    """`changed` says that `current` is another one; `problem` why there is none."""

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.current: Forecast | None = None
        self.problem = ""
        self._rows: dict[str, LayerForecast] = {}
        self._made_for: tuple[object, ...] | None = None
        self._job: Job[Any] | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.timeout.connect(self._start)
        session.document_changed.connect(self._changed)

    def layer(self, name: str) -> LayerForecast | None:
        """How the layer `name` of the document will run; None if that is not known."""
        return self._rows.get(name)

    def _key(self) -> tuple[object, ...] | None:
        document = self._session.document
        if document is None:
            return None
        return document.graph, document.plan, document.calibrated

    def _changed(self) -> None:
        key = self._key()
        if key is None:
            self._timer.stop()
            self._forget_job()
            self._show(None, None)
        elif self._made_for is None or not _same(key, self._made_for):
            self._timer.start()

    def _forget_job(self) -> None:
        if self._job is not None:
            self._session.forget(self._job)
            self._job = None

    def _start(self) -> None:
        document, key = self._session.document, self._key()
        if document is None:
            return
        self._forget_job()

        def done(found: Forecast) -> None:
            self._job = None
            self._show(found, key)

        def failed(error: StudioError) -> None:
            self._job = None
            if not isinstance(error, CancelledError):
                self._show(None, key, error.message)

        work = tasks.forecast(document)
        self._job = self._session.aside("forecast", work, done, failed)

    def _show(
        self, found: Forecast | None, key: tuple[object, ...] | None, problem: str = ""
    ) -> None:
        self.current, self._made_for, self.problem = found, key, problem
        self._rows = {row.layer: row for row in found.layers} if found is not None else {}
        self.changed.emit()


def _same(first: tuple[object, ...], second: tuple[object, ...]) -> bool:
    """Plans and graphs are compared as objects: they are never changed."""
    return first[0] is second[0] and first[1] is second[1] and first[2] == second[2]
