"""What was known before calibrating: findings, what stays float and why, the cost of the layers."""

from __future__ import annotations

from studio.analysis.validation import Finding, LayerReport, Severity, Validation
from studio.exporting.report.markup import (
    Cell,
    Column,
    Markup,
    Row,
    breakable,
    facts,
    join,
    note,
    table,
    tag,
)
from studio.exporting.report.text import cut, integer, plural
from studio.readable import count, percent, size

MOST_COSTS = 300
MOST_NAMES = 12
_MOODS = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.NOTE: ""}


def validation_tables(report: Validation) -> Markup:
    """All parts of the section."""
    return join([
        facts(_totals(report)),
        tag("h3", "Findings"),
        _findings(report),
        tag("h3", "Tensors that stay float"),
        _float_tensors(report),
        tag("h3", "Cost of the layers"),
        _costs(report),
    ])  # fmt: skip


def _totals(report: Validation) -> list[tuple[str, str]]:
    part = 100 * report.integer_macs / report.macs if report.macs else 0.0
    unknown = len(report.unknown_macs)
    without = f", without {plural(unknown, 'layer')} of unknown shape" if unknown else ""
    pairs = []
    if report.costs_known:
        pairs += [
            ("MACs", f"{count(report.macs)} for one sample{without}"),
            ("In integers", f"{percent(part)} of the MACs on {report.target}"),
            ("Bit-operations", f"{count(report.bit_operations)} for one sample"),
        ]
    sizes = f"{size(report.float_bytes)} float, {size(report.quantized_bytes)} planned"
    pairs.append(("Constants", sizes))
    if report.dynamic:
        shown = ", ".join(f"{name} {shape}" for name, shape in report.dynamic)
        pairs.append(("Open sizes", shown))
    return pairs


def _findings(report: Validation) -> Markup:
    if not report.findings:
        return note("Nothing to remark.")
    columns = (Column("Severity"), Column("About"), Column("What, and what to do"))
    return table(columns, map(_finding, report.findings), "findings")


def _finding(finding: Finding) -> Row:
    severity = Cell(finding.severity.value, _MOODS[finding.severity])
    return (severity, finding.topic, f"{finding.message} {finding.hint}".strip())


def _float_tensors(report: Validation) -> Markup:
    if not report.float_tensors:
        return note("Every floating-point tensor is quantized.")
    columns = (Column("Count", numeric=True), Column("Why"), Column("Which"))
    rows = []
    for group in report.float_tensors:
        rest = len(group.tensors) - MOST_NAMES
        names = join(map(breakable, group.tensors[:MOST_NAMES]), ", ")
        more = f" and {integer(rest)} more" if rest > 0 else ""
        rows.append((integer(len(group.tensors)), group.reason, join([names, more])))
    return table(columns, rows, "reasons")


def _costs(report: Validation) -> Markup:
    ordered = sorted(report.layers, key=_weight, reverse=True)
    columns = (
        Column("Layer"),
        Column("Ops"),
        Column("MACs", numeric=True, hint="Multiply-accumulates of one sample"),
        Column("Share", numeric=True, hint="Of the multiply-accumulates of all layers"),
        Column("Bit-operations", numeric=True, hint="MACs times the bits of both operands"),
        Column("Constants", numeric=True, hint="In float"),
        Column("Planned", numeric=True, hint="At their planned bits, without scales"),
        Column("Runs in"),
    )
    rows = [_cost(layer, report.macs) for layer in ordered[:MOST_COSTS]]
    sizes = len(report.shape_layers)
    left_out = note(f"Without {plural(sizes, 'layer')} of arithmetic of sizes.") if sizes else ""
    shown = cut(len(rows), len(ordered), "The most costly")
    return join([left_out, table(columns, rows, "costs tools"), shown])


def _weight(layer: LayerReport) -> tuple[bool, int, int]:
    """Unknown costs first, then the highest."""
    return layer.cost.macs is None, layer.cost.macs or 0, layer.cost.float_bytes


def _cost(layer: LayerReport, total: int) -> Row:
    cost = layer.cost
    part = 100 * cost.macs / total if cost.macs and total else 0.0
    return (
        breakable(layer.name),
        layer.title,
        "?" if cost.macs is None else count(cost.macs),
        percent(part) if part else "–",
        "?" if cost.bit_operations is None else count(cost.bit_operations),
        size(cost.float_bytes),
        size(cost.quantized_bytes),
        Cell(f"float: {layer.reason}", "warn") if layer.reason else "integers",
    )
