"""Rows of the Tensors, Preparation and Problems tabs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.app import text
from studio.app.text_table import Row

if TYPE_CHECKING:
    from studio.graph.prepare import Rule
    from studio.project.document import Document
    from studio.sim.plan import QuantSpec

TENSOR_TITLES = ("Tensor", "Role", "Layer", "Quantized", "Range", "Scale", "Why")
CHANGE_TITLES = ("Rule", "Layer", "What was done and why")
PROBLEM_TITLES = ("Where", "What")


def synthetic(document: Document) -> bool:
    """True if ranges or figures come from random data."""
    results = (document.calibration, document.evaluation)
    return any(result is not None and result.synthetic for result in results)


def tensor_rows(document: Document) -> list[Row]:
    """Every tensor of the graph: how it is quantized, or why not."""
    rows = []
    for plan in document.plan.tensors.values():
        how, span, scale = "float", "", ""
        if plan.spec is not None:
            how = f"{plan.spec.grid}{_granularity(plan.spec)}"
        encoding = document.encodings.get(plan.name)
        if encoding is not None:
            span = text.span(float(encoding.minimum.min()), float(encoding.maximum.max()))
            scale = text.number(float(encoding.scale.max()))
        why = plan.reason
        if plan.tied_to:
            why = f"Uses the encoding of {plan.tied_to}. {why}"
        cells = (plan.name, plan.role.value, plan.layer, how, span, scale, why)
        rows.append(Row(cells, plan.layer))
    return rows


def _granularity(spec: QuantSpec) -> str:
    if spec.observer == "dynamic":
        return ", ranged at every inference"
    if spec.block_size is not None:
        return f", {'LPBQ ' if spec.lpbq else ''}blocks of {spec.block_size}"
    return " per channel" if spec.axis is not None else ""


def rule_rows(document: Document) -> list[Rule]:
    """The rules of preparation: those that did something or are off, then the others."""
    from studio.graph.prepare import rules

    return sorted(rules(document.graph), key=lambda rule: rule.on and not rule.count)


def change_rows(document: Document, rule: str = "") -> list[Row]:
    """What preparation did to the model (what `rule` did, if one is given)."""
    layers = _layers_by_node(document)
    return [
        Row((change.rule, change.layer, change.detail), layers.get(change.layer, ""))
        for change in document.graph.changes
        if rule in ("", change.rule)
    ]


def _layers_by_node(document: Document) -> dict[str, str]:
    """Names of nodes, those that others have absorbed as well, and the layer each is in."""
    from studio.graph.edit import absorbed

    graph, found = document.graph, {}
    for layer in document.plan.layers:
        for name in layer.nodes:
            found.update(dict.fromkeys(absorbed(graph.node(name)), layer.name))
    for layer in document.plan.layers:
        found.update(dict.fromkeys((*layer.nodes, layer.name), layer.name))
    return found


def problem_rows(document: Document, job_warnings: tuple[str, ...]) -> list[Row]:
    """Everything the user should know that did not stop the work."""
    found = [("Model", warning) for warning in document.graph.warnings]
    impossible = [("Settings", words) for words in document.plan.impossible]
    found += impossible
    found += [("Settings", warning) for warning in document.plan.warnings]
    found += [("Last step", warning) for warning in job_warnings]
    if document.calibration is not None and document.calibration.synthetic:
        found.append(
            ("Calibration", "Calibrated on random data: the ranges are not those of real data.")
        )
    if document.evaluation is not None and document.evaluation.synthetic:
        found.append(("Evaluation", "Evaluated on random data: says nothing about real accuracy."))
    export = document.export
    if export is not None:
        found += [("Export", warning) for warning in export.warnings]
        if export.verification is not None and export.verification.problem:
            found.append(("Export", export.verification.problem))
    return [
        Row(problem, role="bad" if problem in impossible else "warn")
        for problem in dict.fromkeys(found)
    ]
