"""Where to export to, and as what: one line says what each choice means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from studio.app.widgets import elided, label, line
from studio.errors import ConfigError

if TYPE_CHECKING:
    from studio.exporting.options import ExportOptions
    from studio.exporting.preview import ExportPreview
    from studio.project.document import Document

AUTOMATIC = "as the target"
VERSIONS = ("0.6.1", "1.0.0", "2.0.0", "2.1.0")

Entry = tuple[str, Any, str]
"""(as shown, value, what it means)"""

FORMATS: tuple[Entry, ...] = (
    ("Q/DQ", "qdq", "QuantizeLinear and DequantizeLinear around float operators: read everywhere"),
    ("integer operators", "qoperator", "QLinearConv, QLinearMatMul and their kin: onnxruntime"),
    ("weights only", "weight-only", "MatMulNBits: weights in blocks, activations in float"),
    ("dynamic", "dynamic", "MatMulInteger: activations are ranged while the model runs"),
    ("float + encodings", "encodings", "The target reads the float ONNX and the encodings file"),
)
FIELDS: tuple[tuple[str, str, tuple[Entry, ...]], ...] = (
    ("format", "ONNX form", FORMATS),
    (
        "weights",
        "Weights",
        (
            ("integers", "int", "Stored as integers: the small file"),
            ("float", "float", "Stored as floats in front of QuantizeLinear: to train or edit on"),
        ),
    ),
    (
        "bias",
        "Biases",
        (
            ("int32", "int32", "Integers at input scale × weight scale, as kernels add them"),
            ("float", "float", "The rounded floats that the int32 biases stand for"),
        ),
    ),
    (
        "opset",
        "Opset",
        tuple(
            (str(number), number, f"Operators of opset {number}: what the types need lies below")
            for number in (10, 13, 17, 19, 21, 23, 25, 26)
        ),
    ),
    (
        "weight_storage_bits",
        "Smallest weight type",
        tuple((f"{n} bits", n, f"Weights of fewer bits are stored in {n}") for n in (2, 4, 8)),
    ),
    (
        "activation_storage_bits",
        "Smallest activation type",
        tuple(
            (f"{n} bits", n, f"Narrower activations are limited by Clip in {n} bits")
            for n in (2, 4, 8)
        ),
    ),
    (
        "contrib_ops",
        "Operators of onnxruntime",
        (
            ("allowed", True, "com.microsoft operators may be used: only onnxruntime runs them"),
            ("none", False, "Standard ONNX alone"),
        ),
    ),
    (
        "float_weights",
        "Weights of the float ONNX",
        (
            ("plain", "plain", "As they were before quantization"),
            ("rounded", "rounded", "Rounded to their grid, for tools that only read the encodings"),
        ),
    ),
)
RARE = frozenset(["weight_storage_bits", "activation_storage_bits", "contrib_ops", "float_weights"])
WITHOUT_DEFAULT = frozenset(["float_weights"])
EXTRA = (
    ("state_dict", "PyTorch state dict", "Rounded parameters under the source model's names"),
    ("exported_program", "PyTorch .pt2", "The simulation as a program that torch alone can run"),
)


def chosen_by_target(preview: ExportPreview, name: str) -> str:
    """How the automatic choice of `name` ends, as shown; "" if that is not known."""
    form = preview.form
    if form is None:
        return ""
    if name == "opset":
        return "" if preview.opset is None else str(preview.opset)
    values: dict[str, Any] = {
        "format": form.format,
        "weights": "float" if form.float_constants else "int",
        "bias": "float" if form.float_bias else "int32",
        "weight_storage_bits": form.weight_storage_bits,
        "activation_storage_bits": form.activation_storage_bits,
        "contrib_ops": form.contrib_ops,
    }
    entries = next(entries for key, _, entries in FIELDS if key == name)
    return next((text for text, value, _ in entries if value == values.get(name)), "")


class ExportDialog(QDialog):
    """`folder` and `options` are what was chosen, once accepted.

    `browse` asks for a folder; it is replaced in tests.
    """

    def __init__(
        self,
        document: Document,
        folder: str,
        parent: QWidget | None = None,
        browse: Callable[..., str] = QFileDialog.getExistingDirectory,
    ) -> None:
        super().__init__(parent)
        self._document = document
        self._browse = browse
        self.options: ExportOptions | None = None
        self.preview: ExportPreview | None = None
        self.boxes: dict[str, QComboBox] = {}
        self.tips: dict[str, QLabel] = {}
        self._titles: dict[str, QLabel] = {}
        self.checks: dict[str, QCheckBox] = {}
        self.setWindowTitle("Export")
        self.setMinimumWidth(880)
        self.path = QLineEdit(folder)
        self.path.setAccessibleName("Folder")
        self.path.setPlaceholderText("Folder for the files")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(24, 20, 24, 18)
        layout.setSpacing(12)
        layout.addWidget(label(f"Export {document.name}", "heading"))
        words = f"For {self._target().title}. What is not chosen follows the target."
        layout.addWidget(label(words, "muted", wrap=True))
        layout.addLayout(self._folder_row())
        layout.addWidget(line())
        layout.addLayout(self._form())
        layout.addWidget(line())
        layout.addLayout(self._more_files())
        self.problem = label("", "bad", wrap=True)
        layout.addWidget(self.problem)
        layout.addWidget(self._buttons())
        self._changed()

    def _target(self) -> Any:
        from studio.sim.target import load_target

        return load_target(self._document.config.target)

    def _folder_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        button = QPushButton("Browse…")
        button.clicked.connect(self._choose_folder)
        self.path.textChanged.connect(lambda _text: self._changed())
        title = label("Folder", "muted")
        title.setFixedWidth(170)
        title.setBuddy(self.path)
        row.addWidget(title)
        row.addWidget(self.path, 1)
        row.addWidget(button)
        return row

    def _form(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(6)
        grid.setColumnMinimumWidth(0, 170)
        grid.setColumnStretch(2, 1)
        for row, (name, title, entries) in enumerate(FIELDS):
            box = QComboBox()
            box.setAccessibleName(title)
            box.setFixedWidth(200)
            if name not in WITHOUT_DEFAULT:
                box.addItem(AUTOMATIC)
            for text, value, _ in entries:
                box.addItem(text, value)
            box.activated.connect(lambda _row: self._changed())
            tip = elided("", "muted")
            words = label(title, "muted")
            words.setBuddy(box)
            for column, widget in enumerate((words, box, tip)):
                grid.addWidget(widget, row, column)
            self.boxes[name], self.tips[name], self._titles[name] = box, tip, words
        self.more = QPushButton("More")
        self.more.setCheckable(True)
        self.more.setProperty("role", "chip")
        self.more.setAutoDefault(False)
        self.more.toggled.connect(lambda _on: self._fold())
        grid.addWidget(self.more, len(FIELDS), 1, Qt.AlignmentFlag.AlignLeft)
        self._fold()
        return grid

    def _fold(self) -> None:
        on = self.more.isChecked()
        for name in RARE:
            for widget in (self._titles[name], self.boxes[name], self.tips[name]):
                widget.setVisible(on)
        self.more.setText("Less" if on else "More")

    def _more_files(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(6)
        grid.setColumnMinimumWidth(0, 170)
        grid.setColumnStretch(2, 1)
        grid.addWidget(label("Encodings files", "muted"), 0, 0)
        versions = QHBoxLayout()
        versions.setSpacing(12)
        for version in VERSIONS:
            check = QCheckBox(version)
            check.setAccessibleName(f"Encodings {version}")
            check.toggled.connect(lambda _on: self._changed())
            self.checks[version] = check
            versions.addWidget(check)
        self.versions_tip = elided("", "muted")
        versions.addWidget(self.versions_tip, 1)
        grid.addLayout(versions, 0, 1, 1, 2)
        for row, (name, title, tip) in enumerate(EXTRA, 1):
            check = QCheckBox(title)
            check.toggled.connect(lambda _on: self._changed())
            self.checks[name] = check
            grid.addWidget(label("Also write" if row == 1 else "", "muted"), row, 0)
            grid.addWidget(check, row, 1)
            grid.addWidget(elided(tip, "muted"), row, 2)
        return grid

    def _buttons(self) -> QDialogButtonBox:
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.export_button = buttons.addButton("Export", QDialogButtonBox.ButtonRole.AcceptRole)
        self.export_button.setProperty("role", "primary")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        for button in self.findChildren(QPushButton):
            button.setAutoDefault(button is self.export_button)
        return buttons

    # -- what is chosen ------------------------------------------------------------------------

    def _choose_folder(self) -> None:
        found = self._browse(self, "Export to folder", self.path.text())
        if found:
            self.path.setText(found)

    @property
    def folder(self) -> Path:
        return Path(self.path.text().strip()).expanduser()

    def values(self) -> dict[str, Any]:
        """What was chosen, as JSON-like values of `ExportOptions`."""
        values: dict[str, Any] = {
            name: box.currentData()
            for name, box in self.boxes.items()
            if box.currentData() is not None
        }
        versions = tuple(version for version in VERSIONS if self.checks[version].isChecked())
        if versions:
            values["encodings_versions"] = versions
        values.update({name: self.checks[name].isChecked() for name, _, _ in EXTRA})
        return values

    def choose(self, name: str, value: Any) -> None:
        """Choose `value` of the field `name` (None: as the target)."""
        box = self.boxes[name]
        box.setCurrentIndex(box.findData(value) if value is not None else 0)
        self._changed()

    def _changed(self) -> None:
        from studio.exporting.options import parse_export_options
        from studio.exporting.preview import preview_export

        document, rule = self._document, self._target().export
        problem = "" if self.path.text().strip() else "Choose a folder."
        try:
            self.options = parse_export_options(self.values())
        except ConfigError as error:
            self.options, problem = None, f"{error.message} {error.hint}"
        else:
            self.preview = preview_export(
                document.graph, document.plan, document.encodings, self.options, rule
            )
            wrong = self.preview.problem
            if wrong is not None:
                problem = f"{wrong.message} {wrong.hint}".strip()
            self._explain(self.preview)
        self.problem.setText(problem)
        self.problem.setVisible(bool(problem))
        self.export_button.setEnabled(not problem)

    def _explain(self, preview: ExportPreview) -> None:
        for name, _, entries in FIELDS:
            box = self.boxes[name]
            value = box.currentData()
            found = chosen_by_target(preview, name) if value is None else box.currentText()
            meaning = next((tip for text, _, tip in entries if text == found), "")
            if name not in WITHOUT_DEFAULT:
                default = found if value is None else ""
                box.setItemText(0, f"{AUTOMATIC}: {default}" if default else AUTOMATIC)
            if name == "opset" and value is None:
                meaning = "The lowest that the model, its types and the target agree on"
            self.tips[name].setText(meaning)
        form = preview.form
        chosen = any(self.checks[version].isChecked() for version in VERSIONS)
        words = "A file for each; names are those of the ONNX tensors"
        if not chosen:
            usual = ", ".join(form.encodings_versions) if form is not None else ""
            words = f"None chosen: {usual}, as the target" if usual else "None: as the target"
        self.versions_tip.setText(words)
