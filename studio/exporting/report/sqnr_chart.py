"""SQNR of the layers' outputs as bars, in graph order."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from studio.exporting.report import bar_chart as chart
from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import Markup, join, tag
from studio.exporting.report.scales import SQNR_STEPS, Scale, round_step, sqnr_class
from studio.readable import decibels

LABELLED = 5
"""Bars that are named: the worst."""


class SqnrBar(NamedTuple):
    first: int
    last: int
    layer: str
    sqnr: float


def sqnr_chart(content: ReportContent) -> Markup:
    """SQNR of every evaluated layer in graph order, the worst named below; empty without any."""
    layers = [
        SqnrBar(content.numbers[layer.name], content.numbers[layer.name], layer.name, sqnr)
        for layer in content.layers
        if not math.isnan(sqnr := content.sqnr.get(layer.name, math.nan))
    ]
    if not layers:
        return Markup("")
    bars = [
        min(group, key=lambda bar: bar.sqnr)._replace(first=group[0].first, last=group[-1].last)
        for group in chart.groups(layers)
    ]
    finite = [bar.sqnr for bar in bars if math.isfinite(bar.sqnr)] or [0.0]
    low, high = min(0.0, *finite), max(10.0, *finite)
    step = max(10.0, round_step(high - low, 6))
    scale = Scale(
        math.floor(low / step) * step, math.ceil(high / step) * step, chart.TOP, chart.BOTTOM
    )
    pitch = (chart.WIDTH - chart.LEFT - chart.RIGHT) / len(bars)
    width = min(22.0, max(1.0, pitch * 0.72))
    drawn = []
    for index, bar in enumerate(bars):
        x = chart.LEFT + (index + 0.5) * pitch - width / 2
        ends = sorted((scale(bar.sqnr), scale(0.0)))
        css = "exact" if bar.sqnr == math.inf else sqnr_class(bar.sqnr)
        # A bar of no height would be invisible just where something is wrong.
        height = max(ends[1] - ends[0], 2.0)
        drawn.append(
            chart.bar(css, x, ends[0], width, height, f"{chart.name(bar)}: {decibels(bar.sqnr)}")
        )
    altered = (bar for bar in bars if bar.sqnr < math.inf)
    worst = sorted(altered, key=lambda bar: bar.sqnr)[:LABELLED]
    labels = chart.labels(
        (
            chart.LEFT + (bars.index(bar) + 0.5) * pitch,
            scale(max(bar.sqnr, 0.0)),
            decibels(bar.sqnr, unit=False),
        )
        for bar in sorted(worst)
    )
    figure = chart.figure(
        chart.grid(scale, "dB"), join(drawn), chart.numbers_axis(bars, pitch), labels,
        label="Output SQNR of every layer in graph order",
    )  # fmt: skip
    names = (
        tag(
            "li",
            tag("b", decibels(bar.sqnr)),
            " ",
            tag("code", bar.layer),
            tag("small", _where(bar)),
        )
        for bar in worst
    )
    return join([
        figure,
        sqnr_legend(any(bar.sqnr == math.inf for bar in bars)),
        chart.merged_note(len(layers), len(bars), "the lowest of them"),
        tag("h3", "Lowest"),
        tag("ol", *names, class_="worst"),
    ])  # fmt: skip


def _where(bar: SqnrBar) -> str:
    if bar.first == bar.last:
        return f" layer {bar.first}"
    return f" lowest of the layers {bar.first} to {bar.last}"


def sqnr_legend(exact: bool) -> Markup:
    """What the colours of SQNRs mean."""
    names = [f"< {SQNR_STEPS[0]}"]
    names += [f"{low}–{high}" for low, high in pairwise(SQNR_STEPS)]
    names.append(f"≥ {SQNR_STEPS[-1]} dB")
    items = [(f"q{index}", name) for index, name in enumerate(names)]
    return chart.legend([*items, ("exact", "exact")] if exact else items)
