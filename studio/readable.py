"""Numbers as people read them: in the window, the report and the terminal."""

from __future__ import annotations

import math

MINUS = "−"


def number(value: float, digits: int = 4) -> str:
    """`digits` significant digits, without an exponent where one can do without."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "∞" if value > 0 else f"{MINUS}∞" if value < 0 else "NaN"
    if 1e-4 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{decimals}f}".replace("-", MINUS)
    return f"{value:.{digits - 1}e}".replace("-", MINUS)


def decibels(value: float, unit: bool = True) -> str:
    """`38.2 dB`; an unchanged tensor is `exact`."""
    if value == math.inf:
        return "exact"
    text = f"{MINUS}∞" if value == -math.inf else f"{value:.1f}".replace("-", MINUS)
    return f"{text} dB" if unit else text


def percent(value: float, decimals: int = 1) -> str:
    """`88.0 %`, never broken before the sign."""
    return f"{value:.{decimals}f}\N{NO-BREAK SPACE}%"


def share(value: float) -> str:
    """A share of 1 as percent, rounded down: only a true 1 is shown as 100 %."""
    if value == 1.0:
        return "100\N{NO-BREAK SPACE}%"
    return percent(math.floor(value * 1e4) / 100, 2)


def size(count: int) -> str:
    """Bytes with a decimal unit."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def count(value: float) -> str:
    """`24.7 G`, `10.8 M`, `960`."""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{value:.0f}"


def plural(amount: int, noun: str, many: str = "") -> str:
    """`1 layer`, `3 layers`; `many` is the plural that is not formed with an s."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {many or noun + 's'}"
