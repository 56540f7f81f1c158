"""How a picture becomes the model's input, as a form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from studio.app.widgets import label
from studio.errors import ConfigError, StudioError

if TYPE_CHECKING:
    from studio.data.preprocess import Preprocess

TEXTS = (
    ("resize", "Shorter side to", "no resize", "Pixels of the shorter side after resizing"),
    ("size", "Resize exactly to", "height, width", "The aspect ratio is not kept"),
    ("crop", "Centre crop", "height, width", "Cut out of the middle after resizing"),
    ("scale", "Divide by", "255", "Pixels are divided by this first"),
    ("mean", "Mean", "0.485, 0.456, 0.406", "Subtracted after the division, one for each channel"),
    ("std", "Std", "0.229, 0.224, 0.225", "Divided by after that, one for each channel"),
)
FILTERS = ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming")
CHOICES = (
    ("interpolation", "Interpolation", FILTERS),
    ("channels", "Channels", ("RGB", "BGR", "GRAY")),
    ("layout", "Layout", ("NCHW", "NHWC")),
)  # fmt: skip


def numbers(words: str, name: str) -> list[float]:
    """The numbers in `0.485, 0.456 0.406`, a quotient like 127/255 counts as one."""
    result = []
    for part in filter(None, re.split(r"[,;\s×]+", words.strip())):
        try:
            top, slash, bottom = part.partition("/")
            result.append(float(top) / float(bottom) if slash else float(top))
        except (ValueError, ZeroDivisionError):
            raise ConfigError(f"{name}: “{part}” is not a number.", "Write it like 0.5.") from None
    return result


def exact(value: float) -> str:
    """The shortest text that reads back as `value`."""
    short = f"{value:.6g}"
    return short if float(short) == value else repr(value)


class PreprocessForm(QWidget):
    """`changed` is sent after every edit."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.fields: dict[str, QLineEdit] = {}
        self.choices: dict[str, QComboBox] = {}
        self._kept: dict[str, Any] = {}
        grid = QGridLayout()
        grid.setVerticalSpacing(6)
        grid.setHorizontalSpacing(10)
        grid.setColumnMinimumWidth(0, 120)
        for row, (name, title, hint, tip) in enumerate(TEXTS):
            field = QLineEdit(placeholderText=hint)
            field.setAccessibleName(title)
            field.setToolTip(tip)
            field.textEdited.connect(lambda _words: self.changed.emit())
            grid.addWidget(label(title, "muted"), row, 0)
            grid.addWidget(field, row, 1)
            self.fields[name] = field
        for row, (name, title, values) in enumerate(CHOICES, len(TEXTS)):
            box = QComboBox()
            box.addItems(values)
            box.setAccessibleName(title)
            box.activated.connect(lambda _row: self.changed.emit())
            grid.addWidget(label(title, "muted"), row, 0)
            grid.addWidget(box, row, 1)
            self.choices[name] = box
        load, save = QPushButton("Load…"), QPushButton("Save…")
        load.setToolTip("Read these settings from a JSON file")
        save.setToolTip("Write these settings to a JSON file, for the command line too")
        load.clicked.connect(self._load)
        save.clicked.connect(self._save)
        buttons = QHBoxLayout()
        for button in (load, save):
            button.setProperty("role", "chip")
            buttons.addWidget(button)
        buttons.addStretch(1)
        self.problem = label("", "bad", wrap=True)
        self.problem.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(grid)
        layout.addLayout(buttons)
        layout.addWidget(self.problem)

    def show_preprocess(self, value: Preprocess) -> None:
        """Fill the form with `value`."""
        self._kept = {"dtype": value.dtype, "input": value.input}
        for name, field in self.fields.items():
            given = getattr(value, name)
            items = given if isinstance(given, tuple) else () if given is None else (given,)
            field.setText(", ".join(exact(item) for item in items))
            field.setCursorPosition(0)
        for name, box in self.choices.items():
            box.setCurrentText(getattr(value, name))

    def preprocess(self) -> Preprocess:
        """What the form says. Raises ConfigError that names the field."""
        from studio.data.preprocess import Preprocess

        values: dict[str, Any] = dict(self._kept)
        titles = {name: title for name, title, *_ in TEXTS}
        for name, field in self.fields.items():
            given = numbers(field.text(), titles[name])
            if not given:
                continue
            if name in ("resize", "scale"):
                values[name] = given[0]
            elif name in ("size", "crop"):
                values[name] = tuple(given * 2 if len(given) == 1 else given)
            else:
                values[name] = tuple(given)
        values.update({name: box.currentText() for name, box in self.choices.items()})
        return Preprocess(**values)

    def _load(self) -> None:
        from studio.data.preprocess import Preprocess

        name, _ = QFileDialog.getOpenFileName(self, "Load preprocessing", "", "JSON (*.json)")
        if name:
            self.load(Path(name), Preprocess)

    def load(self, path: Path, kind: type[Preprocess]) -> None:
        """Read the settings of the JSON file `path`."""
        try:
            self.show_preprocess(kind.load(path))
        except StudioError as error:
            self._say(str(error))
            return
        self._say("")
        self.changed.emit()

    def _save(self) -> None:
        try:
            words = self.preprocess().to_json()
        except StudioError as error:
            self._say(str(error))
            return
        name, _ = QFileDialog.getSaveFileName(
            self, "Save preprocessing", "preprocess.json", "JSON (*.json)"
        )
        if name:
            from studio.whole_files import write_text

            try:
                write_text(Path(name), words)
            except StudioError as error:
                self._say(str(error))

    def _say(self, words: str) -> None:
        self.problem.setText(words)
        self.problem.setVisible(bool(words))
