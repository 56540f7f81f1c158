"""What the window remembers between sessions; the `QSettings` is handed in."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QByteArray, QSettings

MAX_RECENT = 10


class ViewSettings:
    """Recent files, theme, sizes."""

    def __init__(self, store: QSettings) -> None:
        self._store = store

    @property
    def theme(self) -> str:
        """ "dark", "light", or "" to follow the desktop."""
        return str(self._store.value("theme", "") or "")

    @theme.setter
    def theme(self, name: str) -> None:
        self._store.setValue("theme", name)

    def recent(self) -> list[Path]:
        """Files opened last, newest first; some may be gone by now."""
        value = self._store.value("recent", [])
        values = value if isinstance(value, list) else [value]
        return [Path(str(item)) for item in values if item][:MAX_RECENT]

    def add_recent(self, path: Path) -> None:
        paths = [path, *(known for known in self.recent() if known != path)]
        self._store.setValue("recent", [str(item) for item in paths[:MAX_RECENT]])

    def remove_recent(self, path: Path) -> None:
        self._store.setValue("recent", [str(item) for item in self.recent() if item != path])

    def state(self, name: str) -> QByteArray | None:
        """Saved geometry or splitter sizes called `name`."""
        value = self._store.value(f"state/{name}")
        return value if isinstance(value, QByteArray) and not value.isEmpty() else None

    def set_state(self, name: str, value: QByteArray) -> None:
        self._store.setValue(f"state/{name}", value)

    def folder(self, purpose: str) -> str:
        """Folder a file dialog starts in."""
        return str(self._store.value(f"folder/{purpose}", str(Path.home())))

    def set_folder(self, purpose: str, folder: Path) -> None:
        self._store.setValue(f"folder/{purpose}", str(folder))

    def sync(self) -> None:
        self._store.sync()
