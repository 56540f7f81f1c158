"""What was applied to the model, in order: what each technique did, as words, plots and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from studio.exporting.report import line_chart as chart
from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import (
    LONGEST_OPEN,
    Column,
    Markup,
    breakable,
    join,
    note,
    table,
    tag,
)
from studio.exporting.report.text import cut, duration, integer
from studio.jobs.events import TrainingResult
from studio.readable import number
from studio.techniques.applied import Applied
from studio.techniques.history import TrainingHistory, smoothed
from studio.techniques.technique import Chart, Point

MOST_ROWS = 1000
SMOOTHING = 0.9
_UNITS = {"top-1": "%", "SQNR": "dB"}


def technique_parts(content: ReportContent) -> Markup:
    """A part for each technique that was applied."""
    if not content.applied:
        return note("Nothing was applied: the model is quantized as calibrated.")
    layers = {layer.name for layer in content.plan.layers}
    return join(_part(number, item, layers) for number, item in enumerate(content.applied, 1))


def _part(place: int, applied: Applied, layers: set[str]) -> Markup:
    took = "" if applied.seconds is None else f" took {duration(applied.seconds)}"
    summary = f"{applied.summary[:1].upper()}{applied.summary[1:]}".rstrip(".")
    parts = [
        tag("h3", f"{place}  {applied.heading}", tag("small", took)),
        tag("p", f"{summary}." if summary else ""),
        note(applied.options_text or "With the default options."),
    ]
    plots = _training(applied.training) if applied.training is not None else []
    if applied.chart is not None and applied.chart.points:
        plots.append(_chart(applied.chart))
    if plots:
        parts.append(tag("div", *plots, class_="plots"))
    parts.append(_rows(applied, layers))
    return tag("div", join(parts), class_="step")


def _rows(applied: Applied, layers: set[str]) -> Markup:
    rows = applied.rows
    if not rows:
        return Markup("")
    of_layers = any(row.layer in layers for row in rows)
    measured = any(row.before is not None or row.after is not None for row in rows)
    columns = [Column("Layer" if of_layers else "Step"), Column("What")]
    if measured:
        columns += [Column("Before", numeric=True), Column("After", numeric=True)]
    shown = [
        (breakable(row.layer), row.what, _measure(row.before), _measure(row.after))[: len(columns)]
        for row in rows[:MOST_ROWS]
    ]
    told = f"Before and after: {applied.measure}." if measured and applied.measure else ""
    css = "names tools" if len(shown) > LONGEST_OPEN else "names"
    return join([
        note(told) if told else Markup(""),
        table(columns, shown, css),
        cut(len(shown), len(rows), "The first"),
    ])  # fmt: skip


def _measure(value: float | None) -> str:
    return "–" if value is None else number(value)


# -- plots -------------------------------------------------------------------------------------


def _figure(title: str, plot: Markup, *more: Markup) -> Markup:
    return tag("figure", tag("figcaption", tag("b", title)), plot, *more)


def _chart(shown: Chart) -> Markup:
    """Points on the line filled, those aside hollow, the chosen one a star, the target a line."""
    points = shown.points
    levels = [point.y for point in points]
    if shown.target is not None:
        levels.append(shown.target)
    frame = chart.frame([point.x for point in points], levels, 0.22, _most(shown.y, levels))
    joined = [point for point in points if not point.aside]
    parts = []
    if shown.target is not None:
        parts.append(chart.level(frame, shown.target, "target"))
    if shown.line:
        parts.append(chart.line(frame, [(point.x, point.y) for point in joined], "curve"))
    for point in sorted(points, key=lambda point: point.chosen):
        title = _point_title(shown, point)
        if point.chosen:
            parts.append(chart.star(frame, point.x, point.y, title))
        else:
            css = "aside" if point.aside else "dot"
            parts.append(chart.dot(frame, point.x, point.y, css, title))
    named = sorted((point for point in points if point.label), key=lambda p: not p.chosen)
    parts.append(
        chart.labels(
            frame, (chart.Label(p.x, p.y, p.label, "" if p.chosen else "plain") for p in named)
        )
    )
    plot = chart.plot(frame, shown.x, shown.y, *parts, label=shown.title)
    chosen = next((point for point in points if point.chosen), None)
    told = note(f"★ {chosen.label}. {chosen.note}".strip()) if chosen is not None else Markup("")
    return _figure(shown.title, plot, told)


def _point_title(shown: Chart, point: Point) -> str:
    place = f"{shown.x} {number(point.x)}, {shown.y} {number(point.y)}"
    return ": ".join(filter(None, (point.label, place))) + (f". {point.note}" if point.note else "")


def _most(title: str, values: Sequence[float]) -> float:
    """Where an axis ends that counts percent of a whole."""
    return 100.0 if "%" in title and max(values) <= 100.0 else math.inf


def _training(history: TrainingHistory) -> list[Markup]:
    """Loss over the steps, and what was reached after each epoch."""
    steps = [float(step) for step in history.steps]
    plots = []
    if len(steps) > 1:
        raw = list(zip(steps, history.losses, strict=True))
        known = [(step, loss) for step, loss in raw if math.isfinite(loss)]
        averages = smoothed([loss for _, loss in known], SMOOTHING)
        trend = [(step, float(loss)) for (step, _), loss in zip(known, averages, strict=True)]
        frame = chart.frame(steps, history.losses)
        parts = [
            chart.line(frame, raw, "raw"),
            chart.line(frame, trend, "curve"),
        ]
        plots.append(
            _figure("Training: loss", chart.plot(frame, "step", "loss", *parts, label="Loss"))
        )
    if history.results:
        plots.append(_results(history.results, history.best))
    return plots


def _results(results: Sequence[TrainingResult], best: TrainingResult | None) -> Markup:
    metric = results[0].metric
    unit = _UNITS.get(metric, "")
    points: Any = [(float(result.step), result.value) for result in results]
    values = [result.value for result in results]
    frame = chart.frame((x for x, _ in points), values, 0.22, _most(unit, values))
    parts = [chart.line(frame, points, "curve")]
    for result in results:
        x, y = float(result.step), result.value
        title = f"epoch {result.epoch + 1}: {number(y)} {unit}".strip()
        chosen = best is not None and result is best
        parts.append(
            chart.star(frame, x, y, title) if chosen else chart.dot(frame, x, y, "dot", title)
        )
    if best is not None:
        words = f"{number(best.value)} {unit}".strip()
        parts.append(chart.labels(frame, [chart.Label(float(best.step), best.value, words)]))
    title = f"Training: {metric} of the simulation"
    plot = chart.plot(frame, "step", f"{metric} {unit}".strip(), *parts, label=title)
    told = "" if best is None else f"★ best: after epoch {integer(best.epoch + 1)}."
    return _figure(title, plot, note(told) if told else Markup(""))
