"""The list of settings by name and pattern, in order: the last match wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from studio.app import tasks, text
from studio.app.session import Session
from studio.app.theme import current_theme
from studio.app.widgets import label
from studio.errors import CancelledError, ConfigError, StudioError
from studio.sim.config import LayerSettings, parse_settings

if TYPE_CHECKING:
    from studio.jobs import Job

TITLES = ("Layers", "Settings", "Matches")
EXPLANATION = (
    "A name, or a pattern with * ? [..]: features.*.conv · op:LayerNorm is every layer with that "
    "operator · block:Attention every layer of such a block. Where several match, the last one "
    "wins."
)
EXAMPLE = "For example weight_bits=4, act_observer=entropy"
DELAY_MS = 200


def settings_text(settings: LayerSettings) -> str:
    """`weight_bits=4, act_enabled=false`."""
    return ", ".join(f"{key}={_value_text(value)}" for key, value in settings.given().items())


def _value_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parsed(words: str) -> LayerSettings:
    """Settings from `key=value, key=value`; ConfigError says what is wrong."""
    values = {}
    for part in filter(None, (piece.strip() for piece in words.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not value.strip():
            raise ConfigError(f"{part!r} is not of the form key=value.", EXAMPLE)
        values[key.strip()] = value.strip()
    if not values:
        raise ConfigError("There is no setting.", EXAMPLE)
    return parse_settings(values)


class OverridesDialog(QDialog):
    """`layers` are the entries as edited, once accepted."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._job: Job[Any] | None = None
        self.layers: dict[str, LayerSettings] = {}
        self.setWindowTitle("Overrides")
        self.resize(780, 460)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(24, 20, 24, 18)
        layout.setSpacing(10)
        layout.addWidget(label("Settings for single layers and patterns", "heading"))
        layout.addWidget(label(EXPLANATION, "muted", wrap=True))
        self.table = QTableWidget(0, len(TITLES))
        self._dress_table()
        self.empty = label("Nothing is overridden: all layers follow the target.", "muted")
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.empty, 1)
        layout.addLayout(self._tools())
        self.problem = label("", "bad", wrap=True)
        layout.addWidget(self.problem)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.apply = buttons.addButton("Apply", QDialogButtonBox.ButtonRole.AcceptRole)
        self.apply.setProperty("role", "primary")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout.addWidget(buttons)
        for button in self.findChildren(QPushButton):
            button.setAutoDefault(False)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.timeout.connect(self._count)
        document = session.document
        entries: Mapping[str, LayerSettings] = document.config.layers if document else {}
        for pattern, settings in entries.items():
            self._add_row(pattern, settings_text(settings))
        self.table.itemChanged.connect(lambda _item: self._changed())
        self._changed()

    def _dress_table(self) -> None:
        self.table.setAccessibleName("Overrides")
        self.table.setHorizontalHeaderLabels(TITLES)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setShowGrid(False)
        self.table.setTabKeyNavigation(False)
        self.table.verticalHeader().setDefaultSectionSize(28)
        self.table.verticalHeader().hide()
        header = self.table.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.table.setColumnWidth(0, 240)
        self.table.setColumnWidth(2, 110)

    def _tools(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.buttons: dict[str, QPushButton] = {}
        handlers = {"Add": self.add, "Remove": self.remove, "Up": self.up, "Down": self.down}
        for name, handler in handlers.items():
            button = QPushButton(name)
            button.clicked.connect(lambda _checked=False, run=handler: run())
            self.buttons[name] = button
            row.addWidget(button)
        row.addStretch(1)
        self.table.itemSelectionChanged.connect(self._show_tools)
        return row

    # -- rows ----------------------------------------------------------------------------------

    def _add_row(self, pattern: str, words: str) -> int:
        row = self.table.rowCount()
        self.table.blockSignals(True)  # until the row is whole
        self.table.insertRow(row)
        for column, shown in enumerate((pattern, words, "")):
            item = QTableWidgetItem(shown)
            if column == len(TITLES) - 1:
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
            self.table.setItem(row, column, item)
        self.table.blockSignals(False)
        return row

    def entry(self, row: int) -> tuple[str, str]:
        """Pattern and settings of `row` as they are written there."""
        first, second = self.table.item(row, 0), self.table.item(row, 1)
        assert first is not None and second is not None
        return first.text().strip(), second.text().strip()

    def add(self) -> None:
        """A new row at the end, ready to be written in."""
        row = self._add_row("", "")
        self.table.setCurrentCell(row, 0)
        self._changed()
        self.table.edit(self.table.model().index(row, 0))

    def remove(self) -> None:
        self.table.removeRow(self.table.currentRow())
        self._changed()

    def up(self) -> None:
        self._move(-1)

    def down(self) -> None:
        self._move(1)

    def _move(self, step: int) -> None:
        row = self.table.currentRow()
        other = row + step
        if min(row, other) < 0 or max(row, other) >= self.table.rowCount():
            return
        self.table.blockSignals(True)
        for column in range(len(TITLES)):
            first, second = self.table.takeItem(row, column), self.table.takeItem(other, column)
            self.table.setItem(row, column, second)
            self.table.setItem(other, column, first)
        self.table.blockSignals(False)
        self.table.setCurrentCell(other, self.table.currentColumn())
        self._changed()

    def _show_tools(self) -> None:
        row, count = self.table.currentRow(), self.table.rowCount()
        chosen = 0 <= row < count and bool(self.table.selectedItems())
        self.buttons["Remove"].setEnabled(chosen)
        self.buttons["Up"].setEnabled(chosen and row > 0)
        self.buttons["Down"].setEnabled(chosen and row < count - 1)

    # -- what they say -------------------------------------------------------------------------

    def _read(self) -> dict[str, LayerSettings]:
        found: dict[str, LayerSettings] = {}
        for row in range(self.table.rowCount()):
            pattern, words = self.entry(row)
            where = f"Row {row + 1}"
            if not pattern:
                raise ConfigError(f"{where} names no layers.", "Write a name or a pattern.")
            if pattern in found:
                raise ConfigError(f"{where}: {pattern!r} is there twice.", "Keep one of the two.")
            try:
                found[pattern] = parsed(words)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error.message}", error.hint) from None
        return found

    def _changed(self) -> None:
        count = self.table.rowCount()
        self.table.setVisible(count > 0)
        self.empty.setVisible(count == 0)
        self._show_tools()
        problem = ""
        try:
            self.layers = self._read()
        except ConfigError as error:
            problem = f"{error.message} {error.hint}"
        self.problem.setText(problem)
        self.problem.setVisible(bool(problem))
        self.apply.setEnabled(not problem)
        self._timer.start()

    def _count(self) -> None:
        document = self._session.document
        patterns = tuple(self.entry(row)[0] for row in range(self.table.rowCount()))
        if document is None or not any(patterns):
            return
        if self._job is not None:
            self._session.forget(self._job)

        def failed(error: StudioError) -> None:
            self._job = None
            if not isinstance(error, CancelledError):
                self.problem.setText(error.message)
                self.problem.show()

        work = tasks.matching_layers(document, tuple(filter(None, patterns)))
        self._job = self._session.aside("matching layers", work, self._show_matches, failed)

    def _show_matches(self, found: dict[str, tuple[str, ...]]) -> None:
        self._job = None
        self.table.blockSignals(True)
        for row in range(self.table.rowCount()):
            layers = found.get(self.entry(row)[0])
            item = self.table.item(row, 2)
            if item is None or layers is None:
                continue
            item.setText(text.plural(len(layers), "layer") if layers else "! no layer")
            item.setForeground(current_theme().color("muted" if layers else "warn"))
            shown = ", ".join(layers[:20]) + (" …" if len(layers) > 20 else "")
            item.setToolTip(shown or "Nothing has this name; the entry has no effect.")
        self.table.blockSignals(False)

    def done(self, result: int) -> None:
        self._timer.stop()
        if self._job is not None:
            self._session.forget(self._job)
            self._job = None
        super().done(result)
