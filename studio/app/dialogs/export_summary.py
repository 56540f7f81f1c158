"""What an export wrote, how accurate it is, and whether the runtime computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices, QFontDatabase, QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from studio.app import text
from studio.app.widgets import elided, label, line

if TYPE_CHECKING:
    from studio.analysis.quality import Evaluation
    from studio.exporting.summary import ExportSummary, RuntimeCheck, Verification

Rows = list[tuple[str, str]]

MARGIN = 60
"""Pixels of the screen that the dialog leaves free."""

RANDOM = "RANDOM DATA: the figures say nothing about real use. Choose images and calibrate again."
DIFFERS = (
    "Do not use these files. Look for the layer in the report, keep it in float, and export again."
)


def size_rows(summary: ExportSummary) -> Rows:
    """Every file with its size."""
    return [
        (artifact.name, f"{text.size(artifact.bytes)} · {artifact.what}")
        for artifact in summary.artifacts
    ]


def quality_rows(evaluation: Evaluation | None) -> Rows:
    """Accuracy float against simulated."""
    if evaluation is None:
        return [("Accuracy", "not measured: run Evaluate")]
    rows: Rows = []
    exact, simulated = evaluation.float_accuracy, evaluation.accuracy
    if exact is not None and simulated is not None:
        rows.append(
            ("Top-1", f"{text.percent(simulated.top1)} simulated, {text.percent(exact.top1)} float")
        )
        rows.append(
            ("Top-5", f"{text.percent(simulated.top5)} simulated, {text.percent(exact.top5)} float")
        )
    if evaluation.agreement is not None:
        rows.append(("Same class as float", text.percent(evaluation.agreement)))
    rows.append(("Output SQNR", text.decibels(evaluation.output.sqnr_db)))
    return rows


def verification_rows(check: Verification) -> Rows:
    """onnxruntime against the simulation."""
    rows = [
        ("Layers checked", f"{len(check.layers)}, on {text.plural(check.samples, 'sample')}"),
        ("Identical integers", f"{text.share(check.identical)} in the worst layer"),
        ("Largest difference", text.plural(check.largest, "step")),
    ]
    for title, end in (("Optimisations off", check.plain), ("Optimisations on", check.optimized)):
        words = f"SQNR {text.decibels(end.distance.sqnr_db)}"
        if end.agreement is not None:
            words += f" · {text.percent(end.agreement)} same class"
        rows.append((title, words))
    if check.integer_nodes or check.float_nodes:
        rows.append(
            (
                "Runs in integers",
                f"{check.integer_nodes} of {check.integer_nodes + check.float_nodes} compute nodes",
            )
        )
    if check.kernels:
        rows.append(("Forecast", forecast_text(check)))
    if check.refused:
        rows.append(("Not taken", check.refused))
    return rows


def forecast_text(check: Verification) -> str:
    """How many layers onnxruntime fused as was forecast, and which it did not."""
    count, wrong = len(check.kernels), check.not_as_forecast
    if not wrong:
        return f"all {text.plural(count, 'layer')} run as forecast"
    first = wrong[0]
    ran = f"{first.layer} runs {first.kernel or 'nothing'} in {first.runs.value}"
    more = f", and {len(wrong) - 1} more: see the Forecast tab" if len(wrong) > 1 else ""
    return f"{len(wrong)} of {count} layers otherwise: {ran}{more}"


def latency_rows(check: Verification) -> Rows:
    """Time of one run, float and quantized; empty if it was not measured."""
    found = check.latency
    if found is None:
        return []
    words = (
        f"{text.number(found.quantized_ms, 3)} ms quantized, "
        f"{text.number(found.float_ms, 3)} ms float"
    )
    how = f"{text.plural(found.samples, 'sample')} a run, one thread, median of {found.rounds}"
    faster = 1 / found.ratio
    speed = f"{faster:.2f}× as fast" if faster >= 1 else f"{found.ratio:.2f}× as long"
    return [("Latency", f"{words}: {speed}"), ("", how)]


def runtime_text(check: RuntimeCheck) -> str:
    """How another runtime agrees with the simulation, or why it was not asked."""
    if check.distance is None:
        return f"{check.problem}; run there:"
    words = f"SQNR {text.decibels(check.distance.sqnr_db)}"
    if check.agreement is not None:
        words += f" · {text.percent(check.agreement)} same class"
    return f"{words}, {text.plural(check.samples, 'sample')}"


class ExportSummaryDialog(QDialog):
    """Opens the folder or the report on request; `open_url` is replaced in tests.

    `synthetic`: the ranges or the figures come from random data.
    """

    def __init__(
        self,
        summary: ExportSummary,
        evaluation: Evaluation | None,
        parent: QWidget | None = None,
        synthetic: bool = False,
        open_url: Callable[[QUrl], object] = QDesktopServices.openUrl,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export")
        self.setMinimumWidth(780)
        self._summary = summary
        self._open_url = open_url
        layout = QVBoxLayout(self)
        layout.setContentsMargins(24, 20, 24, 18)
        layout.setSpacing(12)
        layout.addLayout(self._headline(summary))
        if synthetic:
            layout.addWidget(label(RANDOM, "badge", wrap=True))
        for warning in summary.warnings:
            layout.addWidget(label(warning, "warn", wrap=True))
        layout.addWidget(line())
        content = QWidget()
        sections = QVBoxLayout(content)
        sections.setContentsMargins(0, 0, 8, 0)
        sections.setSpacing(12)
        self._section(sections, "FILES", size_rows(summary))
        self._section(sections, "AGAINST THE FLOAT MODEL", quality_rows(evaluation))
        check = summary.verification
        if check is not None:
            rows = [*verification_rows(check), *latency_rows(check)]
            self._section(sections, "ONNXRUNTIME AGAINST THE SIMULATION", rows)
            if check.other_runtimes:
                self._runtimes(sections, check.other_runtimes)
        layout.addWidget(self._scrolled(content), 1)
        layout.addLayout(self._buttons(summary))
        self.open_folder.setFocus()
        # All of it where the screen allows.
        hidden = content.sizeHint().height() - self._scroll.sizeHint().height()
        room = self.screen().availableGeometry().height() - MARGIN
        self.resize(self.minimumWidth(), min(self.sizeHint().height() + hidden + 8, room))

    def _scrolled(self, content: QWidget) -> QScrollArea:
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._scroll.setWidget(content)
        return self._scroll

    def _headline(self, summary: ExportSummary) -> QHBoxLayout:
        check = summary.verification
        if check is None:
            words, role = "Exported", "muted"
        elif check.passed:
            words, role = "Verified: onnxruntime computes what was simulated", "good"
        else:
            words, role = f"{check.problem} {DIFFERS}", "bad"
        self.verdict = label(words, role, wrap=True)
        self.folder = elided(str(summary.folder), "muted")
        ratio = summary.float_bytes / max(1, summary.quantized_bytes)
        self.ratio = label(f"{ratio:.1f}×", "figure")
        before, after = text.size(summary.float_bytes), text.size(summary.quantized_bytes)
        sizes = label(f"smaller: {after}, float {before}", "muted")
        left = QVBoxLayout()
        left.setSpacing(4)
        left.addWidget(
            label("Exported, but not as simulated" if role == "bad" else "Export done", "heading")
        )
        left.addWidget(self.verdict)
        left.addWidget(self.folder)
        right = QVBoxLayout()
        right.setSpacing(0)
        right.addWidget(self.ratio)
        right.addWidget(sizes)
        row = QHBoxLayout()
        row.setSpacing(24)
        row.addLayout(left, 1)
        row.addLayout(right)
        return row

    def _section(self, layout: QVBoxLayout, title: str, rows: Rows) -> None:
        layout.addWidget(label(title, "caption"))
        grid = QGridLayout()
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(4)
        grid.setColumnMinimumWidth(0, 150)
        grid.setColumnStretch(1, 1)
        for index, (name, value) in enumerate(rows):
            grid.addWidget(label(name, "muted"), index, 0)
            shown: QLabel = elided(value)
            grid.addWidget(shown, index, 1)
        layout.addLayout(grid)
        layout.addSpacing(4)

    def _runtimes(self, layout: QVBoxLayout, checks: tuple[RuntimeCheck, ...]) -> None:
        layout.addWidget(label("OTHER RUNTIMES", "caption"))
        grid = QGridLayout()
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(4)
        grid.setColumnMinimumWidth(0, 150)
        grid.setColumnStretch(1, 1)
        self.commands: list[QLineEdit] = []
        for check in checks:
            row = grid.rowCount()
            grid.addWidget(label(f"{check.runtime} {check.version}".strip(), "muted"), row, 0)
            grid.addWidget(elided(runtime_text(check)), row, 1)
            if check.command:
                command = QLineEdit(check.command)
                command.setReadOnly(True)
                command.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
                command.setAccessibleName(f"Command for {check.runtime}")
                command.setCursorPosition(0)
                copy = QPushButton("Copy")
                copy.setAutoDefault(False)
                copy.setAccessibleName(f"Copy the command for {check.runtime}")
                copy.clicked.connect(
                    lambda _checked=False, words=check.command: QGuiApplication.clipboard().setText(
                        words
                    )
                )
                line_ = QHBoxLayout()
                line_.addWidget(command, 1)
                line_.addWidget(copy)
                grid.addLayout(line_, row + 1, 1)
                self.commands.append(command)
        layout.addLayout(grid)

    def _buttons(self, summary: ExportSummary) -> QHBoxLayout:
        row = QHBoxLayout()
        self.open_folder = QPushButton("Open folder")
        self.open_folder.clicked.connect(lambda: self._open(summary.folder))
        row.addWidget(self.open_folder)
        report = summary.folder / "report.html"
        self.open_report = QPushButton("Open report")
        self.open_report.setEnabled(any(item.name == report.name for item in summary.artifacts))
        self.open_report.clicked.connect(lambda: self._open(report))
        row.addWidget(self.open_report)
        row.addStretch(1)
        close = QPushButton("Close")
        close.setProperty("role", "primary")
        close.setDefault(True)
        close.clicked.connect(self.accept)
        row.addWidget(close)
        return row

    def _open(self, path: Path) -> None:
        self._open_url(QUrl.fromLocalFile(str(path)))
