"""Choose data, say how it is preprocessed and how much of it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from studio.app.dialogs.preprocess_form import PreprocessForm
from studio.app.dialogs.preview import Preview, PreviewPane, preview_work
from studio.app.session import Session
from studio.app.settings import ViewSettings
from studio.app.widgets import label, line
from studio.errors import CancelledError, StudioError
from studio.jobs import Job

if TYPE_CHECKING:
    from studio.project.document import DataSettings

DELAY_MS = 250
RANDOM_WARNING = (
    "Random data only shows that everything runs. Ranges, accuracy and the exported file say "
    "nothing about real data, and are marked as such."
)


class DataDialog(QDialog):
    """`settings` holds the choice once the dialog was accepted."""

    def __init__(self, session: Session, view: ViewSettings, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._view = view
        self._job: Job[Any] | None = None
        self.settings: DataSettings | None = None
        self.setWindowTitle("Data")
        self.path = QLineEdit(placeholderText="folder of pictures, labels.csv, .npy or .npz")
        self.path.setAccessibleName("Folder or file")
        self.from_path = QRadioButton("Folder or file")
        self.random = QRadioButton("Random data")
        self.warning = label(RANDOM_WARNING, "warn", wrap=True)
        self.other = QCheckBox("Other data to calibrate and train on")
        self.other.setToolTip("Then the data above is only evaluated on")
        self.training = QLineEdit(placeholderText=self.path.placeholderText())
        self.training.setAccessibleName("Folder or file to calibrate and train on")
        self.form = PreprocessForm()
        self.form_title = label("PREPROCESSING", "caption")
        self.no_form = label("Arrays are fed to the model as they are.", "muted", wrap=True)
        self.calibration = _spin(1, 1_000_000, 64, "Samples to calibrate on")
        self.batch = _spin(0, 4096, 0, "Batch size")
        self.evaluation = _spin(0, 10_000_000, 0, "Samples to evaluate on")
        self.evaluation.setSpecialValueText("all")
        self.batch.setSpecialValueText("automatic")
        for spin in (self.calibration, self.evaluation):
            spin.setSuffix(" samples")
        self.preview = PreviewPane()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.timeout.connect(self.look)
        self._build()
        self._fill()

    # -- building ------------------------------------------------------------------------------

    def _build(self) -> None:
        group = QButtonGroup(self)
        folder, file = QPushButton("Folder…"), QPushButton("File…")
        folder.setAccessibleName("Choose a folder")
        file.setAccessibleName("Choose a file")
        folder.clicked.connect(lambda: self._choose_folder())
        file.clicked.connect(lambda: self._choose_file())
        row = _row(self.path, folder, file)
        folder, file = QPushButton("Folder…"), QPushButton("File…")
        folder.setAccessibleName("Choose a folder to calibrate and train on")
        file.setAccessibleName("Choose a file to calibrate and train on")
        folder.clicked.connect(lambda: self._choose_folder(training=True))
        file.clicked.connect(lambda: self._choose_file(training=True))
        self.training_row = QWidget()
        self.training_row.setLayout(_row(self.training, folder, file))
        sizes = QGridLayout()
        sizes.setHorizontalSpacing(10)
        sizes.setVerticalSpacing(6)
        sizes.setColumnMinimumWidth(0, 120)
        sizes.setColumnStretch(2, 1)
        rows = (
            ("Calibrate on", self.calibration),
            ("Evaluate on", self.evaluation),
            ("Batch size", self.batch),
        )
        for index, (title, spin) in enumerate(rows):
            sizes.addWidget(label(title, "muted"), index, 0)
            sizes.addWidget(spin, index, 1)
        left = QVBoxLayout()
        left.setSpacing(8)
        left.addWidget(label("SOURCE", "caption"))
        left.addWidget(self.from_path)
        left.addLayout(row)
        left.addWidget(self.random)
        left.addWidget(self.warning)
        left.addWidget(self.other)
        left.addWidget(self.training_row)
        left.addSpacing(8)
        left.addWidget(label("HOW MUCH", "caption"))
        left.addLayout(sizes)
        left.addSpacing(8)
        left.addWidget(self.form_title)
        left.addWidget(self.form)
        left.addWidget(self.no_form)
        left.addStretch(1)
        columns = QHBoxLayout()
        columns.setSpacing(20)
        columns.addLayout(left, 1)
        columns.addWidget(line(vertical=True))
        columns.addWidget(self.preview)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.use = buttons.addButton("Use this data", QDialogButtonBox.ButtonRole.AcceptRole)
        self.use.setProperty("role", "primary")
        self.use.setDefault(True)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(20, 18, 20, 16)
        layout.setSpacing(16)
        layout.addLayout(columns, 1)
        layout.addWidget(buttons)
        for push in self.findChildren(QPushButton):
            push.setAutoDefault(push is self.use)
        self.resize(820, 600)
        for button in (self.from_path, self.random):
            group.addButton(button)
            button.toggled.connect(self._edited)
        self.path.textEdited.connect(self._path_edited)
        self.training.textEdited.connect(self._edited)
        self.other.toggled.connect(self._edited)
        self.form.changed.connect(self._edited)
        for spin in (self.calibration, self.batch, self.evaluation):
            spin.valueChanged.connect(lambda _value: self._refresh())

    def _fill(self) -> None:
        from studio.project import steps

        document = self._session.document
        assert document is not None
        data = document.data
        try:
            guess = steps.default_data(document).preprocess
        except StudioError:
            guess = None
        preprocess = data.preprocess if data is not None and data.preprocess else guess
        self._pictures = preprocess is not None
        if preprocess is not None:
            self.form.show_preprocess(preprocess)
        if data is not None:
            self.random.setChecked(data.path is None)
            self.path.setText(str(data.path or ""))
            self.training.setText(str(data.training_path or ""))
            self.other.setChecked(data.training_path is not None)
            self.calibration.setValue(data.calibration_size)
            self.batch.setValue(data.batch_size or 0)
            self.evaluation.setValue(data.evaluation_size or 0)
        self.from_path.setChecked(not self.random.isChecked())
        self._edited()

    # -- editing -------------------------------------------------------------------------------

    def _choose_folder(self, training: bool = False) -> None:
        name = QFileDialog.getExistingDirectory(
            self, "Folder of pictures", self._view.folder("data")
        )
        self._take(name, training)

    def _choose_file(self, training: bool = False) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Data file", self._view.folder("data"), "Data (*.npy *.npz *.csv)"
        )
        self._take(name, training)

    def _take(self, name: str, training: bool) -> None:
        if name and training:
            self._view.set_folder("data", Path(name).parent)
            self.training.setText(name)
            self._edited()
        elif name:
            self.set_path(Path(name))

    def set_path(self, path: Path) -> None:
        """Choose the folder or file `path`."""
        self._view.set_folder("data", path.parent)
        self.from_path.setChecked(True)
        self.path.setText(str(path))
        self._edited()

    def _path_edited(self, words: str) -> None:
        self.from_path.setChecked(True)
        self._edited()

    def _edited(self, *_: object) -> None:
        self._refresh()
        self.use.setEnabled(False)
        self._timer.start()

    def _refresh(self) -> None:
        arrays = Path(self.path.text().strip()).suffix.lower() in (".npy", ".npz")
        show = self._pictures and not arrays and not self.random.isChecked()
        self.form.setVisible(show)
        self.form_title.setVisible(show or arrays)
        self.no_form.setVisible(arrays and not self.random.isChecked())
        self.warning.setVisible(self.random.isChecked())
        self.other.setVisible(not self.random.isChecked())
        self.training_row.setVisible(self.other.isChecked() and not self.random.isChecked())

    def chosen(self) -> DataSettings:
        """What the dialog says now. Raises StudioError for values that cannot be."""
        from studio.project.document import DataSettings

        random = self.random.isChecked()
        words = self.path.text().strip()
        pictures = self._pictures and Path(words).suffix.lower() not in (".npy", ".npz")
        training = self.training.text().strip() if self.other.isChecked() else ""
        return DataSettings(
            path=None if random else Path(words),
            training_path=Path(training) if training and not random else None,
            preprocess=self.form.preprocess() if pictures and not random else None,
            calibration_size=self.calibration.value(),
            batch_size=self.batch.value() or None,
            evaluation_size=self.evaluation.value() or None,
        )

    # -- preview -------------------------------------------------------------------------------

    def look(self) -> None:
        """Start a preview of what is chosen now."""
        self._stop()
        if not self.random.isChecked() and not self.path.text().strip():
            self.preview.say("No data yet", "Choose a folder of pictures or a file of arrays.")
            return
        if self.training_row.isVisibleTo(self) and not self.training.text().strip():
            self.preview.say("No data to train on yet", "Choose a folder or a file for it as well.")
            return
        document = self._session.document
        assert document is not None
        try:
            settings = self.chosen()
        except StudioError as error:
            self.preview.say("", "", str(error))
            return
        self.preview.say("Looking…", "")
        work = preview_work(document, settings)
        self._job = self._session.aside("data preview", work, self._looked, self._not_usable)

    def _looked(self, preview: Preview) -> None:
        self._job = None
        self.preview.show_preview(preview)
        self.use.setEnabled(True)

    def _not_usable(self, error: StudioError) -> None:
        if not isinstance(error, CancelledError):
            self._job = None
            self.preview.say("", "", str(error))

    def _stop(self) -> None:
        if self._job is not None:
            self._session.forget(self._job)
            self._job = None

    def accept(self) -> None:
        try:
            self.settings = self.chosen()
        except StudioError as error:
            self.preview.say("", "", str(error))
            return
        super().accept()

    def done(self, result: int) -> None:
        self._timer.stop()
        self._stop()
        super().done(result)


def _row(path: QLineEdit, folder: QPushButton, file: QPushButton) -> QHBoxLayout:
    """A path with the buttons to choose it."""
    row = QHBoxLayout()
    row.setContentsMargins(22, 0, 0, 0)
    for widget, stretch in ((path, 1), (folder, 0), (file, 0)):
        row.addWidget(widget, stretch)
    return row


def _spin(low: int, high: int, value: int, name: str) -> QSpinBox:
    spin = QSpinBox()
    spin.setRange(low, high)
    spin.setValue(value)
    spin.setAccessibleName(name)
    spin.setFixedWidth(150)
    spin.lineEdit().setTextMargins(6, 0, 0, 0)
    spin.setGroupSeparatorShown(True)
    return spin
