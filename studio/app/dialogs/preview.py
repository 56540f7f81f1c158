"""What the chosen data looks like: counted and sampled in the background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage, QPixmap
from PySide6.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from studio.app import text
from studio.app.widgets import label
from studio.jobs import CancelToken, Emit

if TYPE_CHECKING:
    from studio.project.document import DataSettings, Document

SIDE = 76
COLUMNS, SHOWN = 3, 9


@dataclass(frozen=True)
class Preview:
    """Number of samples, how they are labelled, warnings, and pictures (H, W, 3) uint8."""

    samples: int
    labels: str
    warnings: tuple[str, ...]
    pictures: tuple[npt.NDArray[np.uint8], ...]


def preview_work(document: Document, settings: DataSettings) -> Callable[[Emit, CancelToken], Any]:
    """Open the data of `settings` and take a few samples of what is evaluated on."""

    def work(emit: Emit, cancel: CancelToken) -> Preview:
        from studio.data.images import ImageFolder
        from studio.project import steps

        dataset = steps.open_dataset(document, settings)
        training = ""
        if settings.training_path is not None:
            other = settings.model_copy(update={"path": settings.training_path})
            more = text.plural(len(steps.open_dataset(document, other)), "other sample")
            training = f"; {more} to calibrate and train on"
        cancel.check()
        labels = "no labels: accuracy cannot be measured"
        if isinstance(dataset, ImageFolder) and dataset.listing.labels is not None:
            labels = text.plural(len(np.unique(dataset.listing.labels)), "class", "classes")
        elif dataset.has_labels:
            labels = "with labels"
        first = steps.input_specs(document.graph)[0].name
        pictures = []
        for batch in dataset.subset(SHOWN).batches(1, cancel=cancel):
            picture = as_picture(batch.inputs.get(first, np.zeros(0))[0])
            if picture is not None:
                pictures.append(picture)
        return Preview(len(dataset), labels + training, dataset.warnings, tuple(pictures))

    return work


def as_picture(sample: npt.NDArray[Any]) -> npt.NDArray[np.uint8] | None:
    """A model input (C, H, W) or (H, W, C) stretched to 0..255, (H, W, 3); else None."""
    if sample.ndim == 3 and sample.shape[0] in (1, 3):
        sample = sample.transpose(1, 2, 0)
    if sample.ndim != 3 or sample.shape[2] not in (1, 3):
        return None
    values = sample.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / (high - low or 1.0))
    return np.ascontiguousarray(np.broadcast_to(scaled, (*sample.shape[:2], 3)).astype(np.uint8))


class PreviewPane(QWidget):
    """Shows a `Preview`, that it is being made, or why it cannot be made."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedWidth(COLUMNS * (SIDE + 8) + 20)
        self.summary = label("", "heading", wrap=True)
        self.detail = label("", "muted", wrap=True)
        self.problem = label("", "bad", wrap=True)
        self.warnings = label("", "warn", wrap=True)
        self.thumbs: list[QLabel] = []
        grid = QGridLayout()
        grid.setSpacing(8)
        for index in range(SHOWN):
            thumb = QLabel()
            thumb.setFixedSize(SIDE, SIDE)
            thumb.setAlignment(Qt.AlignmentFlag.AlignCenter)
            grid.addWidget(thumb, index // COLUMNS, index % COLUMNS)
            self.thumbs.append(thumb)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addWidget(label("WHAT THE MODEL GETS", "caption"))
        for widget in (self.summary, self.detail, self.problem):
            layout.addWidget(widget)
        layout.addLayout(grid)
        layout.addWidget(self.warnings)
        layout.addStretch(1)
        self.say("", "")

    def say(self, summary: str, detail: str, problem: str = "") -> None:
        """Texts without pictures."""
        for widget, words in (
            (self.summary, summary),
            (self.detail, detail),
            (self.problem, problem),
            (self.warnings, ""),
        ):
            widget.setText(words)
            widget.setVisible(bool(words))
        for thumb in self.thumbs:
            thumb.clear()
            thumb.setVisible(False)

    def show_preview(self, preview: Preview) -> None:
        self.say(text.plural(preview.samples, "sample"), preview.labels)
        self.warnings.setText("\n".join(preview.warnings[:4]))
        self.warnings.setVisible(bool(preview.warnings))
        for thumb, picture in zip(self.thumbs, preview.pictures, strict=False):
            height, width = picture.shape[:2]
            image = QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
            smooth = Qt.TransformationMode.SmoothTransformation
            plain = Qt.TransformationMode.FastTransformation
            mode = plain if max(height, width) < SIDE else smooth
            pixmap = QPixmap.fromImage(image)
            thumb.setPixmap(pixmap.scaled(SIDE, SIDE, Qt.AspectRatioMode.KeepAspectRatio, mode))
            thumb.setVisible(True)
