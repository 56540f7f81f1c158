"""Opening PyTorch code: what it means, and which function to call."""

from __future__ import annotations

import re
from pathlib import Path

from PySide6.QtWidgets import (
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

FUNCTION = re.compile(r"^(?:def|class)\s+([A-Za-z_]\w*)", re.MULTILINE)


def parse_shapes(words: str) -> tuple[tuple[int, ...], ...]:
    """`1,3,224,224; 1,10` -> ((1, 3, 224, 224), (1, 10)); ValueError names what is wrong."""
    shapes = []
    for part in filter(None, (part.strip() for part in words.split(";"))):
        try:
            shape = tuple(int(side) for side in re.split(r"[,x×]", part) if side.strip())
        except ValueError:
            raise ValueError(f"“{part}” is not a shape such as 1,3,224,224.") from None
        if not shape or min(shape) < 1:
            raise ValueError(f"“{part}” is not a shape such as 1,3,224,224.")
        shapes.append(shape)
    if not shapes:
        raise ValueError("Give the shape of the model's input, such as 1,3,224,224.")
    return tuple(shapes)


def factories(path: Path) -> list[str]:
    """Public functions and classes of a Python file, found by reading it as text."""
    try:
        source = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [name for name in FUNCTION.findall(source) if not name.startswith("_")]


class ConsentDialog(QDialog):
    """Asks before code is run; `request` is what to open once accepted."""

    def __init__(self, request: OpenRequest, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._request = request
        self.request: OpenRequest | None = None
        self.setWindowTitle("Open PyTorch code")
        self.setMinimumWidth(520)
        project = request.is_project
        layout = QVBoxLayout(self)
        layout.setContentsMargins(20, 18, 20, 16)
        layout.setSpacing(12)
        layout.addWidget(label(f"Run the code in {request.path.name}?", "heading"))
        what = "the Python file this project was made from" if project else "this file"
        layout.addWidget(
            label(
                f"Opening runs {what} with your rights: it can read, change and delete what you "
                "can. Go on only if you know where it comes from.",
                wrap=True,
            )
        )
        layout.addWidget(label(str(request.path), "muted", wrap=True))
        self.factory = QLineEdit(request.factory or "")
        self.weights = QLineEdit(str(request.weights or ""))
        self.shapes = QLineEdit()
        if not project:
            layout.addLayout(self._form(request))
        self.problem = label("", "bad", wrap=True)
        self.problem.hide()
        layout.addWidget(self.problem)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.run = buttons.addButton("Run and open", QDialogButtonBox.ButtonRole.AcceptRole)
        self.run.setProperty("role", "primary")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout.addWidget(buttons)
        for button in self.findChildren(QPushButton):
            button.setAutoDefault(False)  # Enter in a field neither runs code nor throws text away
        if self.factory.text() and not project:
            self.shapes.setFocus()

    def _form(self, request: OpenRequest) -> QFormLayout:
        names = factories(request.path)
        if names and not self.factory.text():
            self.factory.setText(names[-1])
        self.factory.setAccessibleName("Factory")
        self.factory.setToolTip(f"Found in the file: {', '.join(names)}" if names else "")
        self.factory.setPlaceholderText("function that returns the model")
        self.weights.setAccessibleName("Weights")
        self.weights.setPlaceholderText("optional: .safetensors or .pth")
        self.shapes.setAccessibleName("Input shapes")
        self.shapes.setPlaceholderText("1,3,224,224 (several inputs: separate them with ;)")
        self.shapes.setText("; ".join(",".join(map(str, shape)) for shape in request.input_shapes))
        browse = QPushButton("Browse…")
        browse.setAccessibleName("Browse for weights")
        browse.clicked.connect(self._browse)
        row = QHBoxLayout()
        row.addWidget(self.weights, 1)
        row.addWidget(browse)
        form = QFormLayout()
        form.addRow("Factory", self.factory)
        form.addRow("Weights", row)
        form.addRow("Input shapes", self.shapes)
        return form

    def _browse(self) -> None:
        folder = str(self._request.path.parent)
        name, _ = QFileDialog.getOpenFileName(
            self, "Weights", folder, "Weights (*.safetensors *.pth *.pt)"
        )
        if name:
            self.weights.setText(name)

    def accept(self) -> None:
        request = self._request
        if request.is_project:
            self.request = OpenRequest(request.path, trust=True)
            super().accept()
            return
        try:
            shapes = parse_shapes(self.shapes.text())
        except ValueError as error:
            self._say(str(error))
            return
        if not self.factory.text().strip():
            self._say("Name the function or class that makes the model.")
            return
        weights = self.weights.text().strip()
        self.request = OpenRequest(
            request.path,
            factory=self.factory.text().strip(),
            weights=Path(weights) if weights else None,
            input_shapes=shapes,
            trust=True,
        )
        super().accept()

    def _say(self, words: str) -> None:
        self.problem.setText(words)
        self.problem.show()
