"""The steps at the left: what is done, what is running, what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetrics,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractButton, QSizePolicy, QVBoxLayout, QWidget

from studio.app import text
from studio.app.actions import Actions
from studio.app.session import Session
from studio.app.theme import current_theme, notifier, ui_font
from studio.app.widgets import label
from studio.jobs import Progress

if TYPE_CHECKING:
    from studio.project.document import Document


class StepState(Enum):
    DONE = "done"
    CURRENT = "running"
    NEXT = "next"
    TO_DO = "to do"


@dataclass(frozen=True)
class Step:
    """One entry: command it runs, title, one or two lines of detail, state."""

    command: str
    title: str
    detail: str
    state: StepState


TEXT_LEFT = 41
JOB_COMMANDS = {
    "Calibrating": "calibrate",
    "Improving": "improve",
    "Evaluating": "evaluate",
    "Exporting": "export",
}
OPTIONAL = ("improve",)


def workflow_steps(document: Document | None, job_step: str = "", progress: str = "") -> list[Step]:
    """The steps of `document`; `job_step` is the running one and `progress` what it says."""
    facts: list[tuple[str, str, str, bool]] = []
    if document is None:
        facts.append(("open", "Model", "Open a model", False))
        names = ("data", "Data"), ("layers", "Configure"), ("calibrate", "Calibrate")
        facts += [(*name, "", False) for name in names]
        facts += [("improve", "Improve", "", False)]
        facts += [("evaluate", "Evaluate", "", False), ("export", "Export", "", False)]
    else:
        facts = _facts(document)
    running = JOB_COMMANDS.get(job_step.partition(" ")[0], "")
    waiting = next((fact[0] for fact in facts if not fact[3] and fact[0] not in OPTIONAL), "")
    result = []
    for command, title, detail, done in facts:
        state = StepState.DONE if done else StepState.TO_DO
        if command == running:
            state, detail = StepState.CURRENT, progress or detail
        elif command == waiting and not running:
            state = StepState.NEXT
        result.append(Step(command, title, detail, state))
    return result


def _facts(document: Document) -> list[tuple[str, str, str, bool]]:
    data, calibration, evaluation = document.data, document.calibration, document.evaluation
    changed = sum(bool(layer.changed) for layer in document.plan.layers)
    layers = text.plural(len(document.plan.layers) - len(document.shape_layers), "layer")
    data_detail = "Choose calibration data"
    if data is not None:
        data_detail = text.unbroken(f"{data.name} ·", f"calibrate on {data.calibration_size}")
    config = text.unbroken(
        f"{document.config.target} ·", f"{changed} changed" if changed else "defaults"
    )
    calibrate = "Find the ranges"
    if calibration is not None:
        samples = text.plural(calibration.samples, "sample")
        calibrate = text.unbroken(f"{samples} ·", calibration.data)
    elif document.from_file and document.calibrated:
        calibrate = "From the file"
    improve = "Optional"
    if document.applied:
        improve = text.plural(len(document.applied), "technique") + " applied"
    evaluate = "Compare with float"
    if evaluation is not None:
        evaluate = text.unbroken(f"SQNR {text.decibels(evaluation.output.sqnr_db)}")
        if evaluation.accuracy is not None and evaluation.float_accuracy is not None:
            simulated, exact = evaluation.accuracy.top1, evaluation.float_accuracy.top1
            evaluate = text.unbroken(
                f"top-1 {text.percent(simulated)},", f"float {text.percent(exact)}"
            )
        if evaluation.synthetic:
            evaluate = text.unbroken("RANDOM DATA ·", evaluate)
    export = "ONNX and encodings"
    if document.export is not None:
        export = f"to {document.export.folder.name}"
    return [
        ("graph", "Model", text.unbroken(f"{document.graph.source.name} ·", layers), True),
        ("data", "Data", data_detail, data is not None),
        ("layers", "Configure", config, True),
        ("calibrate", "Calibrate", calibrate, _calibrated(document)),
        ("improve", "Improve", improve, bool(document.applied)),
        ("evaluate", "Evaluate", evaluate, evaluation is not None),
        ("export", "Export", export, document.export is not None),
    ]


def _calibrated(document: Document) -> bool:
    return document.calibration is not None or (document.from_file and document.calibrated)


def two_lines(words: str, metrics: QFontMetrics, width: int) -> list[str]:
    """`words` in at most two lines of `width` pixels, broken at a space, what is long elided."""
    if not words:
        return []
    first, rest = words, ""
    while metrics.horizontalAdvance(first) > width and " " in first:
        first, _, word = first.rpartition(" ")
        rest = f"{word} {rest}".rstrip()
    lines = [first, rest] if rest else [first]
    return [metrics.elidedText(line, Qt.TextElideMode.ElideMiddle, width) for line in lines]


class StepButton(QAbstractButton):
    """A round mark, a title and a detail of at most two lines."""

    def __init__(self, number: int, step: Step) -> None:
        super().__init__()
        self.number = number
        self.step = step
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.show_step(step)
        notifier.theme_changed.connect(self._repaint)

    def _repaint(self) -> None:
        self.update()

    def show_step(self, step: Step) -> None:
        self.step = step
        self.setText(step.title)
        self.setAccessibleName(f"{step.title}, {step.state.value}")
        self.setAccessibleDescription(step.detail)
        self.setToolTip(step.detail)
        self._fit_height()
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(180, self.minimumHeight())

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._fit_height()

    def _fit_height(self) -> None:
        lines = two_lines(self.step.detail, QFontMetrics(ui_font(12)), self._text_width())
        self.setFixedHeight(38 + 16 * len(lines))

    def _text_width(self) -> int:
        return max(60, self.width() - TEXT_LEFT - 8)

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        state = self.step.state
        if state is StepState.CURRENT:
            _fill(painter, box, theme.color("selection"))
        elif self.underMouse():
            _fill(painter, box, theme.color("raised"))
        if self.hasFocus():
            painter.setPen(QPen(theme.color("accent"), 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(box, 6, 6)
        self._mark(painter, QRectF(9, 9, 22, 22))
        left, width = TEXT_LEFT, self._text_width()
        painter.setFont(ui_font(13, QFont.Weight.DemiBold))
        to_do = state is StepState.TO_DO
        painter.setPen(theme.color("muted" if to_do else "text"))
        painter.drawText(QRectF(left, 8, width, 18), Qt.AlignmentFlag.AlignVCenter, self.step.title)
        painter.setFont(ui_font(12))
        painter.setPen(theme.color("muted"))
        for index, words in enumerate(two_lines(self.step.detail, painter.fontMetrics(), width)):
            box = QRectF(left, 27 + 16 * index, width, 16)
            painter.drawText(box, Qt.AlignmentFlag.AlignVCenter, words)
        painter.end()

    def _mark(self, painter: QPainter, circle: QRectF) -> None:
        theme = current_theme()
        state = self.step.state
        painter.setPen(Qt.PenStyle.NoPen)
        if state is StepState.DONE:
            painter.setBrush(theme.color("good"))
            painter.drawEllipse(circle)
            painter.setPen(QPen(theme.color("background"), 2))
            center = circle.center()
            tick = (QPointF(-4.5, 0.5), QPointF(-1.5, 3.5), QPointF(4.5, -3))
            painter.drawPolyline([center + point for point in tick])
            return
        if state is StepState.CURRENT:
            painter.setBrush(theme.color("accent"))
            painter.drawEllipse(circle)
            painter.setBrush(theme.color("background"))
            painter.drawEllipse(circle.center(), 4, 4)
            return
        accent = state is StepState.NEXT
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(theme.color("accent" if accent else "border_strong"), 1.5))
        painter.drawEllipse(circle.adjusted(0.5, 0.5, -0.5, -0.5))
        painter.setFont(ui_font(12))
        painter.setPen(theme.color("link" if accent else "muted"))
        painter.drawText(circle, Qt.AlignmentFlag.AlignCenter, str(self.number))


def _fill(painter: QPainter, box: QRectF, color: QColor) -> None:
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(color)
    painter.drawRoundedRect(box, 6, 6)


class WorkflowPanel(QWidget):
    """`chosen` carries the command of the step that was clicked."""

    chosen = Signal(str)

    def __init__(self, session: Session, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Workflow")
        self._session = session
        self._actions = actions
        self._progress = ""
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 14, 8, 10)
        layout.setSpacing(4)
        caption = label("WORKFLOW", "caption")
        caption.setContentsMargins(9, 0, 0, 0)
        layout.addWidget(caption)
        layout.addSpacing(6)
        self.buttons: list[StepButton] = []
        for number, step in enumerate(workflow_steps(None), 1):
            button = StepButton(number, step)
            button.clicked.connect(lambda _checked=False, button=button: self._choose(button))
            self.buttons.append(button)
            layout.addWidget(button)
        layout.addStretch(1)
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self._job_changed)
        session.progress.connect(self._show_progress)
        self.refresh()

    def _choose(self, button: StepButton) -> None:
        action = self._actions[button.step.command]
        if action.isEnabled():
            action.trigger()

    def _job_changed(self) -> None:
        self._progress = ""
        self.refresh()

    def _show_progress(self, progress: Progress) -> None:
        detail = text.progress(progress.done, progress.total, progress.detail)
        if detail != self._progress:
            self._progress = detail
            self.refresh()

    def refresh(self) -> None:
        steps = workflow_steps(self._session.document, self._session.job_step, self._progress)
        for button, step in zip(self.buttons, steps, strict=True):
            if button.step != step:
                button.show_step(step)
            action = self._actions[step.command]
            if not action.isEnabled() and not self._session.busy:
                button.setToolTip(action.toolTip())
