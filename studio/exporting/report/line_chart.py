"""Plots of points over numbers: what techniques have to show, and the curves of a training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from studio.exporting.report.markup import Markup, escape, join, tag
from studio.exporting.report.scales import Scale
from studio.readable import MINUS, number

WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 30, HEIGHT - 44
MOST_POINTS = 600
"""Points of a curve; of longer ones neighbours are averaged."""

_LETTER = 6.2
"""Mean width of a letter of a label, in pixels."""

Points = Sequence[tuple[float, float]]


class Frame(NamedTuple):
    """The scales of a plot that has room for all its points; no y is beyond `most`."""

    x: Scale
    y: Scale
    most: float = math.inf


class Label(NamedTuple):
    """Words at a point."""

    x: float
    y: float
    text: str
    css: str = ""


def frame(
    xs: Iterable[float], ys: Iterable[float], head: float = 0.08, most: float = math.inf
) -> Frame:
    """Scales around finite values, `head` of the height left free above them; the axis has no
    numbers beyond `most`."""
    x = _scale(xs, 0.04, 0.04, top=WIDTH - RIGHT, bottom=LEFT)
    return Frame(x, _scale(ys, 0.08, head, top=TOP, bottom=BOTTOM), most)


def _scale(values: Iterable[float], below: float, above: float, top: int, bottom: int) -> Scale:
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    span = (high - low) or 0.02 * abs(low) or 1.0
    return Scale(low - below * span, high + above * span, top, bottom)


def plot(frame: Frame, x_title: str, y_title: str, *content: Markup, label: str) -> Markup:
    """Grid, numbers and titles of the axes around `content`."""
    svg = tag(
        "svg",
        _grid(frame),
        Markup(f'<text class="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}">{escape(x_title)}</text>'),
        Markup(f'<text x="4" y="14">{escape(y_title)}</text>'),
        *content,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
    )
    return tag("div", svg, class_="plot")


def _grid(frame: Frame) -> Markup:
    parts = []
    for tick in (tick for tick in frame.y.ticks() if tick <= frame.most):
        y = frame.y(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{_tick(tick)}</text>')
    parts.append(
        f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>'
    )
    for tick in frame.x.ticks():
        parts.append(
            f'<text class="mid" x="{frame.x(tick):.1f}" y="{BOTTOM + 16}">{_tick(tick)}</text>'
        )
    return Markup("".join(parts))


def _tick(value: float) -> str:
    if abs(value) >= 1e5:
        return number(value, 2)
    return f"{value:.5g}".replace("-", MINUS)


def line(frame: Frame, points: Points, css: str) -> Markup:
    """A line through the points, interrupted where they are not finite."""
    pieces: list[list[str]] = [[]]
    for x, y in thinned(points):
        if math.isfinite(x) and math.isfinite(y):
            pieces[-1].append(f"{frame.x(x):.1f},{frame.y(y):.1f}")
        elif pieces[-1]:
            pieces.append([])
    return join(
        Markup(f'<polyline class="{css}" points="{" ".join(piece)}"/>')
        for piece in pieces
        if len(piece) > 1
    )


def thinned(points: Points) -> Points:
    """At most `MOST_POINTS` points: means of neighbours."""
    together = math.ceil(len(points) / MOST_POINTS)
    if together <= 1:
        return points
    groups = (points[start : start + together] for start in range(0, len(points), together))
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def level(frame: Frame, value: float, text: str) -> Markup:
    """A line across at `value` with its name."""
    y = frame.y(value)
    return Markup(
        f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="target" x="{LEFT + 4}" y="{y - 5:.1f}">{escape(text)}</text>'
    )


def dot(frame: Frame, x: float, y: float, css: str, title: str) -> Markup:
    """A round point that says `title` when it is pointed at."""
    return Markup(
        f'<circle class="{css}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="4.5">'
        f"<title>{escape(title)}</title></circle>"
    )


def star(frame: Frame, x: float, y: float, title: str) -> Markup:
    """The chosen point."""
    corners = []
    for index in range(10):
        radius, angle = (9.0 if index % 2 == 0 else 4.0), math.pi * index / 5
        across, down = radius * math.sin(angle), radius * math.cos(angle)
        corners.append(f"{frame.x(x) + across:.1f},{frame.y(y) - down:.1f}")
    return Markup(
        f'<polygon class="chosen" points="{" ".join(corners)}"><title>{escape(title)}</title>'
        "</polygon>"
    )


def labels(frame: Frame, wanted: Iterable[Label]) -> Markup:
    """Words above or below their points, the first ones first; those that find no room are left
    out (pointing at the point still says them)."""
    taken: list[tuple[float, float, float]] = []
    parts = []
    for item in wanted:
        half = len(item.text) * _LETTER / 2
        x = min(max(frame.x(item.x), LEFT + half), WIDTH - RIGHT - half)
        for shift in (-10, 20, -24, 34):
            y = frame.y(item.y) + shift
            free = all(abs(x - a) > half + b or abs(y - c) > 12 for a, b, c in taken)
            if free and TOP - 12 < y < BOTTOM - 2:
                taken.append((x, half, y))
                css = f"value {item.css}".strip()
                parts.append(
                    f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(item.text)}</text>'
                )
                break
    return Markup("".join(parts))
