"""How an encodings file fits the model, before it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QButtonGroup,
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from studio.app import text
from studio.app.text_table import Row, TextTable
from studio.app.widgets import label

if TYPE_CHECKING:
    from studio.exporting.encodings import MatchReport

TITLES = ("Finding", "Tensor", "What is different, and what to do")
ROLES = {"UNKNOWN": "bad", "MISFIT": "bad", "MISSING": "warn"}
SHORT = {
    "UNKNOWN": "unknown",
    "PREPARED_AWAY": "prepared away",
    "MISFIT": "does not fit",
    "DIFFERENT": "different",
    "MISSING": "missing",
}
WHOLE = "What the file leaves out stays float"
PARTLY = "What the file leaves out follows the target and is calibrated"


def finding_rows(report: MatchReport) -> list[Row]:
    """Every finding, the ones that matter most first."""
    order = list(SHORT)
    rows = []
    for finding in report.findings:
        kind = finding.kind.name
        words = f"{finding.message[0].upper()}{finding.message[1:]}. {finding.action}"
        cells = (SHORT[kind], finding.name, words)
        role = ROLES.get(kind, "muted")
        rows.append(Row(cells, role=role, keys=(float(order.index(kind)), *cells[1:])))
    return sorted(rows, key=lambda row: row.keys[0])


def summary_text(report: MatchReport) -> str:
    """`16 encodings match · 1 unknown · 2 missing`."""
    found = [finding.kind.name for finding in report.findings]
    parts = [f"{text.plural(len(report.encodings), 'encoding')} fit the model"]
    parts += [f"{found.count(kind)} {words}" for kind, words in SHORT.items() if kind in found]
    return " · ".join(parts)


class EncodingsMatchDialog(QDialog):
    """`partial` says what is done about what the file leaves out, once accepted."""

    def __init__(self, report: MatchReport, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Load encodings")
        self.resize(920, 500)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(24, 20, 24, 18)
        layout.setSpacing(10)
        layout.addWidget(label(f"{report.file} · version {report.version}", "heading"))
        self.summary = label(summary_text(report), "" if report.encodings else "bad", wrap=True)
        layout.addWidget(self.summary)
        self.table = TextTable("Findings", TITLES, (110, 280), "Everything matches.")
        self.table.set_rows(finding_rows(report))
        self.table.table.setWordWrap(True)
        rows = self.table.table.verticalHeader()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.bar.setVisible(len(report.findings) > 8)
        layout.addWidget(self.table.bar, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self.table, 1)
        self.whole, self.partly = QRadioButton(WHOLE), QRadioButton(PARTLY)
        group = QButtonGroup(self)
        for choice in (self.whole, self.partly):
            group.addButton(choice)
            layout.addWidget(choice)
        problems = len(report.problems)
        self.whole.setEnabled(not problems)
        (self.partly if problems else self.whole).setChecked(True)
        words = "Settings made so far give way to the file; Undo brings them back."
        if problems:
            entries = "1 entry" if problems == 1 else f"{problems} entries"
            words = f"{entries} of the file cannot be used and will be left out. {words}"
        if not report.encodings:
            words = "Nothing in the file fits the model: give the file that belongs to it."
        self.note = label(words, "muted" if report.encodings else "bad", wrap=True)
        layout.addWidget(self.note)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.load_button = buttons.addButton("Load", QDialogButtonBox.ButtonRole.AcceptRole)
        self.load_button.setProperty("role", "primary")
        self.load_button.setEnabled(bool(report.encodings))
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout.addWidget(buttons)
        for button in self.findChildren(QPushButton):
            button.setAutoDefault(button is self.load_button)
        self.load_button.setFocus()

    @property
    def partial(self) -> bool:
        return self.partly.isChecked()
