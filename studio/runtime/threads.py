"""How many cores the engines may use."""

from __future__ import annotations

import os

_limit: int | None = None


def limit_threads(count: int) -> None:
    """Let onnxruntime sessions made from now on, and torch once it is loaded, use `count` threads."""
    global _limit
    _limit = max(1, count)


def threads() -> int:
    """Threads an engine may use: the limit set, or every core this process may run on."""
    return (
        _limit or len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else (_limit or os.cpu_count() or 1)
    )
