"""The step that gives a document the encodings of a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from studio.exporting.encodings import FindingKind, MatchReport, read_encodings
from studio.exporting.encodings.load import with_encodings
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress, Warned, silent
from studio.project.document import Document
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.placement import place

SHOWN = 5


def load_encodings(
    document: Document,
    path: Path,
    *,
    partial: bool = False,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> tuple[Document, MatchReport]:
    """`document` quantized as the encodings file at `path` says, and how file and model match.

    The target stays; settings of layers and defaults are dropped, for they would overrule the file
    (as they do when they are made afterwards). Needs no calibration, unless `partial`: then what
    the file leaves out follows the target's rules, and entries for unknown tensors are only
    reported. Raises ConfigError naming what is wrong with the file, or does not fit the model.
    """
    emit(Progress("Loading encodings", 0, 2, path.name))
    config = QuantConfig(target=document.config.target)
    graph, report = graph_with_encodings(document.graph, config, path, partial=partial, emit=emit)
    (cancel or CancelToken()).check()
    emit(Progress("Loading encodings", 1, 2, "placing quantizers"))
    plan = place(graph, config)
    statistics = document.calibration.statistics if document.calibration else {}
    encodings = compute_encodings(graph, plan, statistics, cancel)
    loaded = replace(
        document,
        graph=graph,
        config=config,
        plan=plan,
        encodings=encodings,
        evaluation=None,
        sensitivity=None,
        export=None,
    )
    return loaded, report


def graph_with_encodings(
    graph: ModelGraph, config: QuantConfig, path: Path, *, partial: bool, emit: Emit = silent
) -> tuple[ModelGraph, MatchReport]:
    """`graph` with the encodings of the file at `path`, which its source names from now on."""
    loaded, report = with_encodings(graph, config, read_encodings(path), partial=partial)
    for finding in report.problems:
        emit(Warned(f"{report.file}: {finding.name}: {finding.message}. {finding.action}"))
    missing = () if partial else report.of(FindingKind.MISSING)
    if missing:
        shown = ", ".join(finding.name for finding in missing[:SHOWN])
        shown = ", ".join(finding.name for finding in missing[:SHOWN])
        more = f" and {len(missing) - SHOWN} more" if missing[SHOWN:] else ""
        emit(Warned(f"{report.file} has nothing for {shown}{more}: left float."))
    source = replace(graph.source, encodings=path, encodings_partial=partial)
    return replace(loaded, source=source), report
