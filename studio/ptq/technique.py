"""The declarations of the post-training techniques."""

from __future__ import annotations

from studio.ptq.options import AdaRoundOptions
from studio.techniques.technique import Run, Technique


def _adaround() -> Run:
    from studio.ptq.adaround import adaround

    return adaround


ADAROUND = Technique(
    name="adaround",
    title="AdaRound",
    description="Rounds each weight up or down so that its layer's output is right; no labels.",
    options=AdaRoundOptions,
    load=_adaround,
)

TECHNIQUES = (ADAROUND,)
