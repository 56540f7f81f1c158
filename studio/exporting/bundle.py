"""One export: every artifact written together, then verified."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from studio import __version__
from studio.analysis.cost import tensors_to_measure
from studio.analysis.quality import Evaluation
from studio.analysis.sensitivity_figures import Sensitivity
from studio.analysis.validation import Validation, validate
from studio.data.dataset import Dataset
from studio.exporting.artifacts import (
    FLOAT_MODEL,
    MODEL,
    cannot_verify,
    list_artifacts,
    write_artifacts,
)
from studio.exporting.options import DEFAULTS, ExportForm, ExportOptions, export_form
from studio.exporting.report import ReportContent, report_html
from studio.exporting.summary import ExportSummary, Verification
from studio.exporting.verify import verify
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress
from studio.plain_json import plain
from studio.quant.encoding import Encoding
from studio.quant.statistics import TensorStatistics
from studio.runtime.shapes import measured_shapes
from studio.sim.config import QuantConfig
from studio.sim.found import uses_file
from studio.sim.plan import Plan, require_possible
from studio.sim.qdq import Storage
from studio.sim.target import Target, load_target
from studio.techniques.applied import Applied
from studio.whole_files import staged_folder

VERIFIED_SAMPLES = 32
"""Samples the exported file and the simulation are compared on."""

VERIFIED_BATCH = 8
"""Samples read at once for that, at most (a model with a fixed batch size takes its own)."""


def export_bundle(
    graph: ModelGraph,
    config: QuantConfig,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    folder: Path,
    *,
    statistics: Mapping[str, TensorStatistics],
    calibration_data: str,
    calibration_samples: int,
    synthetic: bool,
    evaluation: Evaluation | None,
    sensitivity: Sensitivity | None = None,
    applied: Sequence[Applied] = (),
    recipe: Mapping[str, Any] | None,
    samples: Dataset,
    batch_size: int,
    options: ExportOptions = DEFAULTS,
    emit: Emit,
    cancel: CancelToken,
) -> ExportSummary:
    """Write the files that `options` ask for (by default `model.onnx`, `model_float.onnx` and
    `model.encodings`), `report.html`, `recipe.json` (if given) and `summary.json` into `folder`,
    the quantized model verified on up to `VERIFIED_SAMPLES` of `samples`.

    Everything is made in a hidden folder first: on an error or a cancel `folder` is as it was.
    Raises ExportError, and ConfigError for what the target cannot do.
    """
    require_possible(plan)
    emit(Progress("Exporting", 0, 3, "writing the models"))
    target = load_target(config.target)
    form = export_form(options, target.export)
    with staged_folder(folder) as staging:
        written = write_artifacts(graph, plan, encodings, staging, form, synthetic=synthetic)
        cancel.check()
        subset = samples.subset(VERIFIED_SAMPLES)
        unverified = cannot_verify(plan, staging)
        verification = None
        if not unverified:
            batches = subset.batches(min(batch_size, VERIFIED_BATCH), cancel=cancel)
            verification = verify(
                graph,
                plan,
                encodings,
                staging / MODEL,
                (batch.inputs for batch in batches),
                len(subset),
                storage=Storage(form.weight_storage_bits, form.activation_storage_bits),
                float_path=staging / FLOAT_MODEL,
                other_runtimes=True,
                emit=emit,
                cancel=cancel,
            )
        emit(Progress("Exporting", 2, 3, "writing the report"))
        if recipe is not None:
            text = json.dumps(recipe, indent=2)
            (staging / "recipe.json").write_text(text, encoding="utf-8")
        float_bytes, quantized_bytes = (
            _size(staging, FLOAT_MODEL),
            _size(staging, MODEL),
        )
        notes = (*written, *([unverified] if unverified else []), *_warnings(synthetic))
        summary = {
            "model": graph.source.name,
            "target": plan.target,
            "config": config.model_dump(mode="json", exclude_none=True),
            "export": options.model_dump(mode="json", exclude_none=True),
            "synthetic_data": synthetic,
            "encodings_from_file": uses_file(graph, config),
            "calibration": {"data": calibration_data, "samples": calibration_samples},
            "float_bytes": float_bytes,
            "quantized_bytes": quantized_bytes,
            "techniques": [_told(item) for item in applied],
            "evaluation": None if evaluation is None else asdict(evaluation),
            "sensitivity": None if sensitivity is None else asdict(sensitivity),
            "verification": None if verification is None else verification_dict(verification),
            "warnings": (*graph.warnings, *plan.warnings, *notes),
            "unquantized": {
                name: row.reason for name, row in plan.tensors.items() if row.spec is None
            },
        }
        text = json.dumps(plain(summary), indent=2)
        (staging / "summary.json").write_text(text, encoding="utf-8")
        content = ReportContent(
            graph=graph,
            config=config,
            plan=plan,
            encodings=encodings,
            statistics=statistics,
            calibration_data=calibration_data,
            calibration_samples=calibration_samples,
            synthetic=synthetic,
            evaluation=evaluation,
            verification=verification,
            artifacts=(),
            float_bytes=float_bytes,
            quantized_bytes=quantized_bytes,
            created=datetime.now(),
            version=__version__,
            validation=_validation(graph, plan, target, subset),
            applied=tuple(applied),
            sensitivity=sensitivity,
        )
        _write_report(content, staging, form)
        artifacts = list_artifacts(staging, form)
        cancel.check()
    emit(Progress("Exporting", 3, 3, "done"))
    return ExportSummary(
        folder=folder,
        artifacts=artifacts,
        float_bytes=float_bytes,
        quantized_bytes=quantized_bytes,
        verification=verification,
        warnings=notes,
    )


def _told(applied: Applied) -> dict[str, Any]:
    """What was applied, without its rows and curves, for JSON."""
    return {
        "technique": applied.technique,
        "options": dict(applied.options),
        "summary": applied.summary,
        "seconds": applied.seconds,
    }


def _validation(graph: ModelGraph, plan: Plan, target: Target, samples: Dataset) -> Validation:
    """What validating says, with the costs measured on one of the samples."""
    batch = next(iter(samples.batches(1)))
    shapes = measured_shapes(graph, batch.inputs, tensors_to_measure(graph))
    return validate(graph, plan, target, shapes, {})


def _write_report(content: ReportContent, folder: Path, form: ExportForm) -> None:
    """Write report.html, which names all files of the export and so its own size too."""
    path = folder / "report.html"
    for _ in range(2):
        path.touch()
        html = report_html(replace(content, artifacts=list_artifacts(folder, form)))
        path.write_text(html, encoding="utf-8")


def _warnings(synthetic: bool) -> tuple[str, ...]:
    """What whoever uses the exported files has to know, whatever they are."""
    if not synthetic:
        return ()
    return ("Calibrated on random data: ranges and accuracy are not those of real use.",)


def export_dict(summary: ExportSummary) -> dict[str, Any]:
    """The summary with the verification's verdict, for JSON."""
    verification = summary.verification
    return {
        **asdict(summary),
        "verification": None if verification is None else verification_dict(verification),
    }


def verification_dict(verification: Verification) -> dict[str, Any]:
    """The verification with its verdict, for JSON."""
    return {
        "passed": verification.passed,
        "identical": verification.identical,
        "largest_step_difference": verification.largest,
        **asdict(verification),
    }


def _size(folder: Path, name: str) -> int:
    """Bytes of a model, its external data included."""
    return sum(path.stat().st_size for path in folder.glob(f"{name}*"))
