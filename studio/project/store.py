"""Project files (`.qstudio`): a recipe, the statistics of its calibration and its evaluation.

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
from studio.errors import ConfigError
from studio.exporting.files import write_text
from studio.jobs.events import CancelToken, Emit, Warned, silent
from studio.plain_json import plain
from studio.project.document import Calibration, DataSettings, Document
from studio.project.fingerprint import fingerprint
from studio.project.recipe import ModelReference, read_json
from studio.project.steps import open_document, refresh_encodings
from studio.quant.statistics import TensorStatistics
from studio.sim.config import parse_config

SUFFIX = ".qstudio"

_EVALUATION: TypeAdapter[Evaluation | None] = TypeAdapter(Evaluation | None)


def save_project(document: Document, path: Path) -> Document:
    """Write the project file; ExportError if that is not possible."""
    base = path.parent.absolute()
    reference = ModelReference.of(document.graph.source, lambda file: _relative(file, base))
    data = document.data
    if data is not None and data.path is not None:
        data = data.model_copy(update={"path": _relative(data.path, base)})
    values = {
        "version": 1,
        "model": reference.model_dump(mode="json"),
        "data": None if data is None else data.model_dump(mode="json"),
        "config": document.config.model_dump(mode="json", exclude_none=True),
        "calibration": _dump_calibration(document.calibration),
        "evaluation": plain(_EVALUATION.dump_python(document.evaluation)),
        "fingerprint": fingerprint(document.graph),
    }
    write_text(path, json.dumps(values, indent=1))
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
        calibrated_graph = str(values["fingerprint"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is no valid project: {error}.", "Open the model itself instead."
        ) from None
    if data is not None and data.path is not None:
        data = data.model_copy(update={"path": base / data.path})
    document = open_document(source, trust=trust, config=config, emit=emit, cancel=cancel)
    document = replace(document, data=data, path=path)
    if calibration is None and evaluation is None:
        return document
    if fingerprint(document.graph) != calibrated_graph:
        again = "calibrated: calibrate" if calibration is not None else "evaluated: evaluate"
        emit(Warned(f"{source.name} has changed since it was {again} it again."))
        return document
    document = replace(document, calibration=calibration, evaluation=evaluation)
    if calibration is None:
        return document
    return refresh_encodings(document, emit=emit, cancel=cancel)


def _relative(path: Path, base: Path) -> Path:
    """`path` seen from `base` if it lies inside, so that a project folder can be moved."""
    absolute = path.absolute()
    return absolute.relative_to(base) if absolute.is_relative_to(base) else absolute


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
                "counts": base64.b64encode(item.counts.astype("<i8").tobytes()).decode(),
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


def _load_statistics(values: Mapping[str, Any]) -> TensorStatistics:
    """Raises ValueError for what no tensor can have."""
    counts = base64.b64decode(values["counts"], validate=True)
    item = TensorStatistics(
        minimum=float(values["minimum"]),
        maximum=float(values["maximum"]),
        counts=np.frombuffer(counts, dtype="<i8").astype(np.int64),
        low=float(values["low"]),
        high=float(values["high"]),
    )
    ends = (item.minimum, item.maximum, item.low, item.high)
    ordered = item.minimum <= item.maximum and item.low <= item.high
    if not (np.isfinite(ends).all() and ordered and (item.counts >= 0).all()):
        raise ValueError("a range in its calibration is not valid")
    return item
