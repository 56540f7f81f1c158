"""`evaluate` and `verify`: measuring a model, or a folder that an export wrote."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from studio.analysis.evaluate import OutputMeter, first_output, simulated_session
from studio.cli.output import ProgressLine
from studio.data.dataset import Dataset
from studio.errors import ConfigError, DataError
from studio.exporting.bundle import VERIFIED_BATCH, VERIFIED_SAMPLES
from studio.exporting.folder import load_export
from studio.exporting.summary import Verification
from studio.exporting.verify import verify
from studio.jobs.events import CancelToken, Emit, Progress, Warned
from studio.project.document import DataSettings, Document
from studio.project.recipe import load_recipe, read_json
from studio.project.steps import batched, open_dataset
from studio.runtime.session import Optimizations, Session, float_session
from studio.sim.config import parse_config

Settings = Callable[[Document], DataSettings]


def evaluate_model(
    document: Document, settings: DataSettings, options: argparse.Namespace
) -> dict[str, Any]:
    """Accuracy of a float model, and simulated with the encodings of its file if that has all."""
    dataset = open_dataset(document, settings)
    sessions = {"float": float_session(document.graph)}
    if document.from_file and document.calibrated:
        graph, plan = document.graph, document.plan
        sessions["simulated"] = simulated_session(graph, plan, document.encodings)
    with ProgressLine(options.json) as emit:
        return _measure(document, dataset, sessions, options, emit)


def evaluate_folder(
    folder: Path, options: argparse.Namespace, settings: Settings
) -> dict[str, Any]:
    """Accuracy of an exported folder: float, simulated, and in onnxruntime's integer kernels."""
    document, encodings = _load(folder)
    chosen = _folder_data(folder, document, options, settings)
    sessions = {
        "float": float_session(document.graph),
        "simulated": simulated_session(document.graph, document.plan, encodings),
        "onnxruntime": Session(folder / "model.onnx", optimizations=Optimizations.INTEGER),
    }
    with ProgressLine(options.json) as emit:
        return _measure(document, open_dataset(document, chosen), sessions, options, emit)


def verify_folder(folder: Path, options: argparse.Namespace, settings: Settings) -> Verification:
    """Compare `model.onnx` of an exported folder with the simulation of its encodings."""
    document, encodings = _load(folder)
    chosen = _folder_data(folder, document, options, settings)
    dataset, batch_size = batched(document.graph, open_dataset(document, chosen), VERIFIED_BATCH)
    dataset = dataset.subset(VERIFIED_SAMPLES)
    batches = dataset.batches(batch_size)
    with ProgressLine(options.json) as emit:
        return verify(
            document.graph,
            document.plan,
            encodings,
            folder / "model.onnx",
            (batch.inputs for batch in batches),
            len(dataset),
            emit=emit,
            cancel=CancelToken(),
        )


def _load(folder: Path) -> tuple[Document, Mapping[str, Any]]:
    path = folder / "summary.json"
    if not path.is_file():
        raise ConfigError(
            f"{folder} has no summary.json.", "Give a folder that an export of the studio wrote."
        )
    summary = read_json(path, "summary")
    if not isinstance(summary, dict) or "config" not in summary:
        raise ConfigError(
            f"{path} was not written by an export.", "Give a folder that an export wrote."
        )
    config = parse_config(summary["config"])
    from_file = bool(summary.get("encodings_from_file", False))
    graph, plan, encodings = load_export(folder, config, from_file=from_file)
    return Document(graph=graph, config=config, plan=plan), encodings


def _folder_data(
    folder: Path, document: Document, options: argparse.Namespace, settings: Settings
) -> DataSettings:
    """The data given on the command line, preprocessed as in the export unless said otherwise."""
    path = folder / "recipe.json"
    recipe = load_recipe(path) if path.is_file() else None
    if options.data is None and not options.random_data:
        if recipe is None:
            raise DataError(f"{folder} does not say which data it was made with.", "Give --data.")
        return recipe.data
    chosen = settings(document)
    if options.preprocess is None and recipe is not None and recipe.data.preprocess is not None:
        chosen = chosen.model_copy(update={"preprocess": recipe.data.preprocess})
    return chosen


def _measure(
    document: Document,
    dataset: Dataset,
    sessions: Mapping[str, Session],
    options: argparse.Namespace,
    emit: Emit,
) -> dict[str, Any]:
    dataset, batch_size = batched(document.graph, dataset, options.batch_size)
    dataset = dataset.subset(options.limit or len(dataset))
    meters = {name: OutputMeter() for name in sessions}
    done = 0
    for batch in dataset.batches(batch_size):
        outputs = {name: first_output(x.run(batch.inputs)) for name, x in sessions.items()}
        for name, output in outputs.items():
            meters[name].add(outputs["float"], output, batch.labels)
        done += len(batch)
        emit(Progress("Evaluating", done, len(dataset)))
    warnings = [*dataset.warnings, *filter(None, [meters["float"].accuracy.problem])]
    for warning in warnings:
        emit(Warned(warning))
    results = []
    for name, meter in meters.items():
        hits = meter.accuracy.result()
        results.append(
            {
                "engine": name,
                "top1": None if hits is None else hits.top1,
                "top5": None if hits is None else hits.top5,
                "sqnr_db": None if name == "float" else meter.distance.result().sqnr_db,
                "agreement": None if name == "float" else meter.agreement.result(),
            }
        )
    return {
        "data": dataset.name,
        "samples": done,
        "synthetic_data": dataset.synthetic,
        "warnings": warnings,
        "results": results,
    }
