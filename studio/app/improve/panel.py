"""Choose a technique, set its options, apply it; what was applied so far beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from studio.app.improve.applied import AppliedView
from studio.app.improve.form import OptionsForm
from studio.app.improve.offer import CheckpointOffer, offer_text
from studio.app.improve.run import CHECKPOINTS, checkpoint_folder, improve
from studio.app.session import Session
from studio.app.widgets import fit_list, label, line

if TYPE_CHECKING:
    from studio.techniques.technique import Options, Technique

LIST_WIDTH, FORM_WIDTH, APPLIED_WIDTH = 222, 484, 384
LIST_HEIGHT = 520
FIRST = "autoquant"
"""The technique that tries the others."""

KEPT = "Checkpoints are kept in {}: a training that is cut off can go on."
NOT_KEPT = "Save the project, and checkpoints are kept beside it: a cut-off training can go on."


class ImprovePanel(QWidget):
    """`offered`: a project was opened whose training was cut off."""

    offered = Signal()
    layer_chosen = Signal(str)
    curves_wanted = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        from studio.project.techniques import TECHNIQUES

        self._session = session
        self._techniques: tuple[Technique, ...] = tuple(TECHNIQUES.values())
        self._opened_path: Path | None = None
        self._just_opened = False
        self.offer = CheckpointOffer(session, self)
        self.list = QListWidget()
        self.list.setAccessibleName("Techniques")
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.title = label("", "heading")
        self.about = label("", wrap=True)
        self.kept = label("", "muted", wrap=True)
        self.forms: dict[str, OptionsForm] = {}
        self.pages = QStackedWidget()
        self.apply = QPushButton("Apply")
        self.apply.setProperty("role", "primary")
        self.apply.clicked.connect(lambda: self._start(anew=True))
        self.reason = label("", "muted", wrap=True)
        self.applied = AppliedView(session)
        self.applied.layer_chosen.connect(self.layer_chosen)
        self.applied.curves_wanted.connect(self.curves_wanted)
        self._build()
        self._look_soon = QTimer(self)
        self._look_soon.setSingleShot(True)
        self._look_soon.setInterval(200)
        self._look_soon.timeout.connect(self._look)
        for technique in self._techniques:
            self._add(technique)
        fit_list(self.list, LIST_HEIGHT)
        self.list.currentRowChanged.connect(self._choose)
        self.list.setCurrentRow(0)
        self.offer.changed.connect(self._show_offer)
        session.opened.connect(self._opened)
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self.refresh)
        self._opened()
        self.refresh()

    # -- building ------------------------------------------------------------------------------

    def _build(self) -> None:
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(6, 12, 6, 8)
        column.setSpacing(6)
        caption = label("TECHNIQUES", "caption")
        caption.setContentsMargins(10, 0, 0, 0)
        column.addWidget(caption)
        column.addWidget(self.list)
        column.addStretch(1)
        self.split = QSplitter(Qt.Orientation.Horizontal)
        self.split.setChildrenCollapsible(False)
        for widget in (left, self._middle(), self.applied):
            self.split.addWidget(widget)
        self.split.setSizes([LIST_WIDTH, FORM_WIDTH, APPLIED_WIDTH])
        self.split.setStretchFactor(1, 1)
        left.setMinimumWidth(140)
        self.applied.setMinimumWidth(260)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.split)

    def _middle(self) -> QWidget:
        self.banner = QFrame()
        self.banner.setObjectName("offer")
        self.offer_text = label("", wrap=True)
        self.proceed = QPushButton("Continue")
        self.proceed.setToolTip("Go on from the checkpoint, with the options it was started with")
        self.proceed.clicked.connect(lambda: self._start(anew=False))
        row = QHBoxLayout(self.banner)
        row.setContentsMargins(12, 8, 10, 8)
        row.addWidget(self.offer_text, 1)
        row.addWidget(self.proceed)
        self.banner.hide()
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 12, 0)
        column.setSpacing(8)
        column.addWidget(self.pages)
        column.addWidget(self.kept)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setWidget(inside)
        foot = QHBoxLayout()
        foot.setSpacing(12)
        foot.addWidget(self.apply)
        foot.addWidget(self.reason, 1)
        middle = QWidget()
        layout = QVBoxLayout(middle)
        layout.setContentsMargins(18, 12, 8, 12)
        layout.setSpacing(8)
        layout.addWidget(self.title)
        layout.addWidget(self.about)
        layout.addWidget(self.banner)
        layout.addSpacing(4)
        layout.addWidget(scroll, 1)
        layout.addWidget(line())
        layout.addLayout(foot)
        middle.setMinimumWidth(350)
        return middle

    def _add(self, technique: Technique) -> None:
        item = QListWidgetItem(technique.title)
        item.setToolTip(technique.description)
        if technique.name == FIRST:
            font = self.list.font()
            font.setBold(True)
            item.setFont(font)
        self.list.addItem(item)
        form = OptionsForm(technique.options)
        form.changed.connect(self.refresh)
        self.forms[technique.name] = form
        self.pages.addWidget(form)

    # -- what is chosen ------------------------------------------------------------------------

    @property
    def technique(self) -> Technique:
        """The one that is chosen."""
        return self._techniques[max(0, self.list.currentRow())]

    @property
    def form(self) -> OptionsForm:
        return self.forms[self.technique.name]

    def choose(self, name: str) -> None:
        """Show the technique `name`."""
        names = [technique.name for technique in self._techniques]
        self.list.setCurrentRow(names.index(name))

    def _choose(self, row: int) -> None:
        self.title.setText(self.technique.title)
        self.about.setText(self.technique.description)
        self.pages.setCurrentIndex(row)
        ignored = QSizePolicy.Policy.Ignored
        for name, form in self.forms.items():  # the others make it neither longer nor wider
            policy = QSizePolicy.Policy.Preferred if name == self.technique.name else ignored
            form.setSizePolicy(policy, policy)
        self.refresh()

    def _folder(self, options: Options | None) -> Path | None:
        """Where the chosen technique would keep its checkpoint."""
        document = self._session.document
        if document is None or not _keeps(self.technique):
            return None
        own: Path | None = getattr(options, CHECKPOINTS, None)
        return own or checkpoint_folder(document)

    # -- showing -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show whether the technique can be applied now, and if not, why."""
        options = self.form.options()
        reason = self._blocked()
        wrong = "" if options is not None else "Put right what is marked in red."
        self.pages.setEnabled(not self._session.busy)
        self.apply.setEnabled(not reason and not wrong)
        self.proceed.setEnabled(not reason)
        self.reason.setText(reason or wrong)
        self.apply.setToolTip(reason or wrong or "One undoable edit")
        folder = self._folder(options)
        able = _keeps(self.technique)
        self.kept.setText(KEPT.format(folder) if folder is not None else NOT_KEPT if able else "")
        self._look_soon.start()

    def _blocked(self) -> str:
        session, document = self._session, self._session.document
        if document is None:
            return "Open a model first."
        if session.busy:
            return f"{session.job_step} is running."
        known = document.calibration is not None or document.from_file
        if self.technique.calibrated and not known:
            return "Calibrate first."
        return "" if document.data is not None else "Choose data first."

    def _look(self) -> None:
        if self._session.busy:
            return
        folder, document = self._folder(self.form.options()), self._session.document
        if folder is None and self._just_opened and document is not None:
            folder = checkpoint_folder(document)  # whatever technique is shown first
        self.offer.look(folder)

    def _opened(self) -> None:
        document = self._session.document
        path = document.path if document is not None else None
        if path != self._opened_path:
            self._opened_path, self._just_opened = path, path is not None
        self._look_soon.start()

    def _show_offer(self) -> None:
        saved, problem = self.offer.saved, self.offer.problem
        if self._just_opened and (saved is not None or problem):
            self.choose(next(t.name for t in self._techniques if _keeps(t)))
        self.banner.setVisible(saved is not None or bool(problem))
        self.offer_text.setText(offer_text(saved) if saved is not None else problem)
        self.proceed.setVisible(saved is not None)
        self.apply.setText("Apply" if self.banner.isHidden() else "Start anew")
        if saved is not None and self._just_opened:
            self._just_opened = False
            self.offered.emit()

    # -- applying ------------------------------------------------------------------------------

    def _start(self, anew: bool) -> None:
        if not anew and not self._take_over():
            return
        options = self.form.options()
        if options is not None and improve(self._session, self.technique, options, anew=anew):
            self._just_opened = False

    def _take_over(self) -> bool:
        """Fill the form with the options of the checkpoint; False if they are no options now."""
        from pydantic import ValidationError

        saved = self.offer.saved
        if saved is None:
            return False
        folder = self.form.fields[CHECKPOINTS].value
        try:
            self.form.show_values({**saved.options, CHECKPOINTS: folder})
        except ValidationError:
            self.offer_text.setText("The checkpoint is of another version of the studio.")
            self.proceed.hide()
            return False
        return True


def _keeps(technique: Technique) -> bool:
    """True if `technique` keeps checkpoints."""
    return CHECKPOINTS in technique.options.model_fields
