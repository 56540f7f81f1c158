"""What a model is fed: one row for each input, where that could not be found out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from studio.app.dialogs.consent import FIX_SIZES
from studio.app.widgets import elided, label
from studio.errors import ModelError
from studio.graph.sources.interface import InputRow
from studio.graph.sources.source import (
    DTYPES,
    ExampleInput,
    ModelSource,
    parse_shape,
    parse_value,
)

FOUND_OUT = "found out"
EXPLANATION = (
    "Give the shape of each input with its batch dimension. An input with a fixed value keeps it in"
    " every run and is not fed."
)


@dataclass(frozen=True)
class _Fields:
    row: InputRow
    shape: QLineEdit
    dtype: QComboBox
    fixed: QLineEdit


class InputsDialog(QDialog):
    """`source` is the model with the inputs entered, once accepted; `problem` says what was wrong
    with the last ones."""

    def __init__(
        self,
        source: ModelSource,
        rows: Sequence[InputRow],
        problem: str,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._source = source
        self.source: ModelSource | None = None
        self.setWindowTitle("Inputs of the model")
        self.setMinimumWidth(680)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(20, 18, 20, 16)
        layout.setSpacing(12)
        layout.addWidget(label(f"What is {source.name} fed?", "heading", wrap=True))
        layout.addWidget(label(EXPLANATION, "muted", wrap=True))
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        for column, title in enumerate(("INPUT", "SHAPE", "TYPE", "FIXED VALUE")):
            grid.addWidget(label(title, "caption"), 0, column)
        for column, width in ((0, 190), (1, 170), (3, 110)):
            grid.setColumnMinimumWidth(column, width)
        grid.setColumnStretch(0, 2)
        grid.setColumnStretch(1, 3)
        grid.setColumnStretch(3, 2)
        self.fields = [self._add(grid, place + 1, row) for place, row in enumerate(rows)]
        layout.addLayout(grid)
        self.fixed_size = QCheckBox(FIX_SIZES)
        self.fixed_size.setChecked(source.fixed_size)
        layout.addWidget(self.fixed_size)
        self.problem = label(problem, "bad", wrap=True)
        self.problem.setVisible(bool(problem))
        layout.addWidget(self.problem)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.open_button = buttons.addButton("Open", QDialogButtonBox.ButtonRole.AcceptRole)
        self.open_button.setProperty("role", "primary")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout.addWidget(buttons)
        for button in self.findChildren(QPushButton):
            button.setAutoDefault(button is self.open_button)
        if self.fields:
            self.fields[0].shape.setFocus()

    def _add(self, grid: QGridLayout, place: int, row: InputRow) -> _Fields:
        shape, dtype, fixed = QLineEdit(row.shape), QComboBox(), QLineEdit(row.fixed)
        shape.setAccessibleName(f"Shape of {row.name}")
        shape.setPlaceholderText("or a fixed value" if row.required else "left out")
        dtype.setAccessibleName(f"Type of {row.name}")
        dtype.addItems([FOUND_OUT, *DTYPES])
        dtype.setCurrentText(row.dtype or FOUND_OUT)
        fixed.setAccessibleName(f"Fixed value of {row.name}")
        fixed.setPlaceholderText("none")
        for column, widget in enumerate((elided(row.name), shape, dtype, fixed)):
            grid.addWidget(widget, place, column)
        return _Fields(row, shape, dtype, fixed)

    def accept(self) -> None:
        inputs: list[ExampleInput] = []
        fixed: dict[str, Any] = {}
        try:
            for fields in self.fields:
                self._read(fields, inputs, fixed)
        except ModelError as error:
            self.problem.setText(error.message)
            self.problem.show()
            return
        self.source = replace(
            self._source,
            inputs=tuple(inputs),
            fixed_inputs=fixed,
            fixed_size=self.fixed_size.isChecked(),
        )
        super().accept()

    def _read(self, fields: _Fields, inputs: list[ExampleInput], fixed: dict[str, Any]) -> None:
        name, shape = fields.row.name, fields.shape.text().strip()
        value = fields.fixed.text().strip()
        dtype = fields.dtype.currentText()
        if value:
            fixed[name] = parse_value(value)
        if shape:
            known = None if dtype == FOUND_OUT else dtype
            inputs.append(ExampleInput(parse_shape(shape), name, known))
        elif fields.row.required and not value:
            raise ModelError(f"Give the shape of {name}, or a fixed value.")
