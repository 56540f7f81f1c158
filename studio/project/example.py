"""The bundled example: a small network for handwritten digits, with its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.jobs import CancelToken, Emit
from studio.resource_files import resource

if TYPE_CHECKING:
    from studio.project.document import Document

CALIBRATION_SIZE = 64


def open_digits(emit: Emit, cancel: CancelToken) -> Document:
    """The digits network with its test images chosen as data."""
    from studio.project import steps
    from studio.project.document import DataSettings

    folder = resource("examples", "digits")
    document = steps.open_document(folder / "digits.onnx", emit=emit, cancel=cancel)
    data = DataSettings(path=folder / "test.npz", calibration_size=CALIBRATION_SIZE)
    return document.with_data(data)
