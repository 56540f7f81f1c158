"""Numbers as people read them."""

from __future__ import annotations

import math

from studio.sim.plan import QuantSpec, Role

_MINUS = "−"


def number(value: float) -> str:
    """Four significant digits, without an exponent where one can do without."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "∞" if value > 0 else f"{_MINUS}∞" if value < 0 else "NaN"
    if 1e-4 <= abs(value) < 1e6:
        decimals = max(0, 3 - math.floor(math.log10(abs(value))))
        return f"{value:.{decimals}f}".replace("-", _MINUS)
    return f"{value:.3e}".replace("-", _MINUS)


def integer(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", _MINUS)


def decibels(value: float, unit: bool = True) -> str:
    """`38.2 dB`; an unaltered tensor is `exact`."""
    if value == math.inf:
        return "exact"
    text = f"{_MINUS}∞" if value == -math.inf else f"{value:.1f}".replace("-", _MINUS)
    return f"{text} dB" if unit else text


def percent(value: float) -> str:
    return f"{value:.2f} %"


def share(value: float) -> str:
    """A share of 1 as percent, rounded down: only a true 1 is shown as 100 %."""
    return "100 %" if value == 1.0 else f"{math.floor(value * 1e4) / 100:.2f} %"


def points(value: float) -> str:
    """A difference of percentages, always with its sign."""
    return f"{value:+.2f}".replace("-", _MINUS) if abs(value) >= 0.005 else "±0.00"


def size(count: int) -> str:
    """Bytes with a decimal unit."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def plural(amount: int, noun: str) -> str:
    return f"{integer(amount)} {noun}" if amount == 1 else f"{integer(amount)} {noun}s"


def how(spec: QuantSpec | None, role: Role) -> str:
    """`int8 symmetric, per channel`; `not quantized`."""
    if spec is None:
        return "not quantized"
    if spec.axis is not None:
        return f"{spec.grid}, per channel"
    return f"{spec.grid}, per tensor" if role in (Role.WEIGHT, Role.BIAS) else str(spec.grid)
