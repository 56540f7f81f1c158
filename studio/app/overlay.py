"""Colours of layers: by error or by bits, the same in graph and table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtGui import QColor

from studio.app.theme import ramp

if TYPE_CHECKING:
    from studio.project.document import Document

HARMLESS = 50.0
"""SQNR of outputs in dB from which a layer does no harm."""


@dataclass(frozen=True)
class SqnrScale:
    """The ends of the colour ramp in decibels."""

    low: float
    high: float

    def color(self, sqnr: float) -> QColor:
        return ramp((sqnr - self.low) / (self.high - self.low))


def layer_sqnr(document: Document | None) -> dict[str, float]:
    """Layer name -> dB of the last evaluation; empty before."""
    if document is None or document.evaluation is None:
        return {}
    return {quality.layer: quality.distance.sqnr_db for quality in document.evaluation.layers}


def layer_sensitivity(document: Document | None) -> dict[str, float]:
    """Layer name -> SQNR of the model's outputs with the layer quantized alone (with it alone left
    in float, where only that was measured); empty before an analysis."""
    if document is None or document.sensitivity is None:
        return {}
    found = {}
    for layer in document.sensitivity.layers:
        deviation = layer.alone or layer.left
        if deviation is not None:
            found[layer.layer] = deviation.sqnr_db
    return found


def sensitivity_scale(values: dict[str, float]) -> SqnrScale:
    """`sqnr_scale` up to `HARMLESS`: what is beyond does not matter."""
    return sqnr_scale({name: min(value, HARMLESS) for name, value in values.items()})


def sqnr_scale(values: dict[str, float]) -> SqnrScale:
    """A ramp over the finite values, in steps of 5 dB."""
    finite = [value for value in values.values() if math.isfinite(value)]
    if not finite:
        return SqnrScale(10.0, 45.0)
    low = 5.0 * math.floor(min(finite) / 5)
    return SqnrScale(low, max(low + 5.0, 5.0 * math.ceil(max(finite) / 5)))


def bits_color(bits: int | None) -> QColor | None:
    """2 bits are dark, 8 bits and more bright; None stays uncoloured."""
    return None if bits is None else ramp((min(bits, 8) - 2) / 6)
