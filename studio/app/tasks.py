"""What the jobs do: each function returns the work of one job.

The engine (torch, onnxruntime, onnx) is imported inside the work, in the job's thread: the window
is on the screen before any of it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.graph.sources.source import ModelSource
from studio.jobs import CancelToken, Emit, Progress

if TYPE_CHECKING:
    from studio.analysis.forecast import Forecast
    from studio.analysis.validation import Validation
    from studio.exporting.encodings import MatchReport
    from studio.exporting.options import ExportOptions
    from studio.project.document import Document
    from studio.project.validation import Measured
    from studio.quant.observers.compare import ObserverResult

Work = Callable[[Emit, CancelToken], Any]


@dataclass(frozen=True)
class OpenRequest:
    """Which model or project to open; `trust`: the user agreed to running what is in it."""

    source: ModelSource
    trust: bool = False

    @property
    def path(self) -> Path | None:
        """The file; None for an installed package."""
        return self.source.path

    @property
    def is_project(self) -> bool:
        return self.path is not None and self.path.suffix.lower() == ".qstudio"


def leave_one_core() -> None:
    """Give torch all cores but one, so that the window stays fluent."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))


def open_model(request: OpenRequest) -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        emit(Progress("Loading the engine", 0, 0))
        from studio.project import steps
        from studio.project.store import load_project

        cancel.check()
        if request.path is not None and request.is_project:
            return load_project(request.path, trust=request.trust, emit=emit, cancel=cancel)
        document = steps.open_document(
            request.source, trust=request.trust, emit=emit, cancel=cancel
        )
        cancel.check()
        return document

    return work


def open_example() -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        emit(Progress("Loading the engine", 0, 0))
        from studio.project.example import open_digits

        return open_digits(emit, cancel)

    return work


def prepare_again(document: Document, without: tuple[str, ...]) -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        from studio.project import steps

        return steps.prepare_again(document, without, emit=emit, cancel=cancel)

    return work


def refresh(document: Document) -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        from studio.project import steps

        return steps.refresh_encodings(document, emit=emit, cancel=cancel)

    return work


def calibrate(document: Document) -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        from studio.project import steps

        leave_one_core()
        return steps.calibrate(document, emit=emit, cancel=cancel)

    return work


def evaluate(document: Document) -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        from studio.project import steps

        leave_one_core()
        current = steps.refresh_encodings(document, emit=emit, cancel=cancel)
        return steps.evaluate(current, emit=emit, cancel=cancel)

    return work


def sensitivity(document: Document) -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        from studio.project import steps

        leave_one_core()
        current = steps.refresh_encodings(document, emit=emit, cancel=cancel)
        return steps.sensitivity(current, emit=emit, cancel=cancel)

    return work


def export(document: Document, folder: Path, options: ExportOptions | None = None) -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        from studio.exporting.options import DEFAULTS
        from studio.project import steps

        leave_one_core()
        current = steps.refresh_encodings(document, emit=emit, cancel=cancel)
        chosen = options or DEFAULTS
        return steps.export(current, folder, options=chosen, emit=emit, cancel=cancel)

    return work


def forecast(document: Document) -> Work:
    """How the document's target will run each layer."""

    def work(emit: Emit, cancel: CancelToken) -> Forecast:
        from studio.analysis.forecast import forecast
        from studio.sim.target import load_target

        target = load_target(document.config.target)
        encodings = document.encodings if document.calibrated else None
        return forecast(document.graph, document.plan, target, encodings)

    return work


def match_encodings(document: Document, path: Path) -> Work:
    """How the encodings file at `path` fits the document's model; nothing is changed."""

    def work(emit: Emit, cancel: CancelToken) -> MatchReport:
        from studio.exporting.encodings import match_encodings, read_encodings
        from studio.sim.config import QuantConfig
        from studio.sim.placement import place

        emit(Progress("Reading encodings", 0, 0, path.name))
        file = read_encodings(path)
        cancel.check()
        config = QuantConfig(target=document.config.target, source_encodings=False)
        return match_encodings(file, document.graph, place(document.graph, config))

    return work


def load_encodings(document: Document, path: Path, partial: bool) -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        from studio.project.load_encodings import load_encodings

        return load_encodings(document, path, partial=partial, emit=emit, cancel=cancel)[0]

    return work


def compare_observers(document: Document, tensor: str) -> Work:
    """What every calibration method makes of `tensor`, an activation or a constant."""

    def work(emit: Emit, cancel: CancelToken) -> tuple[ObserverResult, ...]:
        from studio.quant.observers.compare import (
            compare_activation_observers,
            compare_weight_observers,
        )

        row = document.plan.tensors[tensor]
        spec = row.spec
        if spec is None:
            return ()
        statistics = document.calibration.statistics if document.calibration is not None else {}
        if tensor in statistics:
            return compare_activation_observers(statistics[tensor], spec.grid, spec.percentile)
        if tensor not in document.graph.initializers:
            return ()
        return compare_weight_observers(
            document.graph.constant(tensor),
            spec.grid,
            spec.axis,
            percent=spec.percentile,
            block_size=spec.block_size,
            lpbq=spec.lpbq,
        )

    return work


def matching_layers(document: Document, patterns: tuple[str, ...]) -> Work:
    """Pattern -> names of the layers it matches."""

    def work(emit: Emit, cancel: CancelToken) -> dict[str, tuple[str, ...]]:
        from studio.sim.matching import matching_layers

        return matching_layers(document.graph, document.config, patterns)

    return work


def validate(document: Document, measured: Measured | None) -> Work:
    """The validation report, and what was measured for it: good until model or data change."""

    def work(emit: Emit, cancel: CancelToken) -> tuple[Measured, Validation]:
        from studio.project.validation import measure_document, validate_document

        found = measured or measure_document(document)
        cancel.check()
        return found, validate_document(document, found)

    return work


def report(document: Document, measured: Measured | None) -> Work:
    """The report as HTML, and what was measured for it: good until model or data change."""

    def work(emit: Emit, cancel: CancelToken) -> tuple[Measured, str]:
        from studio.project.report import document_report
        from studio.project.validation import measure_document

        found = measured or measure_document(document)
        cancel.check()
        return found, document_report(document, found, emit=emit, cancel=cancel)

    return work


def save(document: Document, path: Path) -> Work:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        from studio.project.store import save_project

        return save_project(document, path)

    return work


def model_bytes(document: Document) -> Work:
    """The prepared float graph as the bytes of an `.onnx` file."""

    def work(emit: Emit, cancel: CancelToken) -> bytes:
        return document.graph.to_proto().SerializeToString()

    return work
