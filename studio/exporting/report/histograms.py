"""Histograms of the layers that suffered most, with the limits beyond which values are clipped."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import Markup, tag
from studio.quant.statistics import TensorStatistics
from studio.readable import decibels, number, share
from studio.sim.plan import Layer

SHOWN = 10
_BINS = 72
_WIDTH, _HEIGHT, _FLOOR = 216, 96, 78


def histogram_grid(content: ReportContent) -> Markup:
    """Thumbnails of the layers with the lowest SQNR that have a histogram; empty without any."""
    cards = []
    for layer in content.lowest_layers():
        statistics, encoding = content.observed(layer.output), content.encoding(layer.output)
        if statistics is None or not statistics.has_histogram or not statistics.counts.any():
            continue
        limits = None
        if encoding is not None and encoding.axis is None:
            limits = (float(encoding.minimum), float(encoding.maximum))
        cards.append(_card(content, layer, statistics, limits))
        if len(cards) == SHOWN:
            break
    return tag("div", *cards, class_="thumbs") if cards else Markup("")


def clipped_share(statistics: TensorStatistics, limits: tuple[float, float]) -> float:
    """Share of the counted values whose bin lies outside `limits`."""
    outside = (statistics.edges[1:] <= limits[0]) | (statistics.edges[:-1] >= limits[1])
    return float(statistics.counts[outside].sum() / statistics.counts.sum())


def _card(
    content: ReportContent,
    layer: Layer,
    statistics: TensorStatistics,
    limits: tuple[float, float] | None,
) -> Markup:
    clipped = "not quantized" if limits is None else _clipped(clipped_share(statistics, limits))
    caption = tag(
        "figcaption",
        tag("b", decibels(content.sqnr[layer.name])),
        tag("span", clipped),
        tag("code", layer.name, title=layer.name),
    )
    return tag("figure", _drawing(statistics, limits), caption)


def _clipped(part: float) -> str:
    if part == 0:
        return "nothing clipped"
    return f"{share(part)} clipped" if part >= 1e-4 else "< 0.01 % clipped"


def _drawing(statistics: TensorStatistics, limits: tuple[float, float] | None) -> Markup:
    ends = (statistics.minimum, statistics.maximum, *(limits or ()))
    low, high = min(ends), max(ends)
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = _rebinned(statistics, low, high)
    heights = np.sqrt(counts / counts.max()) * (_FLOOR - 8) if counts.any() else counts
    width = _WIDTH / _BINS
    paths = {"seen": "", "cut": ""}
    for index, height in enumerate(heights):
        if height > 0:
            centre = low + (index + 0.5) / _BINS * (high - low)
            cut = limits is not None and not limits[0] <= centre <= limits[1]
            drawn = max(height, 1.0)
            paths["cut" if cut else "seen"] += (
                f"M{index * width:.1f} {_FLOOR}v-{drawn:.1f}h{width - 0.4:.1f}v{drawn:.1f}z"
            )
    parts = [f'<path class="{css}" d="{path}"/>' for css, path in paths.items() if path]
    parts.append(f'<line class="zero" x1="0" x2="{_WIDTH}" y1="{_FLOOR}" y2="{_FLOOR}"/>')
    if limits is not None:
        parts += [
            _limit((limit - low) / (high - low) * _WIDTH, limit, limit == limits[1])
            for limit in limits
        ]
    label = f"Histogram from {number(statistics.minimum)} to {number(statistics.maximum)}"
    box = f"-4 0 {_WIDTH + 8} {_HEIGHT}"
    return tag("svg", Markup("".join(parts)), viewBox=box, role="img", aria_label=label)


def _limit(x: float, value: float, upper: bool) -> str:
    """A clipping limit with its value below, kept inside the drawing."""
    css = "end" if upper else "start"
    shift = min(x + 4, _WIDTH) if upper else max(x - 4, 0.0)
    # Two limits close together at one end would overlap: give each its own side.
    if upper and x < _WIDTH / 3:
        css, shift = "start", x + 4 if x > 20 else 60.0
    elif not upper and x > 2 * _WIDTH / 3:
        css, shift = "end", x - 4 if x < _WIDTH - 20 else _WIDTH - 60.0
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{_FLOOR}"/>'
        f'<text class="{css}" x="{shift:.1f}" y="{_HEIGHT - 4}">{number(value)}</text>'
    )


def _rebinned(statistics: TensorStatistics, low: float, high: float) -> npt.NDArray[np.float64]:
    """Counts in _BINS equal bins over [low, high]."""
    used = np.flatnonzero(statistics.counts)
    position = (statistics.centres[used] - low) / (high - low) * _BINS
    index = np.clip(np.floor(position), 0, _BINS - 1).astype(np.int64)
    counts = np.bincount(index, minlength=_BINS, weights=statistics.counts[used])
    return counts.astype(np.float64)
