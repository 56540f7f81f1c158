"""Numbers as people read them."""

from __future__ import annotations

import math


def number(value: float, digits: int = 4) -> str:
    """`digits` significant digits, without an exponent where one can do without."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "NaN"
    if 1e-4 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{decimals}f}".replace("-", "−")
    return f"{value:.{digits - 1}e}".replace("-", "−")


def limit(value: float) -> str:
    """An end of a range: two decimals, more only for small numbers."""
    return number(value) if 0 < abs(value) < 0.1 else f"{value:.2f}".replace("-", "−")


def span(minimum: float, maximum: float) -> str:
    return f"{limit(minimum)} … {limit(maximum)}"


def decibels(value: float) -> str:
    """`38.2 dB`; an unchanged tensor is `exact`."""
    if value == math.inf:
        return "exact"
    return "−∞ dB" if value == -math.inf else f"{value:.1f} dB".replace("-", "−")


def percent(value: float, decimals: int = 1) -> str:
    return f"{value:.{decimals}f}\u00a0%"


def share(value: float) -> str:
    """A share of 1 as percent; only a true 1 is shown as 100 %."""
    if value == 1.0:
        return "100\u00a0%"
    return f"{math.floor(value * 1e4) / 100:.2f}\u00a0%"


def size(count: int) -> str:
    """Bytes with a decimal unit."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def count(value: float) -> str:
    """`10.8 M`, `960`."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """`7 s`, `2 min 5 s`, `1 h 3 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def progress(done: int, total: int, detail: str) -> str:
    """`48 of 64 · batch 3`; counts of a few stages say nothing and are left out."""
    counted = f"{done} of {total}" if total > 5 and " of " not in detail else ""
    return " · ".join(part for part in (counted, detail) if part)


def unbroken(*parts: str) -> str:
    """The parts with a space between; a line may end after a part, not inside one."""
    return " ".join(part.replace(" ", "\u00a0") for part in parts)


def plural(amount: int, noun: str, many: str = "") -> str:
    """`1 layer`, `3 layers`; `many` is the plural that is not formed with an s."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {many or noun + 's'}"
