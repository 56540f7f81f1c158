"""How many cores the engines may use."""

from __future__ import annotations

import os

_limit: int | None = None


def limit_threads(count: int) -> None:
    """Let onnxruntime sessions made from now on use `count` threads (at least 1)."""
    global _limit
    _limit = max(1, count)


def threads() -> int:
    """Threads a session may use: the limit set, or every core this process may run on."""
    if _limit is not None:
        return _limit
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
