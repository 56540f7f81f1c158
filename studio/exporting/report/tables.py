"""The smaller tables: accuracy, overrides, preparation, verification, files."""

from __future__ import annotations

from collections import Counter

from studio.analysis.quality import Evaluation
from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import Cell, Column, Markup, breakable, join, note, table, tag
from studio.exporting.report.text import cut, how, integer, points
from studio.exporting.summary import EndToEnd, LayerCheck, Verification
from studio.readable import decibels, percent, share, size

MOST_CHANGES = 600
MOST_CHECKS = 300


def accuracy_table(evaluation: Evaluation) -> Markup:
    """Accuracy of float and simulated, and how far the outputs are apart."""
    rows: list[tuple[str, str, str, str]] = []
    before, after = evaluation.float_accuracy, evaluation.accuracy
    if before is not None and after is not None:
        for name, old, new in (
            ("Top-1 accuracy", before.top1, after.top1),
            ("Top-5 accuracy", before.top5, after.top5),
        ):
            rows.append((name, percent(old, 2), percent(new, 2), f"{points(new - old)} points"))
    if evaluation.agreement is not None:
        rows.append(("Same top-1 class as float", "", percent(evaluation.agreement, 2), ""))
    rows.append(("SQNR of the output", "", decibels(evaluation.output.sqnr_db), ""))
    rows.append(("Cosine similarity of the output", "", f"{evaluation.output.cosine:.5f}", ""))
    columns = (
        Column(""),
        Column("Float", numeric=True),
        Column("Simulated", numeric=True),
        Column("Difference", numeric=True),
    )
    return table(columns, rows, "narrow")


def override_table(content: ReportContent) -> Markup:
    """Settings per layer or pattern; later ones win."""
    layers = content.config.layers
    if not layers:
        return note("No layer has settings of its own.")
    rows = (
        (pattern, ", ".join(f"{key} = {value}" for key, value in settings.given().items()))
        for pattern, settings in layers.items()
    )
    return table((Column("Layer or pattern"), Column("Settings")), rows, "names")


def change_table(content: ReportContent) -> Markup:
    """What preparation changed, with how often each rule applied."""
    changes = content.graph.changes
    if not changes:
        return note("Nothing was changed.")
    counts = Counter(change.rule for change in changes)
    summary = note(", ".join(f"{rule}: {integer(count)}" for rule, count in counts.most_common()))
    rows = [
        (change.rule, breakable(change.layer), change.detail) for change in changes[:MOST_CHANGES]
    ]
    columns = (Column("Rule"), Column("Layer"), Column("What and why"))
    return join(
        [summary, table(columns, rows, "changes tools"), cut(len(rows), len(changes), "The first")]
    )


def warning_list(content: ReportContent) -> Markup:
    """Warnings of the model and of the placement."""
    warnings = (*content.graph.warnings, *content.plan.warnings)
    if not warnings:
        return note("None.")
    return tag("ul", *(tag("li", text) for text in warnings[:MOST_CHANGES]), class_="warnings")


def end_to_end_table(verification: Verification) -> Markup:
    """The whole network in onnxruntime against the simulation."""
    columns = (
        Column("onnxruntime"),
        Column("SQNR", numeric=True),
        Column("Cosine", numeric=True),
        Column("Same top-1 class", numeric=True),
    )
    rows = (_end_to_end(row) for row in (verification.plain, verification.optimized))
    return table(columns, rows, "narrow")


def _end_to_end(row: EndToEnd) -> tuple[str, str, str, str]:
    return (
        f"optimisations {'on' if row.optimizations else 'off'}",
        decibels(row.distance.sqnr_db),
        f"{row.distance.cosine:.5f}",
        "–" if row.agreement is None else percent(row.agreement, 2),
    )


def check_table(content: ReportContent, verification: Verification) -> Markup:
    """Layers of the exported file against the simulation on equal inputs, worst first."""
    worst = sorted(
        verification.layers, key=lambda check: (-check.largest, check.within_one, check.identical)
    )
    columns = (
        Column("#", numeric=True),
        Column("Layer"),
        Column("Output"),
        Column("Quantized"),
        Column("Identical", numeric=True, hint="Share of output integers that are the same"),
        Column("Within one step", numeric=True),
        Column("Largest (steps)", numeric=True, hint="Largest difference in steps"),
    )
    rows = [_check(content, check) for check in worst[:MOST_CHECKS]]
    return join([table(columns, rows, "checks tools"), cut(len(rows), len(worst), "The worst")])


def _check(content: ReportContent, check: LayerCheck) -> tuple[str | Cell, ...]:
    tensor = content.plan.tensors.get(check.tensor)
    largest = integer(check.largest)
    return (
        str(content.numbers.get(check.layer, "–")),
        breakable(check.layer),
        breakable(check.tensor),
        how(tensor.spec, tensor.role) if tensor else "",
        share(check.identical),
        share(check.within_one),
        largest if check.largest <= 1 else Cell(largest, "bad"),
    )


def file_table(content: ReportContent) -> Markup:
    """The files written, and what quantization saved."""
    rows = ((file.name, size(file.bytes), file.what) for file in content.artifacts)
    columns = (Column("File"), Column("Size", numeric=True), Column("What it is for"))
    sizes = content.sizes
    if sizes is None or sizes.planned:
        return note("Nothing is exported yet.")
    saved = (
        f"{size(sizes.before)} in float, {size(sizes.after)} quantized: "
        f"{sizes.compression:.1f} times smaller."
    )
    return join([note(f"The model file: {saved}"), table(columns, rows, "names")])
