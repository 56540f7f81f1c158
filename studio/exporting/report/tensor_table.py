"""Every tensor of the graph: quantized how and why, or why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import Cell, Column, Markup, Row, breakable, join, note, table
from studio.exporting.report.text import how, integer
from studio.sim.plan import Role, TensorPlan

MOST_ROWS = 4000
"""Tensors with a row each; larger models list the names under each decision instead."""


def placement_table(content: ReportContent) -> Markup:
    """How many tensors of each role are quantized how."""
    counts = Counter((row.role, how(row.spec, row.role)) for row in content.plan.tensors.values())
    order = list(Role)
    rows = sorted(counts.items(), key=lambda item: (order.index(item[0][0]), -item[1]))
    columns = (Column("Tensors"), Column("Quantized"), Column("Count", numeric=True))
    return table(columns, ((role.value, text, integer(count)) for (role, text), count in rows))


def tensor_table(content: ReportContent) -> Markup:
    """All tensors in graph order; above MOST_ROWS grouped by decision, none left out."""
    tensors = tuple(content.plan.tensors.values())
    if len(tensors) > MOST_ROWS:
        return _by_decision(tensors)
    columns = (
        Column("Tensor"),
        Column("Role"),
        Column("Quantized"),
        Column("Tied to", hint="The tensor whose encoding this one uses"),
        Column("Why / why not"),
    )
    return table(columns, map(_row, tensors), "tensors tools")


def _row(tensor: TensorPlan) -> Row:
    text = how(tensor.spec, tensor.role)
    quantized = text if tensor.spec is not None else Cell(text, "not")
    tied_to = breakable(tensor.tied_to or "")
    return (breakable(tensor.name), tensor.role.value, quantized, tied_to, tensor.reason)


def _by_decision(tensors: Sequence[TensorPlan]) -> Markup:
    groups: dict[tuple[Role, str, str, str], list[str]] = {}
    for row in tensors:
        key = (row.role, how(row.spec, row.role), row.tied_to or "", row.reason)
        groups.setdefault(key, []).append(row.name)
    columns = (
        Column("Role"),
        Column("Quantized"),
        Column("Tied to"),
        Column("Why / why not"),
        Column("Count", numeric=True),
        Column("Tensors"),
    )
    rows = (
        (role.value, text, tied_to, reason, integer(len(names)), join(names, ", "))
        for (role, text, tied_to, reason), names in groups.items()
    )
    explained = "One row per decision, with the names of all tensors it is about."
    return join([note(explained), table(columns, rows, "decisions tools")])
