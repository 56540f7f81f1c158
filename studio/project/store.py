"""Project files (`.qstudio`): a recipe, the statistics of its calibration and what was measured.

Statistics rather than encodings are kept: encodings follow from them and the settings, so a project
can be opened and its bitwidths changed without reading the data again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from studio.analysis.quality import Evaluation
from studio.analysis.sensitivity_figures import Sensitivity
from studio.errors import ConfigError
from studio.jobs.events import CancelToken, Emit, Warned, silent
from studio.plain_json import plain
from studio.project.document import Calibration, DataSettings, Document
from studio.project.fingerprint import fingerprint
from studio.project.recipe import ModelReference, placed_data, portable, read_json
from studio.project.steps import open_document, refresh_encodings
from studio.project.tuned import Tuned, remove_other_files, save_tuned, with_tuned
from studio.quant.statistics import TensorStatistics
from studio.sim.config import parse_config
from studio.whole_files import write_text

SUFFIX = ".qstudio"

_EVALUATION: TypeAdapter[Evaluation | None] = TypeAdapter(Evaluation | None)
_SENSITIVITY: TypeAdapter[Sensitivity | None] = TypeAdapter(Sensitivity | None)


def save_project(document: Document, path: Path) -> Document:
    """Write the project file; ExportError if that is not possible."""
    base = path.parent.absolute()
    reference = ModelReference.of(document.graph.source, lambda file: portable(file, base, base))
    data = document.data and placed_data(document.data, lambda file: portable(file, base, base))
    tuned = save_tuned(document, path)
    values = {
        "version": 1,
        "model": reference.model_dump(mode="json"),
        "data": None if data is None else data.model_dump(mode="json"),
        "config": document.config.model_dump(mode="json", exclude_none=True),
        "calibration": _dump_calibration(document.calibration),
        "evaluation": plain(_EVALUATION.dump_python(document.evaluation)),
        "sensitivity": plain(_SENSITIVITY.dump_python(document.sensitivity)),
        "fingerprint": fingerprint(document.original),
        "techniques": tuned and tuned.model_dump(mode="json"),
    }
    write_text(path, json.dumps(values, indent=1))
    remove_other_files(path, tuned)
    return replace(document, path=path)


def load_project(
    path: Path, *, trust: bool = False, emit: Emit = silent, cancel: CancelToken | None = None
) -> Document:
    """Open a project file and its model.

    Calibration and evaluation made with other weights or another graph are left out, with a
    warning. Raises ConfigError and what `open_document` raises.
    """
    values = read_json(path, "project")
    base = path.parent.absolute()
    try:
        if values["version"] != 1:
            raise ConfigError(f"{path} was written by a newer version.", "Update the studio.")
        source = ModelReference.model_validate(values["model"]).source(base)
        data = None if values["data"] is None else DataSettings.model_validate(values["data"])
        config = parse_config(values["config"])
        calibration = _load_calibration(values["calibration"])
        evaluation = _EVALUATION.validate_python(values["evaluation"])
        sensitivity = _SENSITIVITY.validate_python(values.get("sensitivity"))
        calibrated_graph = str(values["fingerprint"])
        techniques = values["techniques"]
        tuned = None if techniques is None else Tuned.model_validate(techniques)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is no valid project: {error}.", "Open the model itself instead."
        ) from None
    data = data and placed_data(data, base.joinpath)
    document = open_document(source, trust=trust, config=config, emit=emit, cancel=cancel)
    document = replace(document, data=data, path=path)
    if calibration is None and evaluation is None and tuned is None:
        return document
    if fingerprint(document.graph) != calibrated_graph:
        again = "calibrated: calibrate" if calibration is not None else "evaluated: evaluate"
        emit(Warned(f"{source.name} has changed since it was {again} it again."))
        return document
    document = replace(document, calibration=calibration)
    if tuned is not None:
        document = with_tuned(document, path, tuned)
    document = replace(document, evaluation=evaluation, sensitivity=sensitivity)
    if calibration is None:
        return document
    return refresh_encodings(document, emit=emit, cancel=cancel)


def _dump_calibration(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {
        "data": calibration.data,
        "samples": calibration.samples,
        "synthetic": calibration.synthetic,
        "statistics": {
            name: {
                "minimum": item.minimum,
                "maximum": item.maximum,
                "low": item.low,
                "high": item.high,
                "counts": _packed(item.counts, "<i8"),
                "batch_ranges": _packed(item.batch_ranges, "<f4"),
                "top_two": _packed(item.top_two, "<f4"),
            }
            for name, item in calibration.statistics.items()
        },
    }


def _load_calibration(values: Mapping[str, Any] | None) -> Calibration | None:
    if values is None:
        return None
    statistics = {name: _load_statistics(item) for name, item in values["statistics"].items()}
    return Calibration(
        statistics, str(values["data"]), int(values["samples"]), bool(values["synthetic"])
    )


def _packed(array: np.ndarray, dtype: str) -> str:
    return base64.b64encode(array.astype(dtype).tobytes()).decode()


def _unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype)


def _load_statistics(values: Mapping[str, Any]) -> TensorStatistics:
    """Raises ValueError for what no tensor can have."""
    item = TensorStatistics(
        minimum=float(values["minimum"]),
        maximum=float(values["maximum"]),
        counts=_unpacked(values["counts"], "<i8").astype(np.int64),
        low=float(values["low"]),
        high=float(values["high"]),
        batch_ranges=_unpacked(values["batch_ranges"], "<f4").astype(np.float32).reshape(-1, 2),
        top_two=_unpacked(values["top_two"], "<f4").astype(np.float32).reshape(-1, 2),
    )
    ends = np.array((item.minimum, item.maximum, item.low, item.high))
    ends = np.concatenate([ends, item.batch_ranges.ravel(), item.top_two.ravel()])
    ordered = item.minimum <= item.maximum and item.low <= item.high
    if not (np.isfinite(ends).all() and ordered and (item.counts >= 0).all()):
        raise ValueError("a range in its calibration is not valid")
    return item
