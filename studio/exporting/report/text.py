"""The report's way with numbers and words."""

from __future__ import annotations

from studio.exporting.report.markup import Markup, note
from studio.readable import MINUS
from studio.sim.plan import QuantSpec, Role


def integer(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", MINUS)


def points(value: float) -> str:
    """A difference of percentages, always with its sign."""
    return f"{value:+.2f}".replace("-", MINUS) if abs(value) >= 0.005 else "±0.00"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def decibel_change(value: float) -> str:
    """A gain of an SQNR, always with its sign."""
    return "±0.0 dB" if abs(value) < 0.05 else f"{value:+.1f} dB".replace("-", MINUS)


def plural(amount: int, noun: str) -> str:
    return f"{integer(amount)} {noun}" if amount == 1 else f"{integer(amount)} {noun}s"


def cut(shown: int, known: int, which: str) -> Markup:
    """A sentence where a table was cut."""
    if shown == known:
        return Markup("")
    return note(f"{which} {integer(shown)} of {integer(known)} are shown.")


def how(spec: QuantSpec | None, role: Role) -> str:
    """`int8 symmetric, per channel`; `not quantized`."""
    if spec is None:
        return "not quantized"
    if spec.axis is not None:
        return f"{spec.grid}, per channel"
    return f"{spec.grid}, per tensor" if role in (Role.WEIGHT, Role.BIAS) else str(spec.grid)
