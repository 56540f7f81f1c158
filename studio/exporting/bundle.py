"""One export: every artifact written together, then verified."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from studio import __version__
from studio.analysis.quality import Evaluation
from studio.data.dataset import Dataset
from studio.exporting.encodings_file import encodings_document
from studio.exporting.files import save_onnx, staged_folder
from studio.exporting.report import ReportContent, report_html
from studio.exporting.summary import Artifact, ExportSummary, Verification
from studio.exporting.verify import verify
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress
from studio.plain_json import plain
from studio.quant.encoding import Encoding
from studio.quant.statistics import TensorStatistics
from studio.sim.config import QuantConfig
from studio.sim.found import uses_file
from studio.sim.plan import Plan, Role
from studio.sim.qdq import Constants, insert_qdq
from studio.sim.target import Target, load_target

VERIFIED_SAMPLES = 32
"""Samples the exported file and the simulation are compared on."""

VERIFIED_BATCH = 8
"""Samples read at once for that, at most (a model with a fixed batch size takes its own)."""

_WHAT = {
    "model.onnx": "quantized model (QuantizeLinear / DequantizeLinear), runs in onnxruntime",
    "model_float.onnx": "prepared float model, goes with model.encodings",
    "model.encodings": "encodings in AIMET's 1.0.0 layout, for Qualcomm's converters",
    "report.html": "this export for people",
    "recipe.json": "replays this export: quant-studio run recipe.json",
    "summary.json": "this export for machines",
}


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
    recipe: Mapping[str, Any] | None,
    samples: Dataset,
    batch_size: int,
    emit: Emit,
    cancel: CancelToken,
) -> ExportSummary:
    """Write `model.onnx`, `model_float.onnx`, `model.encodings`, `report.html`, `recipe.json` (if
    given) and `summary.json` into `folder`, verified on up to `VERIFIED_SAMPLES` of `samples`.

    Everything is made in a hidden folder first: on an error or a cancel `folder` is as it was.
    Raises ExportError.
    """
    emit(Progress("Exporting", 0, 3, "writing the models"))
    target = load_target(config.target)
    quantized = insert_qdq(
        graph,
        plan,
        encodings,
        constants=Constants.INTEGER,
        weight_storage_bits=target.weight_storage_bits,
    )
    quantized.producer_name, quantized.producer_version = "quantization-studio", __version__
    if synthetic:
        quantized.metadata_props["calibration_data"] = "random data: accuracy is not meaningful"
    with staged_folder(folder) as staging:
        save_onnx(quantized, staging / "model.onnx")
        save_onnx(graph.ir, staging / "model_float.onnx")
        document = encodings_document(plan, encodings)
        (staging / "model.encodings").write_text(json.dumps(document, indent=2), encoding="utf-8")
        cancel.check()
        subset = samples.subset(VERIFIED_SAMPLES)
        verification = verify(
            graph,
            plan,
            encodings,
            staging / "model.onnx",
            (
                batch.inputs
                for batch in subset.batches(min(batch_size, VERIFIED_BATCH), cancel=cancel)
            ),
            len(subset),
            emit=emit,
            cancel=cancel,
        )
        emit(Progress("Exporting", 2, 3, "writing the report"))
        if recipe is not None:
            text = json.dumps(recipe, indent=2)
            (staging / "recipe.json").write_text(text, encoding="utf-8")
        float_bytes, quantized_bytes = (
            _size(staging, "model_float.onnx"),
            _size(staging, "model.onnx"),
        )
        notes = _warnings(plan, target, synthetic)
        summary = {
            "model": graph.source.name,
            "target": plan.target,
            "config": config.model_dump(mode="json", exclude_none=True),
            "synthetic_data": synthetic,
            "encodings_from_file": uses_file(graph, config),
            "calibration": {"data": calibration_data, "samples": calibration_samples},
            "float_bytes": float_bytes,
            "quantized_bytes": quantized_bytes,
            "evaluation": None if evaluation is None else asdict(evaluation),
            "verification": verification_dict(verification),
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
        )
        _write_report(content, staging)
        artifacts = _artifacts(staging)
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


def _write_report(content: ReportContent, folder: Path) -> None:
    """Write report.html, which names all files of the export and so its own size too."""
    path = folder / "report.html"
    for _ in range(2):
        path.touch()
        html = report_html(replace(content, artifacts=_artifacts(folder)))
        path.write_text(html, encoding="utf-8")


def _warnings(plan: Plan, target: Target, synthetic: bool) -> tuple[str, ...]:
    """What whoever uses the exported files has to know."""
    warnings = []
    rows = [row for row in plan.tensors.values() if row.spec is not None]
    bits = {row.spec.grid.bits for row in rows if row.spec and row.role is Role.WEIGHT}
    narrow = " and ".join(f"{size}-bit" for size in sorted(bits) if size < 8)
    if narrow and target.weight_storage_bits == 8:
        warnings.append(
            f"{narrow} weights are stored in 8 bits: onnxruntime has no {narrow} convolution "
            "kernels."
        )
    if synthetic:
        warnings.append("Calibrated on random data: ranges and accuracy are not those of real use.")
    return tuple(warnings)


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


def _artifacts(folder: Path) -> tuple[Artifact, ...]:
    return tuple(
        Artifact(name, (folder / name).stat().st_size, what)
        for name, what in _WHAT.items()
        if (folder / name).is_file()
    )
