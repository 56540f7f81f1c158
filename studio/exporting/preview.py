"""What an export would be, without writing it: choices that exclude each other are named early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from studio.errors import ExportError, StudioError
from studio.exporting.encodings import version_problem
from studio.exporting.graphs import file_storage, refuse_zero_points
from studio.exporting.options import ExportForm, ExportOptions, export_form
from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.sim.plan import Plan, require_possible
from studio.sim.qdq.storage import check_opset
from studio.sim.target_rules import ExportRule


@dataclass(frozen=True)
class ExportPreview:
    """`form` has every choice made, at `opset`; `problem` says why it cannot be exported."""

    form: ExportForm | None
    opset: int | None
    problem: StudioError | None


def preview_export(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    options: ExportOptions,
    rule: ExportRule,
) -> ExportPreview:
    """What `options` come to for a target with `rule`. Nothing is raised."""
    form: ExportForm | None = None
    opset: int | None = None
    try:
        form = export_form(options, rule)
        require_possible(plan)
        storage = file_storage(graph, plan, form)
        opset = storage.opset
        check_opset(plan, storage)
        if form.rule.zero_points == "zero" and all(name in encodings for name in plan.quantized):
            refuse_zero_points(plan, encodings)
        for version in form.encodings_versions if form.versions_chosen else ():
            missing = version_problem(plan, encodings, version)
            if missing:
                raise ExportError(
                    f"Encodings {version} have no entry for {missing}.",
                    "Choose another version, or none in particular.",
                )
    except StudioError as error:
        return ExportPreview(form, opset, error)
    return ExportPreview(form, opset, None)
