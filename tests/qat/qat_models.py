"""The digits example, ready to be trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from studio.data.dataset import Dataset, InputSpec
from studio.data.opening import open_data
from studio.graph.open import open_model
from studio.jobs.events import CancelToken, silent
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.quantized_model import QuantizedModel, quantized_model
from studio.techniques.technique import Samples

DIGITS = Path(__file__).parents[2] / "resources/examples/digits"
SPECS = [InputSpec("image", (None, 1, 8, 8), np.dtype(np.float32))]


def digits_data(name: str) -> Dataset:
    return open_data(DIGITS / f"{name}.npz", SPECS)


def digits_samples() -> Samples:
    """200 images to train on, 360 others to measure on."""
    calibration = digits_data("calibration")
    return Samples(calibration, calibration, digits_data("test"))


def digits_model(weight_bits: int = 2, act_bits: int = 4, **settings: object) -> QuantizedModel:
    """The digits network, calibrated."""
    graph = open_model(DIGITS / "digits.onnx")
    config = QuantConfig().with_defaults(weight_bits=weight_bits, act_bits=act_bits, **settings)
    data = digits_data("calibration")
    statistics = collect_statistics(
        graph,
        place(graph, config).observed,
        (batch.inputs for batch in data.batches(50)),
        len(data),
        emit=silent,
        cancel=CancelToken(),
    )
    return quantized_model(graph, config, statistics, {})
