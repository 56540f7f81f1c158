"""Reading back a folder that an export wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from studio.errors import ConfigError, ModelError
from studio.exporting.encodings import (
    EncodingsFile,
    FindingKind,
    MatchReport,
    match_encodings,
    read_encodings,
)
from studio.exporting.encodings.load import with_encodings
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid
from studio.sim.config import QuantConfig
from studio.sim.encodings import bias_encodings
from studio.sim.found import as_found, found_encodings
from studio.sim.placement import place
from studio.sim.plan import Plan

ONE_EXPORT = "Give a folder whose files come from one export."


def load_export(
    folder: Path, config: QuantConfig, *, from_file: bool = False
) -> tuple[ModelGraph, Plan, dict[str, Encoding]]:
    """Graph, plan and encodings of an exported folder under the configuration of its recipe.

    `from_file`: its model came quantized, or with an encodings file; the exported files say which
    tensors are. Raises ConfigError if a file is missing or the files do not belong together,
    ModelError if the model cannot be read.
    """
    for name in ("model.onnx", "model_float.onnx", "model.encodings"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} has no {name}.", "Give a folder that an export wrote.")
    file = read_encodings(folder / "model.encodings")
    if from_file:
        target = QuantConfig(target=config.target)
        graph = _quantized(folder, target, file)
        plan = place(graph, target)
    else:
        graph = open_model(folder / "model_float.onnx")
        plan = place(graph, config)
    report = match_encodings(file, graph, plan)
    _require_one_export(report, folder)
    encodings = {**_implied(plan), **found_encodings(graph, plan), **report.encodings}
    encodings.update(bias_encodings(plan, encodings))
    missing = [name for name in plan.quantized if name not in encodings]
    if missing:
        raise ConfigError(
            f"{folder / 'model.encodings'} has no encoding for {missing[0]} and {len(missing) - 1} "
            "more tensors.",
            ONE_EXPORT,
        )
    return graph, plan, {name: encodings[name] for name in plan.quantized}


def _quantized(folder: Path, config: QuantConfig, file: EncodingsFile) -> ModelGraph:
    """The model with its quantization: as the encodings say it, with what `model.onnx` alone knows
    (integers, biases, what is float), unless that file has a form that is not taken apart."""
    try:
        graph = open_model(folder / "model.onnx")
    except ModelError:
        graph = None
    report = None
    if graph is not None and file.encodings.keys() <= graph.found.keys():
        report = match_encodings(file, graph, place(graph, config))
    if graph is not None and report is not None and _fits(report, graph):
        found = dict(graph.found)
        for name, encoding in report.encodings.items():
            lifted = found[name]
            found[name] = replace(
                as_found(encoding), storage_bits=lifted.storage_bits, integers=lifted.integers
            )
        return replace(graph, found=found)
    graph, _ = with_encodings(open_model(folder / "model_float.onnx"), config, file)
    return graph


def _fits(report: MatchReport, graph: ModelGraph) -> bool:
    """False where integer operators of the file store a weight the other way round: scales that a
    file lists without saying how they lie would be read in the wrong order."""

    def alike(name: str, encoding: Encoding) -> bool:
        scale = graph.found[name].scale
        return scale.shape == encoding.scale.shape and np.allclose(scale, encoding.scale, rtol=1e-3)

    return not report.of(FindingKind.MISFIT) and all(
        alike(name, encoding) for name, encoding in report.encodings.items()
    )


def _require_one_export(report: MatchReport, folder: Path) -> None:
    wrong = report.of(FindingKind.UNKNOWN, FindingKind.MISFIT, FindingKind.DIFFERENT)
    if wrong:
        first = wrong[0]
        raise ConfigError(
            f"{folder / 'model.encodings'} does not fit the configuration: {first.name}: "
            f"{first.message}.",
            ONE_EXPORT,
        )


def _implied(plan: Plan) -> dict[str, Encoding]:
    """Encodings of the tensors in float16 or bfloat16, which 2.x files do not list."""
    found = {}
    for name in plan.quantized:
        spec = plan.tensors[name].spec
        if spec is not None and isinstance(spec.grid, FloatGrid) and not spec.grid.scaled:
            found[name] = Encoding(spec.grid, np.ones((), np.float32), np.zeros((), np.int64))
    return found
