"""A form made from the options of a technique."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QToolButton, QVBoxLayout, QWidget

from studio.app.improve.fields import OptionField
from studio.app.widgets import label

if TYPE_CHECKING:
    from studio.techniques.technique import Options

TITLE_WIDTH = 118
NARROW = 500
"""Width below which a description stands under its editor."""


class OptionsForm(QWidget):
    """A row for each option of `kind`; `changed` after every edit. The common ones are shown,
    the others behind "More"."""

    changed = Signal()

    def __init__(self, kind: type[Options], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._kind = kind
        self._filling = True
        common = kind.common or tuple(kind.model_fields)
        rare = [name for name in kind.model_fields if name not in common]
        self.fields = {
            name: OptionField(name, kind.model_fields[name], self._edited)
            for name in (*common, *rare)
        }
        self._rare = [self.fields[name] for name in rare]
        self.more = QToolButton()
        self.more.setCheckable(True)
        self.more.setProperty("role", "chip")
        self.more.setAccessibleName("More options")
        self.more.setToolTip("Options that few need")
        self.more.setVisible(bool(rare))
        self.more.toggled.connect(self._fold)
        self.problem = label("", "bad", wrap=True)
        self.problem.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        self._narrow = False
        self._common = [self.fields[name] for name in common]
        self._grids = [_grid(fields) for fields in (self._common, self._rare)]
        layout.addLayout(self._grids[0])
        layout.addWidget(self.more, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addLayout(self._grids[1])
        layout.addWidget(self.problem)
        layout.addStretch(1)
        self._place()
        self.show_values({})
        self._fold(False)

    def _place(self) -> None:
        """Put the descriptions where they fit."""
        for grid, fields in zip(self._grids, (self._common, self._rare), strict=True):
            for row, field in enumerate(fields):
                grid.removeWidget(field.about)
                if self._narrow:
                    grid.addWidget(field.about, 3 * row + 1, 1, 1, 2)
                else:
                    grid.addWidget(field.about, 3 * row, 2)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        narrow = event.size().width() < NARROW
        if narrow != self._narrow:
            self._narrow = narrow
            self._place()

    def show_values(self, values: dict[str, Any]) -> None:
        """Show options as JSON-like values, the default for those that are missing."""
        shown = self._kind.model_validate(values).model_dump(mode="json")
        self._filling = True
        for name, field in self.fields.items():
            field.show_value(shown[name])
        self._filling = False
        self._edited()

    def options(self) -> Options | None:
        """What the form says; None if a value cannot be, and then the field says why."""
        from pydantic import ValidationError

        wrong: dict[str, str] = {}
        try:
            options = self._kind.model_validate(
                {n: field.value for n, field in self.fields.items()}
            )
        except ValidationError as error:
            options = None
            for item in error.errors():
                words = item["msg"].removeprefix("Value error, ").replace("Input should", "Should")
                name = str(item["loc"][0]) if item["loc"] else _named(words, self.fields)
                wrong.setdefault(name, f"{words[:1].upper()}{words[1:]}.")
        for name, field in self.fields.items():
            field.show_problem(wrong.get(name, ""))
        self.problem.setText(wrong.get("", ""))
        self.problem.setVisible("" in wrong)
        if any(field.name in wrong for field in self._rare):
            self.more.setChecked(True)
        return options

    def _edited(self) -> None:
        if not self._filling:
            self.changed.emit()

    def _fold(self, opened: bool) -> None:
        self.more.setText("Fewer options" if opened else f"More options ({len(self._rare)})")
        for field in self._rare:
            field.set_visible(opened)


def _grid(fields: list[OptionField]) -> QGridLayout:
    """Three rows for each field: title, editor and description; description; problem."""
    grid = QGridLayout()
    grid.setHorizontalSpacing(12)
    grid.setVerticalSpacing(4)
    grid.setColumnMinimumWidth(0, TITLE_WIDTH)
    grid.setColumnStretch(2, 1)
    for row, field in enumerate(fields):
        grid.addWidget(field.title, 3 * row, 0)
        grid.addWidget(field.widget, 3 * row, 1)
        grid.addWidget(field.problem, 3 * row + 2, 1, 1, 2)
    return grid


def _named(words: str, fields: dict[str, OptionField]) -> str:
    """The option that a message about all of them names; "" if it names none."""
    return next((name for name in fields if name in words), "")
