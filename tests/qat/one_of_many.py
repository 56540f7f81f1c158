"""Calibrates and trains the digits and prints digests; alone, or as one that torchrun started."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from studio.jobs.events import Event, TrainingResult, TrainingStep
from studio.project import steps
from studio.project.document import DataSettings
from studio.project.techniques import apply_technique, parse_options

DIGITS = Path(__file__).parents[2] / "resources/examples/digits"


def digest(*arrays: np.ndarray) -> str:
    joined = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(joined).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=20)
    options = parser.parse_args()
    document = steps.open_document(DIGITS / "digits.onnx")
    config = document.config.with_defaults(weight_bits=8, act_bits=8, act_observer="mse")
    data = DataSettings(
        path=DIGITS / "test.npz",
        training_path=DIGITS / "calibration.npz",
        calibration_size=110,
        batch_size=16,
    )
    document = steps.calibrate(document.with_config(config).with_data(data))
    calibration = document.calibration
    assert calibration is not None
    statistics = {
        name: [
            item.minimum,
            item.maximum,
            digest(item.counts, item.batch_ranges, item.top_two),
            int(item.counts.sum()),
        ]
        for name, item in calibration.statistics.items()
    }
    encodings = {
        name: digest(item.scale, item.zero_point) for name, item in document.encodings.items()
    }
    losses: list[float] = []
    measured: list[float] = []

    def emit(event: Event) -> None:
        if isinstance(event, TrainingStep):
            losses.append(event.loss)
        elif isinstance(event, TrainingResult):
            measured.append(event.value)

    chosen = {"epochs": options.epochs, "batch_size": options.batch_size, "flip": True, "crop": 1}
    trained = apply_technique(document, "qat", parse_options("qat", chosen), emit=emit)
    results = {
        "statistics": statistics,
        "calibrated": calibration.samples,
        "encodings": encodings,
        "losses": losses,
        "measured": measured,
        "weights": digest(*(trained.graph.constant(n) for n in sorted(trained.tuned))),
    }
    # A file for each: long lines of several processes would get mixed up.
    file = options.results / f"{os.environ.get('RANK', '0')}.json"
    file.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
