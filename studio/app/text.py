"""The window's way with numbers and words."""

from __future__ import annotations

from studio.readable import count, decibels, number, percent, plural, share, size

__all__ = [
    "count",
    "decibels",
    "duration",
    "limit",
    "number",
    "percent",
    "plural",
    "progress",
    "sentences",
    "share",
    "size",
    "span",
    "unbroken",
]


def limit(value: float) -> str:
    """An end of a range: two decimals, more only for small numbers."""
    return number(value) if 0 < abs(value) < 0.1 else f"{value:.2f}".replace("-", "−")


def span(minimum: float, maximum: float) -> str:
    return f"{limit(minimum)} … {limit(maximum)}"


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


def sentences(*parts: str) -> str:
    """The parts that are not empty, each with a full stop. They may begin with a name, so that
    nothing is capitalised."""
    return " ".join(f"{part.rstrip('.')}." for part in parts if part)


def unbroken(*parts: str) -> str:
    """The parts with a space between; a line may end after a part, not inside one."""
    return " ".join(part.replace(" ", "\u00a0") for part in parts)
