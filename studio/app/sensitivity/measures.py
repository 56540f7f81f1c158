"""What a sensitivity analysis found, as one number a layer to draw, sort and say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.analysis.sensitivity_figures import relative_error
from studio.app import text

if TYPE_CHECKING:
    from studio.analysis.sensitivity_figures import LayerSensitivity, Sensitivity

Get = Callable[["Sensitivity", "LayerSensitivity"], float | None]


def _alone(found: Sensitivity, layer: LayerSensitivity) -> float | None:
    return None if layer.alone is None else layer.alone.sqnr_db


def _left(found: Sensitivity, layer: LayerSensitivity) -> float | None:
    gain = found.gain_db(layer)
    return None if gain is None else round(gain, 3) + 0.0  # no negative zero


def _weight(found: Sensitivity, layer: LayerSensitivity) -> float | None:
    return None if layer.weight is None else layer.weight.sqnr_db


def _output(found: Sensitivity, layer: LayerSensitivity) -> float | None:
    return None if layer.output is None else layer.output.sqnr_db


@dataclass(frozen=True)
class Measure:
    """get: dB of a layer, None where there is none. gain: more is what leaving the layer in float
    would bring, else more is better. axis: what the bars of the plot are."""

    name: str
    title: str
    axis: str
    get: Get
    gain: bool = False

    def height(self, value: float | None) -> float:
        """What the bar of a layer shows: the error in percent, or the gain in dB."""
        if value is None:
            return math.nan
        return value if self.gain else relative_error(value)

    def harm(self, value: float) -> float:
        """What layers are ordered by, the worst highest."""
        return value if self.gain else -value

    def words(self, value: float | None) -> str:
        if value is None:
            return "–"
        if self.gain:
            return "0.0 dB" if abs(value) < 0.05 else f"{value:+.1f} dB".replace("-", "−")
        return text.decibels(value)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            "alone",
            "Quantized alone",
            "Error of the model's outputs in percent: 20 dB are 10 %, 40 dB are 1 %",
            _alone,
        ),
        Measure(
            "left", "Left in float", "What the SQNR of the model's outputs gains", _left, gain=True
        ),
        Measure("weight", "Weights", "Error of the layer's weights in percent", _weight),
        Measure(
            "output",
            "Output",
            "Error of the layer's own output in percent, its inputs in float",
            _output,
        ),
    )
}
