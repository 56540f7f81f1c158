"""The encoding of one tensor: its rows and the reason."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from studio.app.inspector.facts import EncodingFacts
from studio.app.widgets import elided, label


class FactGrid(QWidget):
    """Two columns of text: what, value."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layout = QGridLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setVerticalSpacing(4)
        self._layout.setHorizontalSpacing(8)
        self._layout.setColumnMinimumWidth(0, 104)
        self._layout.setColumnStretch(1, 1)
        self._labels: list[tuple[QLabel, QLabel]] = []

    def show_rows(self, rows: list[tuple[str, str]]) -> None:
        while len(self._labels) < len(rows):
            pair = (label("", "muted"), elided())
            pair[1].setTextInteractionFlags(Qt.TextInteractionFlag.NoTextInteraction)
            row = len(self._labels)
            self._layout.addWidget(pair[0], row, 0)
            self._layout.addWidget(pair[1], row, 1)
            self._labels.append(pair)
        for index, (left, right) in enumerate(self._labels):
            shown = index < len(rows)
            left.setVisible(shown)
            right.setVisible(shown)
            if shown:
                left.setText(rows[index][0])
                right.setText(rows[index][1])

    def rows(self) -> list[tuple[str, str]]:
        """What is shown."""
        return [(a.text(), b.text()) for a, b in self._labels if not a.isHidden()]


class EncodingBlock(QWidget):
    """Heading with role and tensor name, rows, reason."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = elided("", "muted")
        self.grid = FactGrid()
        self.reason = label("", "muted", wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.setSpacing(4)
        layout.addWidget(self.title)
        layout.addWidget(self.grid)
        layout.addWidget(self.reason)

    def show_facts(self, facts: EncodingFacts) -> None:
        self.title.setText(f"{facts.role} · {facts.tensor}")
        self.grid.show_rows(list(facts.rows))
        self.reason.setText(facts.reason)
        self.reason.setVisible(bool(facts.reason))
