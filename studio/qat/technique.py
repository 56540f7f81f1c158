"""The declaration of quantization-aware training."""

from __future__ import annotations

from studio.qat.options import QatOptions
from studio.techniques.technique import Run, Technique


def _load() -> Run:
    from studio.qat.train import train

    return train


QAT = Technique(
    name="qat",
    title="Quantization-aware training",
    description="Trains weights and ranges with fake-quantization in the graph.",
    options=QatOptions,
    load=_load,
)
