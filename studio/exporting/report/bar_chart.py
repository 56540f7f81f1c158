"""What charts with one bar a layer share: axes, grouping, legend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from studio.exporting.report.markup import Markup, escape, note, tag
from studio.exporting.report.scales import Scale, round_step
from studio.exporting.report.text import integer

LONGEST = 400
"""Bars in a chart; longer networks show neighbouring layers as one bar."""

WIDTH, HEIGHT = 1080, 256
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 26, HEIGHT - 40


class Bar(Protocol):
    """One layer, or several neighbours of which one is shown; layers are numbered from 1."""

    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...

    @property
    def layer(self) -> str: ...


AnyBar = TypeVar("AnyBar", bound=Bar)


def groups(bars: Sequence[AnyBar]) -> list[Sequence[AnyBar]]:
    """At most LONGEST groups of neighbours, of equal size (the last may be smaller)."""
    together = math.ceil(len(bars) / LONGEST)
    return [bars[start : start + together] for start in range(0, len(bars), together)]


def merged_note(layers: int, bars: int, which: str) -> Markup:
    """Says so where neighbours share a bar."""
    if bars == layers:
        return Markup("")
    together = math.ceil(layers / LONGEST)
    return note(
        f"{integer(layers)} layers are too many to draw: each of the {bars} bars stands for "
        f"{together} neighbours and shows {which}."
    )


def name(bar: Bar) -> str:
    """Number and name of the layer shown."""
    if bar.first == bar.last:
        return f"{bar.first}  {bar.layer}"
    return f"{bar.layer} (of {bar.first} to {bar.last})"


def figure(*content: Markup, label: str) -> Markup:
    svg = tag("svg", *content, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)
    return tag("div", svg, class_="chart", tabindex="0")


def rect(css: str, x: float, top: float, width: float, bottom: float) -> Markup:
    height = max(bottom - top, 0.5)
    return Markup(
        f'<rect class="{css}" x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )


def grid(scale: Scale, unit: str) -> Markup:
    lines = []
    for tick in scale.ticks():
        y = scale(tick)
        css = "zero" if tick == 0 else "grid"
        lines.append(
            f'<line class="{css}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        lines.append(f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{_tick(tick)}</text>')
    if unit:
        lines.append(f'<text class="end" x="{LEFT - 8}" y="{scale.top - 12:.1f}">{unit}</text>')
    return Markup("".join(lines))


def _tick(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def numbers_axis(bars: Sequence[Bar], pitch: float) -> Markup:
    """Round numbers of layers below their bars, about 56 pixels apart."""
    y = BOTTOM + 17
    count = bars[-1].last - bars[0].first + 1
    step = max(1, round(round_step(count, max(1, int(len(bars) * pitch / 56)))))
    texts = []
    for index, bar in enumerate(bars):
        number = bar.last // step * step
        if number >= bar.first:
            x = LEFT + (index + 0.5) * pitch
            texts.append(f'<text class="mid" x="{x:.1f}" y="{y}">{number}</text>')
    texts.append(f'<text class="end" x="{WIDTH - RIGHT}" y="{y + 15}">number of the layer</text>')
    return Markup("".join(texts))


def legend(items: Iterable[tuple[str, str]]) -> Markup:
    entries = (tag("span", tag("i", class_=css), text) for css, text in items)
    return tag("div", *entries, class_="legend")


def bar(css: str, x: float, y: float, width: float, height: float, title: str) -> Markup:
    """A bar that says `title` when it is pointed at."""
    return Markup(
        f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{escape(title)}</title></rect>"
    )


def labels(points: Iterable[tuple[float, float, str]]) -> Markup:
    """Values above bars; where two would overlap the later one moves up and gets a line."""
    placed: list[tuple[float, float]] = []
    parts = []
    for centre, top, text in points:
        x = min(centre, WIDTH - 18.0)
        y = top - 5
        while any(abs(x - other_x) < 30 and abs(y - other_y) < 13 for other_x, other_y in placed):
            y -= 13
        placed.append((x, y))
        if y < top - 5:
            parts.append(
                f'<line class="lead" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 2:.1f}" y2="{top:.1f}"/>'
            )
        parts.append(f'<text class="value" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')
    return Markup("".join(parts))
