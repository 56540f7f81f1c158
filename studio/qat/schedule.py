"""The learning rate over the steps of a training, as a share of its highest."""

from __future__ import annotations

import math

from studio.qat.options import Schedule


def rate_share(schedule: Schedule, warmup: float, step: int, total: int) -> float:
    """Share of the highest rate at `step` (from 0) of `total`; rises linearly for `warmup` of them.

    ONE_CYCLE rises for 30 % along a cosine from a 25th and falls to nearly 0, whatever `warmup` is
    (Smith and Topin 2018, arXiv 1708.07120, as torch's OneCycleLR draws it).
    """
    if schedule is Schedule.ONE_CYCLE:
        top = 0.3 * total
        if step < top:
            return _between(1 / 25, 1.0, step / top)
        return _between(1.0, 1 / 25e4, (step - top) / max(total - 1 - top, 1))
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    passed = (step - rising) / max(total - rising, 1)
    match schedule:
        case Schedule.COSINE:
            return _between(1.0, 0.0, passed)
        case Schedule.LINEAR:
            return 1.0 - passed
        case Schedule.STEP:
            return 1.0 if passed < 0.5 else 0.1 if passed < 0.75 else 0.01
        case _:
            return 1.0


def _between(start: float, end: float, share: float) -> float:
    """Along half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
