"""Observed ranges of the layers' outputs and the limits of their encodings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from studio.exporting.report import bar_chart as chart
from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import Markup, join, note, tag
from studio.exporting.report.scales import Scale, bending, round_step
from studio.readable import number

_LEGEND = (
    ("limits", "limits of the encoding"),
    ("seen", "observed"),
    ("cut", "observed, clipped"),
)


class RangeBar(NamedTuple):
    """`low`, `high`: limits of the encoding or nan; `minimum`, `maximum`: observed or nan."""

    first: int
    last: int
    layer: str
    low: float
    high: float
    minimum: float
    maximum: float

    @property
    def reach(self) -> float:
        """Largest absolute value."""
        ends = (self.low, self.high, self.minimum, self.maximum)
        return max((abs(end) for end in ends if math.isfinite(end)), default=0.0)


def range_chart(content: ReportContent) -> Markup:
    """Observed range and the encoding's limits of every layer's output; empty without any."""
    tensors = [bar for bar in _ranges(content) if bar.reach > 0]
    if not tensors:
        return Markup("")
    bars = [
        max(group, key=lambda bar: bar.reach)._replace(first=group[0].first, last=group[-1].last)
        for group in chart.groups(tensors)
    ]
    bend = bending([bar.reach for bar in bars])
    ends = [end for bar in bars for end in bar[3:] if math.isfinite(end)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    if bend is None:
        step = round_step(high - low, 6)
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    scale = Scale(low, high, chart.TOP - 12, chart.BOTTOM, bend)
    pitch = (chart.WIDTH - chart.LEFT - chart.RIGHT) / len(bars)
    width = min(18.0, max(1.0, pitch * 0.72))
    drawn = [
        _range(bar, scale, chart.LEFT + (index + 0.5) * pitch, width)
        for index, bar in enumerate(bars)
    ]
    figure = chart.figure(
        chart.grid(scale, ""), join(drawn), chart.numbers_axis(bars, pitch),
        label="Observed activation range and limits of the encoding of every layer",
    )  # fmt: skip
    bent = "A few ranges are much wider than the others: the scale is compressed beyond ±"
    return join([
        figure,
        chart.legend(_LEGEND),
        note(f"{bent}{number(bend)}.") if bend is not None else "",
        chart.merged_note(len(tensors), len(bars), "the widest of them"),
    ])  # fmt: skip


def _ranges(content: ReportContent) -> Iterator[RangeBar]:
    for layer in content.layers:
        encoding, seen = content.encoding(layer.output), content.observed(layer.output)
        low = high = math.nan
        if encoding is not None and encoding.axis is None:
            low, high = float(encoding.minimum), float(encoding.maximum)
        index = content.numbers[layer.name]
        minimum, maximum = (seen.minimum, seen.maximum) if seen else (math.nan, math.nan)
        yield RangeBar(index, index, layer.name, low, high, minimum, maximum)


def _range(bar: RangeBar, scale: Scale, centre: float, width: float) -> Markup:
    parts = [tag("title", _range_title(bar))]
    if math.isfinite(bar.low):
        parts.append(
            chart.rect("limits", centre - width / 2, scale(bar.high), width, scale(bar.low))
        )
    if math.isfinite(bar.minimum):
        thin = max(1.0, width / 3)
        x = centre - thin / 2
        low = bar.low if math.isfinite(bar.low) else bar.minimum
        high = bar.high if math.isfinite(bar.high) else bar.maximum
        inside = (min(max(bar.minimum, low), high), max(min(bar.maximum, high), low))
        parts.append(chart.rect("seen", x, scale(inside[1]), thin, scale(inside[0])))
        # Half a step is rounding, not clipping: draw only what the eye can see.
        if scale(high) - scale(bar.maximum) >= 1:
            parts.append(chart.rect("cut", x, scale(bar.maximum), thin, scale(high)))
        if scale(bar.minimum) - scale(low) >= 1:
            parts.append(chart.rect("cut", x, scale(low), thin, scale(bar.minimum)))
    return tag("g", *parts)


def _range_title(bar: RangeBar) -> str:
    lines = [chart.name(bar)]
    if math.isfinite(bar.minimum):
        lines.append(f"observed {number(bar.minimum)} … {number(bar.maximum)}")
    if math.isfinite(bar.low):
        lines.append(f"limits {number(bar.low)} … {number(bar.high)}")
    return "\n".join(lines)
