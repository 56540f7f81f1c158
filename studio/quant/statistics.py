"""What calibration remembers of a tensor: ranges and a histogram that grows in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

BINS = 2048

NO_SPREAD = 1e-30
"""A narrower range is no range: bins of it would be below float32's normal numbers."""


def _no_pairs() -> npt.NDArray[np.float32]:
    return np.zeros((0, 2), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """What the calibration methods need of every value a tensor took.

    minimum, maximum: over all values. counts: int64 (BINS,), over a sample of the values, in equal
    bins from `low` to `high`; empty if no histogram was collected. batch_ranges: float32
    (batches, 2), minimum and maximum of each batch in order. top_two: float32 (samples, 2), for the
    scores of a classifier the highest and the second highest of each sample; else empty.
    """

    minimum: float
    maximum: float
    counts: npt.NDArray[np.int64]
    low: float
    high: float
    batch_ranges: npt.NDArray[np.float32] = field(default_factory=_no_pairs)
    top_two: npt.NDArray[np.float32] = field(default_factory=_no_pairs)

    @property
    def has_histogram(self) -> bool:
        return bool(self.counts.size)

    @property
    def has_spread(self) -> bool:
        """True if there is a histogram, and of more than one value."""
        return self.has_histogram and self.minimum < self.maximum

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Bin edges, (BINS + 1,)."""
        return np.linspace(self.low, self.high, self.counts.size + 1)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Bin centres, (BINS,)."""
        edges = self.edges
        return (edges[1:] + edges[:-1]) / 2


class Histogram:
    """Counts in equal bins over a range that widens as data arrive; the data are read once.

    Bin k covers [k * width, (k + 1) * width): zero is always an edge, so the zeros behind a ReLU
    fall into one bin. When the range needs more than `BINS` bins the width doubles, which merges
    neighbouring bins exactly (k becomes k // 2).
    """

    def __init__(self) -> None:
        self.minimum = 0.0
        self.maximum = 0.0
        self._width = 0.0
        self._first = 0
        self._counts = np.zeros(BINS, dtype=np.int64)
        self._zeros = 0  # values seen before any was really different from zero

    def add(self, values: npt.NDArray[np.float32], minimum: float, maximum: float) -> None:
        """Count `values` (flat); all values of the tensor lie within [minimum, maximum]."""
        self.minimum = min(self.minimum, minimum)
        self.maximum = max(self.maximum, maximum)
        if self.maximum - self.minimum < NO_SPREAD:
            self._zeros += values.size
            return
        self._cover()
        bins = values * np.float32(1.0 / self._width)
        bins -= np.float32(self._first)
        # Rounding may push a value at either end out by one bin.
        np.maximum(bins, 0, out=bins)
        np.minimum(bins, BINS - 1, out=bins)
        self._counts += np.bincount(bins.astype(np.intp), minlength=BINS)

    def _cover(self) -> None:
        """Choose width and first bin so that the whole range is covered, keeping the counts."""
        width = self._width or (self.maximum - self.minimum) / (BINS - 2)
        doublings = 0
        while np.floor(self.maximum / width) - np.floor(self.minimum / width) >= BINS:
            width *= 2
            doublings += 1
        first = int(np.floor(self.minimum / width))
        if self._width and (doublings or first != self._first):
            used = np.flatnonzero(self._counts)
            counts = np.zeros(BINS, dtype=np.int64)
            np.add.at(counts, ((used + self._first) >> doublings) - first, self._counts[used])
            self._counts = counts
        self._width, self._first = width, first

    def statistics(self) -> tuple[npt.NDArray[np.int64], float, float]:
        """Counts, and the range [low, high] that the bins cover; empty if all values were zero."""
        if not self._width:
            return np.zeros(0, dtype=np.int64), 0.0, 0.0
        counts = self._counts.copy()
        counts[-self._first] += self._zeros
        return counts, self._first * self._width, (self._first + BINS) * self._width
