"""Axes of charts: round ticks, linear and compressed scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SQNR_STEPS = (10, 15, 20, 25, 30, 35, 40, 45)
"""Limits in dB between the colours; the same in every report, so that reports compare."""


def sqnr_class(decibels: float) -> str:
    """CSS class of an SQNR: `q0` (below 10 dB) to `q8` (45 dB and more), empty for nan."""
    return "" if math.isnan(decibels) else f"q{sum(decibels >= step for step in SQNR_STEPS)}"


def round_step(span: float, ticks: int) -> float:
    """1, 2 or 5 times a power of ten such that about `ticks` steps fill `span` (positive)."""
    raw = span / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= raw), 10 * power)


@dataclass(frozen=True)
class Scale:
    """Maps values from [low, high] to pixels from `bottom` up to `top`.

    `bend` compresses values beyond it (area hyperbolic sine); None is a linear scale.
    """

    low: float
    high: float
    top: float
    bottom: float
    bend: float | None = None

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        low, high = self._bent(self.low), self._bent(self.high)
        return self.bottom - (self._bent(value) - low) / (high - low) * (self.bottom - self.top)

    def _bent(self, value: float) -> float:
        return value if self.bend is None else math.asinh(value / self.bend)

    def ticks(self) -> list[float]:
        """Round values for grid lines, at least 14 pixels apart, from low to high."""
        if self.bend is None:
            step = round_step(self.high - self.low, 6)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [index * step for index in range(first, last + 1)]
        powers = [10.0**k for k in range(math.floor(math.log10(self.bend)), 39)]
        ticks = [0.0]
        for candidate in (
            sign * factor * power for factor in (1, 3) for sign in (1, -1) for power in powers
        ):
            apart = all(abs(self(candidate) - self(tick)) >= 14 for tick in ticks)
            if self.low <= candidate <= self.high and apart:
                ticks.append(candidate)
        return sorted(ticks)


def bending(widths: Sequence[float]) -> float | None:
    """Where a scale must bend so that a few outliers do not flatten the rest; None: it need not.

    `widths` are the largest absolute values of the items drawn.
    """
    known = sorted(width for width in widths if width > 0)
    if not known or known[-1] <= 12 * known[len(known) // 2]:
        return None
    return known[len(known) // 2]
