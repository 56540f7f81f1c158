"""The calibration methods by name."""

from __future__ import annotations

from collections.abc import Callable

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import FloatGrid, Grid
from studio.quant.observers.entropy import entropy
from studio.quant.observers.isotone import isotone
from studio.quant.observers.minmax import minmax
from studio.quant.observers.moving_average import moving_average
from studio.quant.observers.mse import float_mse, mse
from studio.quant.observers.percentile import percentile
from studio.quant.observers.search import Range
from studio.quant.observers.sqnr import sqnr, tf_enhanced
from studio.quant.statistics import TensorStatistics

Observer = Callable[[TensorStatistics, Grid], Range]

OBSERVERS: dict[str, Observer] = {
    "minmax": lambda statistics, grid: minmax(statistics),
    "moving_average": lambda statistics, grid: moving_average(statistics),
    "sqnr": sqnr,
    "tf_enhanced": tf_enhanced,
    "mse": mse,
    "entropy": entropy,
    "isotone": isotone,
}
"""Methods without a parameter of their own, by name; `percentile` is beside them."""

_FLOAT_OBSERVERS = {
    "minmax": minmax,
    "moving_average": moving_average,
    "isotone": minmax,
}


def observed_encoding(
    statistics: TensorStatistics,
    grid: Grid | FloatGrid,
    observer: str,
    percent: float = 100.0,
) -> Encoding:
    """Encoding per tensor by the method named `observer`; `percent` belongs to `percentile`.

    The scale of a `FloatGrid` comes from the greatest magnitude of the range (`isotone`: of all
    values), or by the methods that search, from the least squared error. KeyError for an unknown
    name.
    """
    if observer == "percentile":
        low, high = percentile(statistics, percent)
    elif isinstance(grid, Grid):
        low, high = OBSERVERS[observer](statistics, grid)
    elif observer in _FLOAT_OBSERVERS or not grid.scaled:
        low, high = _FLOAT_OBSERVERS.get(observer, minmax)(statistics)
    else:
        low, high = float_mse(statistics, grid)
    return encoding_from_range(low, high, grid)
