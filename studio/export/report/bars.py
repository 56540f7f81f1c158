"""Charts with one bar a layer: SQNR of the outputs, ranges of the activations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from studio.export.report.content import ReportContent
from studio.export.report.markup import Markup, escape, join, tag
from studio.export.report.scales import SQNR_STEPS, Scale, bending, round_step, sqnr_class
from studio.export.report.text import decibels, number, plural

LONGEST = 240
"""Bars in a chart; longer networks show neighbouring layers as one bar."""

WIDTH, HEIGHT = 1080, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 26, 34
_LABELLED = 5


class SqnrBar(NamedTuple):
    first: int
    last: int
    layer: str
    sqnr: float


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


def sqnr_chart(content: ReportContent) -> Markup:
    """SQNR of every evaluated layer in graph order, the worst named below; empty without any."""
    layers = [
        SqnrBar(content.numbers[layer.name], content.numbers[layer.name], layer.name, sqnr)
        for layer in content.plan.layers
        if not math.isnan(sqnr := content.sqnr.get(layer.name, math.nan))
    ]
    if not layers:
        return Markup("")
    bars = [
        min(group, key=lambda bar: bar.sqnr)._replace(first=group[0].first, last=group[-1].last)
        for group in _groups(layers)
    ]
    finite = [bar.sqnr for bar in bars if math.isfinite(bar.sqnr)] or [0.0]
    low, high = min(0.0, *finite), max(10.0, *finite)
    step = max(10.0, round_step(high - low, 6))
    scale = Scale(math.floor(low / step) * step, math.ceil(high / step) * step, _TOP, HEIGHT - _BOTTOM)
    pitch = (WIDTH - _LEFT - _RIGHT) / len(bars)
    width = min(22.0, max(1.0, pitch * 0.72))
    drawn = []
    for index, bar in enumerate(bars):
        x = _LEFT + (index + 0.5) * pitch - width / 2
        ends = sorted((scale(bar.sqnr), scale(0.0)))
        css = "exact" if bar.sqnr == math.inf else sqnr_class(bar.sqnr)
        # A bar of no height would be invisible just where something is wrong.
        height = max(ends[1] - ends[0], 2.0)
        drawn.append(_bar(css, x, ends[0], width, height, f"{_name(bar)}: {decibels(bar.sqnr)}"))
    worst = sorted((bar for bar in bars if bar.sqnr < math.inf), key=lambda bar: bar.sqnr)[:_LABELLED]
    labels = _labels(
        (_LEFT + (bars.index(bar) + 0.5) * pitch, scale(max(bar.sqnr, 0.0)), decibels(bar.sqnr, unit=False))
        for bar in sorted(worst)
    )
    figure = _figure(
        _grid(scale, "dB"), join(drawn), _numbers_axis(bars, pitch), labels,
        label="Output SQNR of every layer in graph order",
    )  # fmt: skip
    names = (tag("li", tag("b", decibels(bar.sqnr)), " ", _link(bar)) for bar in worst)
    return join([
        figure,
        _sqnr_legend(any(bar.sqnr == math.inf for bar in bars)),
        tag("h3", "Lowest"),
        tag("ol", *names, class_="worst"),
        _merged_note(len(layers), len(bars), "layers", "the lowest of them"),
    ])  # fmt: skip


def range_chart(content: ReportContent) -> Markup:
    """Observed range and the encoding's limits of every layer's output; empty without any."""
    tensors = [bar for bar in _ranges(content) if bar.reach > 0]
    if not tensors:
        return Markup("")
    bars = [
        max(group, key=lambda bar: bar.reach)._replace(first=group[0].first, last=group[-1].last)
        for group in _groups(tensors)
    ]
    bend = bending([bar.reach for bar in bars])
    ends = [end for bar in bars for end in bar[3:] if math.isfinite(end)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    if bend is None:
        step = round_step(high - low, 6)
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    scale = Scale(low, high, _TOP - 12, HEIGHT - _BOTTOM, bend)
    pitch = (WIDTH - _LEFT - _RIGHT) / len(bars)
    width = min(18.0, max(1.0, pitch * 0.72))
    drawn = [
        _range(bar, scale, _LEFT + (index + 0.5) * pitch, width) for index, bar in enumerate(bars)
    ]
    figure = _figure(
        _grid(scale, ""), join(drawn), _numbers_axis(bars, pitch),
        label="Observed activation range and limits of the encoding of every layer",
    )  # fmt: skip
    bent = (
        tag("p", f"The scale is compressed beyond ±{number(bend)}: a few ranges are much wider than "
            "the others.", class_="note")
        if bend is not None
        else Markup("")
    )  # fmt: skip
    return join([
        figure,
        _legend([("limits", "limits of the encoding"), ("seen", "observed"), ("cut", "observed, clipped")]),
        bent,
        _merged_note(len(tensors), len(bars), "layers", "the widest of them"),
    ])  # fmt: skip


def _ranges(content: ReportContent) -> Iterable[RangeBar]:
    for layer in content.plan.layers:
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
        parts.append(_rect("limits", centre - width / 2, scale(bar.high), width, scale(bar.low)))
    if math.isfinite(bar.minimum):
        thin = max(1.0, width / 3)
        x = centre - thin / 2
        low = bar.low if math.isfinite(bar.low) else bar.minimum
        high = bar.high if math.isfinite(bar.high) else bar.maximum
        inside = (min(max(bar.minimum, low), high), max(min(bar.maximum, high), low))
        parts.append(_rect("seen", x, scale(inside[1]), thin, scale(inside[0])))
        # Half a step is rounding, not clipping: draw only what the eye can see.
        if scale(high) - scale(bar.maximum) >= 1:
            parts.append(_rect("cut", x, scale(bar.maximum), thin, scale(high)))
        if scale(bar.minimum) - scale(low) >= 1:
            parts.append(_rect("cut", x, scale(low), thin, scale(bar.minimum)))
    return tag("g", *parts)


def _range_title(bar: RangeBar) -> str:
    lines = [_name(bar)]
    if math.isfinite(bar.minimum):
        lines.append(f"observed {number(bar.minimum)} … {number(bar.maximum)}")
    if math.isfinite(bar.low):
        lines.append(f"limits {number(bar.low)} … {number(bar.high)}")
    return "\n".join(lines)


def _groups[Bar: (SqnrBar, RangeBar)](bars: Sequence[Bar]) -> list[Sequence[Bar]]:
    """At most LONGEST groups of neighbours, of equal size (the last may be smaller)."""
    together = math.ceil(len(bars) / LONGEST)
    return [bars[start : start + together] for start in range(0, len(bars), together)]


def _merged_note(shown: int, bars: int, noun: str, which: str) -> Markup:
    if bars == shown:
        return Markup("")
    return tag(
        "p",
        f"{plural(shown, 'layer')} are too many to draw: each of the {bars} bars stands for "
        f"{math.ceil(shown / LONGEST)} neighbouring {noun} and shows {which}.",
        class_="note",
    )


def _name(bar: SqnrBar | RangeBar) -> str:
    if bar.first == bar.last:
        return f"{bar.first}  {bar.layer}"
    return f"{bar.layer} (of {bar.first} to {bar.last})"


def _link(bar: SqnrBar) -> Markup:
    return tag("code", bar.layer)


def _figure(*content: Markup, label: str) -> Markup:
    svg = tag("svg", *content, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)
    return tag("div", svg, class_="chart", tabindex="0")


def _bar(css: str, x: float, y: float, width: float, height: float, title: str) -> Markup:
    return Markup(
        f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _rect(css: str, x: float, top: float, width: float, bottom: float) -> Markup:
    height = max(bottom - top, 0.5)
    return Markup(
        f'<rect class="{css}" x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )


def _grid(scale: Scale, unit: str) -> Markup:
    lines = []
    for tick in scale.ticks():
        y = scale(tick)
        css = "zero" if tick == 0 else "grid"
        lines.append(f'<line class="{css}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{_tick(tick)}</text>')
    if unit:
        lines.append(f'<text class="end" x="{_LEFT - 8}" y="{scale.top - 12:.1f}">{unit}</text>')
    return Markup("".join(lines))


def _tick(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _numbers_axis(bars: Sequence[SqnrBar] | Sequence[RangeBar], pitch: float) -> Markup:
    """Numbers of layers below the bars, round ones, about 50 pixels apart."""
    y = HEIGHT - _BOTTOM + 17
    step = max(1, round(round_step(max(len(bars), 2), max(1, int(len(bars) * pitch / 56)))))
    texts = [
        f'<text class="mid" x="{_LEFT + (index + 0.5) * pitch:.1f}" y="{y}">{bar.first}</text>'
        for index, bar in enumerate(bars)
        if index == 0 or (index + 1) % step == 0
    ]
    texts.append(f'<text class="end" x="{WIDTH - _RIGHT}" y="{y + 15}">number of the layer</text>')
    return Markup("".join(texts))


def _labels(points: Iterable[tuple[float, float, str]]) -> Markup:
    """Values above bars; where two would overlap the later one moves up and gets a line."""
    placed: list[tuple[float, float]] = []
    parts = []
    for x, top, text in points:
        y = top - 5
        while any(abs(x - other_x) < 30 and abs(y - other_y) < 13 for other_x, other_y in placed):
            y -= 13
        placed.append((x, y))
        if y < top - 5:
            parts.append(f'<line class="lead" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 2:.1f}" y2="{top:.1f}"/>')
        parts.append(f'<text class="value" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')
    return Markup("".join(parts))


def _sqnr_legend(exact: bool) -> Markup:
    names = [f"< {SQNR_STEPS[0]}"]
    names += [f"{low}–{high}" for low, high in zip(SQNR_STEPS, SQNR_STEPS[1:], strict=False)]
    names.append(f"≥ {SQNR_STEPS[-1]} dB")
    items = [(f"q{index}", name) for index, name in enumerate(names)]
    return _legend([*items, ("exact", "exact")] if exact else items)


def _legend(items: Iterable[tuple[str, str]]) -> Markup:
    entries = (tag("span", tag("i", class_=css), name) for css, name in items)
    return tag("div", *entries, class_="legend")
