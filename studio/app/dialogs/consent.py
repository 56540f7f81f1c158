"""Opening what runs code: what that means, and which model of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from studio.app.tasks import OpenRequest
from studio.app.widgets import label
from studio.errors import ModelError
from studio.graph.sources.kinds import CONSENT, Kind
from studio.graph.sources.source import ModelSource, parse_call, parse_inputs, parse_source

FUNCTION = re.compile(r"^(?:def|class)\s+([A-Za-z_]\w*)", re.MULTILINE)
CODE = (Kind.PYTHON, Kind.PACKAGE)
FIX_SIZES = "Fix all sizes but the batch"
ACCEPT = {
    Kind.PYTHON: "Run and open",
    Kind.PACKAGE: "Import and open",
    Kind.PROGRAM: "Load and open",
    Kind.TORCHSCRIPT: "Run and open",
    Kind.PICKLE: "Unpickle and open",
}


def factories(path: Path) -> list[str]:
    """Public functions and classes of a Python file, found by reading it as text."""
    try:
        source = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [name for name in FUNCTION.findall(source) if not name.startswith("_")]


class ConsentDialog(QDialog):
    """Asks before anything is run; `request` is what to open once accepted.

    `name` is the model's, where `request` is a project made from it. A file that passes for data
    but can run anything needs a tick besides the button.
    """

    def __init__(
        self,
        request: OpenRequest,
        kind: Kind,
        parent: QWidget | None = None,
        *,
        name: str = "",
    ) -> None:
        super().__init__(parent)
        self._request = request
        self._kind = kind
        self.request: OpenRequest | None = None
        consent = CONSENT[kind]
        self.setWindowTitle(consent.title)
        self.setMinimumWidth(540)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(20, 18, 20, 16)
        layout.setSpacing(12)
        name = name or request.source.file_name or "a package"
        layout.addWidget(label(consent.question.format(name=name), "heading", wrap=True))
        if request.is_project:
            layout.addWidget(label("This project was made from a model that runs code.", wrap=True))
        layout.addWidget(label(consent.risk, "bad" if consent.severe else "", wrap=True))
        if request.path is not None:
            layout.addWidget(label(str(request.path), "muted", wrap=True))
        self.factory = QLineEdit()
        self.weights = QLineEdit(str(request.source.weights or ""))
        self.inputs = QLineEdit("; ".join(map(str, request.source.inputs)))
        self.fixed_size = QCheckBox(FIX_SIZES)
        if not request.is_project and kind is not Kind.PROGRAM:
            layout.addLayout(self._form())
        self.sure = QCheckBox("I know who made this file, and I let it run")
        self.sure.setVisible(consent.severe)
        layout.addWidget(self.sure)
        self.problem = label("", "bad", wrap=True)
        self.problem.hide()
        layout.addWidget(self.problem)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.run = buttons.addButton(ACCEPT[kind], QDialogButtonBox.ButtonRole.AcceptRole)
        self.run.setProperty("role", "" if consent.severe else "primary")
        self.run.setEnabled(not consent.severe)
        self.sure.toggled.connect(self.run.setEnabled)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout.addWidget(buttons)
        cancel = buttons.button(QDialogButtonBox.StandardButton.Cancel)
        if request.is_project or kind is Kind.PROGRAM:
            cancel.setFocus()
        elif self.factory.text() or kind not in CODE:
            self.inputs.setFocus()

    def _form(self) -> QFormLayout:
        form = QFormLayout()
        if self._kind in CODE:
            self._add_code(form)
        self.inputs.setAccessibleName("Inputs")
        self.inputs.setPlaceholderText("found out if empty; or 1,3,224,224; mask:1,16:bool")
        self.inputs.setToolTip("[name:]shape[:type], several separated by ;")
        self.fixed_size.setToolTip(
            "Sizes stay open where the model allows it. Fixed ones make a simpler graph, for inputs"
            " of this size only."
        )
        self.fixed_size.setChecked(self._request.source.fixed_size)
        form.addRow("Inputs", self.inputs)
        form.addRow("", self.fixed_size)
        return form

    def _add_code(self, form: QFormLayout) -> None:
        source = self._request.source
        if source.path is None:
            known = f"{source.module}:{source.factory}" if source.module else ""
            hint, tip, name = "package.module:function(argument=value)", "", "Model"
        else:
            names = factories(source.path)
            known = source.factory or (names[-1] if names else "")
            hint = "function that returns the model"
            tip, name = f"Found in the file: {', '.join(names)}" if names else "", "Factory"
        self.factory.setText(known)
        self.factory.setAccessibleName(name)
        self.factory.setPlaceholderText(hint)
        self.factory.setToolTip(tip)
        self.weights.setAccessibleName("Weights")
        self.weights.setPlaceholderText("optional: .safetensors or .pth")
        browse = QPushButton("Browse…")
        browse.setAccessibleName("Browse for weights")
        browse.clicked.connect(self._browse)
        row = QHBoxLayout()
        row.addWidget(self.weights, 1)
        row.addWidget(browse)
        form.addRow(name, self.factory)
        form.addRow("Weights", row)

    def _browse(self) -> None:
        path = self._request.path
        folder = str(path.parent) if path is not None else str(Path.home())
        name, _ = QFileDialog.getOpenFileName(
            self, "Weights", folder, "Weights (*.safetensors *.pth *.pt *.bin *.ckpt)"
        )
        if name:
            self.weights.setText(name)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter in a field neither runs code nor throws text away; only buttons do."""
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if not (enter and isinstance(self.focusWidget(), QLineEdit)):
            super().keyPressEvent(event)

    def accept(self) -> None:
        try:
            self.request = OpenRequest(self._source(), trust=True)
        except ModelError as error:
            self.problem.setText(error.message)
            self.problem.show()
            return
        super().accept()

    def _source(self) -> ModelSource:
        """What the form says. Raises ModelError for what cannot be understood."""
        source = self._request.source
        if self._request.is_project:
            return source
        if self._kind in CODE:
            factory = self.factory.text().strip()
            if not factory:
                raise ModelError("Name the function or class that makes the model.")
            weights = self.weights.text().strip()
            if source.path is None:
                source = parse_source(factory)
                if source.module is None:
                    raise ModelError(f"{factory} is not written as package.module:function.")
            else:
                parse_call(factory)
                source = replace(source, factory=factory)
            source = replace(source, weights=Path(weights) if weights else None)
        inputs = parse_inputs(self.inputs.text())
        return replace(source, inputs=inputs, fixed_size=self.fixed_size.isChecked())
