"""The log file, the log ring the window shows, and what happens to unforeseen errors."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

log = logging.getLogger(__name__)

FORMAT = "%(asctime)s  %(levelname)-7s  %(message)s"


class LogRing(logging.Handler):
    """The last lines of the log; any thread may log, the window reads when it likes."""

    def __init__(self, size: int = 2000) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter(FORMAT, "%H:%M:%S"))
        self._lines: deque[tuple[int, str]] = deque(maxlen=size)
        self.written = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.levelno, self.format(record)))
        self.written += 1

    def lines(self) -> list[tuple[int, str]]:
        """Level and text, oldest first."""
        return list(self._lines)


ring = LogRing()
_fault_file: IO[str] | None = None


def log_folder() -> Path:
    from platformdirs import user_log_path

    return user_log_path("quantization-studio", appauthor=False)


def start_logging(folder: Path) -> Path | None:
    """Log to `folder`/studio.log and to the ring; None if the folder cannot be written."""
    global _fault_file
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    if ring not in root.handlers:
        root.addHandler(ring)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / "studio.log", encoding="utf-8")
        _fault_file = (folder / "faults.log").open("a", encoding="utf-8")
    except OSError as error:
        log.warning("No log file: %s", error)
        return None
    handler.setFormatter(logging.Formatter(FORMAT))
    root.addHandler(handler)
    faulthandler.enable(_fault_file)
    return folder / "studio.log"


def install_hooks(show: Callable[[str], None]) -> None:
    """Send exceptions nobody caught to the log and, shortened, to `show` (any thread)."""

    def handle(
        kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error or kind(), trace)
            return
        log.critical("Unforeseen error", exc_info=(kind, error or kind(), trace))
        show(f"{kind.__name__}: {error}")

    sys.excepthook = handle
    threading.excepthook = lambda args: handle(args.exc_type, args.exc_value, args.exc_traceback)
