"""Which layers the loss comes from, and tensors with outlier channels."""

from __future__ import annotations

import math
from typing import NamedTuple

from studio.analysis.sensitivity_figures import (
    LEAST,
    Deviation,
    LayerSensitivity,
    Sensitivity,
    relative_error,
)
from studio.exporting.report import bar_chart as chart
from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import Column, Markup, breakable, join, note, table, tag
from studio.exporting.report.scales import Scale, round_step, sqnr_class
from studio.exporting.report.sqnr_chart import LABELLED, sqnr_legend
from studio.exporting.report.text import cut, decibel_change, integer, plural
from studio.readable import decibels, number, percent

MOST_OUTLIERS = 300


class SensitivityBar(NamedTuple):
    """height: error in percent, or what leaving the layer in float gains in dB."""

    first: int
    last: int
    layer: str
    height: float
    words: str
    css: str


def sensitivity_parts(content: ReportContent, found: Sensitivity) -> Markup:
    """Totals, the chart and the outliers; the figures of each layer are in the table of layers."""
    alone = any(layer.alone is not None for layer in found.layers)
    if alone:
        about = (
            "Each layer quantized alone, all others in float: the error of the model's outputs in "
            "percent (20 dB are 10\N{NO-BREAK SPACE}%, 40 dB are 1\N{NO-BREAK SPACE}%)."
        )
    else:
        about = "What the SQNR of the model's outputs gains when a layer alone is left in float."
    more = " The table of layers has the figures of each layer."
    return join([
        note(f"Measured on {plural(found.samples, 'sample')} of {found.data}."),
        _totals(found),
        tag("h3", "Layer by layer"),
        note(about + more),
        _chart(content, found, alone),
        tag("h3", "Outlier channels"),
        _outliers(found),
    ])  # fmt: skip


def _totals(found: Sensitivity) -> Markup:
    columns = (
        Column("Quantized"),
        Column("Output SQNR", numeric=True),
        Column("KL divergence", numeric=True, hint="Of the class probabilities, in nats"),
        Column("Same top-1 class", numeric=True, hint="As the float model"),
        Column("Top-1", numeric=True),
    )
    rows = [
        (
            name,
            decibels(each.sqnr_db),
            _known(each.kl),
            _percent(each.agreement),
            _percent(each.top1),
        )
        for name, each in (
            ("everything", found.both),
            ("weights alone", found.weights),
            ("activations alone", found.activations),
        )
    ]
    if found.float_top1 is not None:
        rows.append(("nothing (float)", "", "", "", _percent(found.float_top1)))
    return table(columns, rows, "narrow")


def _known(value: float | None) -> str:
    return "–" if value is None else number(value, 3)


def _percent(value: float | None) -> str:
    return "–" if value is None else percent(value, 2)


# -- chart -------------------------------------------------------------------------------------


def _chart(content: ReportContent, found: Sensitivity, alone: bool) -> Markup:
    bars = [
        bar
        for layer in found.layers
        if layer.layer in content.numbers
        and (bar := _bar(content, found, layer, alone)) is not None
    ]
    if not bars:
        return note("Neither each layer alone nor each layer left in float was measured.")
    count = len(bars)
    bars = [
        max(group, key=lambda bar: bar.height)._replace(first=group[0].first, last=group[-1].last)
        for group in chart.groups(bars)
    ]
    low, high = min(0.0, *(bar.height for bar in bars)), max(bar.height for bar in bars)
    high = high if high > low else low + 1.0
    step = round_step(high - low, 6)
    scale = Scale(
        math.floor(low / step) * step, math.ceil(high / step) * step, chart.TOP, chart.BOTTOM
    )
    pitch = (chart.WIDTH - chart.LEFT - chart.RIGHT) / len(bars)
    width = min(22.0, max(1.0, pitch * 0.72))
    drawn = []
    for index, bar in enumerate(bars):
        x = chart.LEFT + (index + 0.5) * pitch - width / 2
        top, bottom = sorted((scale(bar.height), scale(0.0)))
        title = f"{chart.name(bar)}: {bar.words}"
        drawn.append(chart.bar(bar.css, x, top, width, max(bottom - top, 1.0), title))
    worst = sorted(bars, key=lambda bar: -bar.height)[:LABELLED]
    worst = [bar for bar in worst if bar.height > 0.0]
    values = chart.labels(
        (
            chart.LEFT + (bars.index(bar) + 0.5) * pitch,
            scale(bar.height),
            number(bar.height, 2),
        )
        for bar in sorted(worst)
    )
    figure = chart.figure(
        chart.grid(scale, "%" if alone else "dB"),
        join(drawn),
        chart.numbers_axis(bars, pitch),
        values,
        label="Sensitivity of every layer in graph order",
    )
    names = (
        tag(
            "li",
            tag("b", bar.words),
            " ",
            tag("code", bar.layer),
            tag("small", f" layer {bar.first}"),
        )
        for bar in worst
        if bar.first == bar.last
    )
    return join([
        figure,
        sqnr_legend(any(bar.css == "exact" for bar in bars)) if alone else Markup(""),
        chart.merged_note(count, len(bars), "the most sensitive of them"),
        tag("h3", "Most sensitive"),
        tag("ol", *names, class_="worst"),
    ])  # fmt: skip


def _bar(
    content: ReportContent, found: Sensitivity, layer: LayerSensitivity, alone: bool
) -> SensitivityBar | None:
    place = content.numbers[layer.layer]
    if alone:
        if layer.alone is None:
            return None
        sqnr = layer.alone.sqnr_db
        css = "exact" if sqnr == math.inf else sqnr_class(sqnr)
        return SensitivityBar(
            place, place, layer.layer, relative_error(sqnr), _alone(layer.alone), css
        )
    gain = found.gain_db(layer)
    if gain is None or not math.isfinite(gain):
        return None
    return SensitivityBar(place, place, layer.layer, gain, decibel_change(gain), "seen")


def _alone(deviation: Deviation) -> str:
    words = f"{number(relative_error(deviation.sqnr_db), 3)}\N{NO-BREAK SPACE}%"
    return f"{words} ({decibels(deviation.sqnr_db)})"


# -- outliers ----------------------------------------------------------------------------------


def _outliers(found: Sensitivity) -> Markup:
    if not found.outliers:
        return note("No tensor with one scale has outlier channels.")
    columns = (
        Column("Tensor"),
        Column("Layer"),
        Column("Widest to median", numeric=True, hint="Largest values of the channels"),
        Column("Bits lost", numeric=True, hint="By the median channel"),
        Column("Channels", numeric=True, hint=f"That reach over {LEAST:.0f} times the median"),
        Column("What helps"),
    )
    rows = [
        (
            breakable(item.tensor),
            breakable(item.layer),
            f"{item.factor:.1f} ×",
            f"{item.lost_bits:.1f}",
            f"{integer(item.beyond)} of {integer(item.channels)}",
            item.advice,
        )
        for item in found.outliers[:MOST_OUTLIERS]
    ]
    return join([
        note("Tensors with one scale for all channels, which follows the widest channel: the "
             "others are left with fewer bits."),
        table(columns, rows, "names outliers tools"),
        cut(len(rows), len(found.outliers), "The worst"),
    ])  # fmt: skip
