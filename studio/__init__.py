"""Quantization Studio: open a trained model, quantize it, verify it, export it.

The public API is small:

    graph = studio.open_model("model.onnx")
    sim = studio.QuantSim(graph, studio.QuantConfig(target="onnxruntime"))
    sim.calibrate(batches)          # arrays of shape (batch, ...), or a dataset
    y = sim(x)                      # what the exported file computes
    studio.export(sim, "out")

Importing `studio` imports neither Qt nor torch: names are loaded when first used.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

# onnxruntime's wheels report usage over the network unless this is set before they are loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"

_PUBLIC = {
    "open_model": "studio.api",
    "export": "studio.api",
    "QuantSim": "studio.api",
    "ExportOptions": "studio.exporting.options",
    "QuantConfig": "studio.sim.config",
    "LayerSettings": "studio.sim.config",
    "StudioError": "studio.errors",
}

__all__ = [
    "ExportOptions",
    "LayerSettings",
    "QuantConfig",
    "QuantSim",
    "StudioError",
    "export",
    "open_model",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'studio' has no attribute {name!r}")
