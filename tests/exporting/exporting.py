"""Exporting a small model through the steps, as the command line and the window do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import small_models

from studio.jobs.events import CancelToken, Emit, silent
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.sim.config import QuantConfig


def calibrated(
    model: Path, arrays: dict[str, np.ndarray], config: QuantConfig | None = None
) -> Document:
    """`model` opened and calibrated on `arrays` (model input, or "labels" -> array)."""
    data = model.with_suffix(".npz")
    np.savez(data, **arrays)
    document = steps.open_document(model, config=config)
    return steps.calibrate(document.with_data(DataSettings(path=data)))


def conv_document(folder: Path, config: QuantConfig | None = None) -> Document:
    arrays = {"x": small_models.numbers(20, 12, 3, 6, 6), "labels": np.arange(12) % 5}
    return calibrated(small_models.conv_net(folder / "net.onnx"), arrays, config)


def export(
    document: Document, folder: Path, emit: Emit = silent, cancel: CancelToken | None = None
) -> Document:
    return steps.export(document, folder, emit=emit, cancel=cancel)


def constants(path: Path) -> dict[str, np.ndarray]:
    """Constants of an ONNX file by name."""
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
    }


def change_constant(path: Path, name: str, values: np.ndarray) -> None:
    """Replace one constant in an ONNX file."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, path)
