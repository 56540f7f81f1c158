"""Histograms that grow, against counting all data at once."""

from __future__ import annotations

import numpy as np

from studio.quant.statistics import BINS, Histogram


def grown(parts: list[np.ndarray]) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part, float(part.min()), float(part.max()))
    return histogram


def test_counts_equal_a_histogram_of_all_data_at_once() -> None:
    rng = np.random.default_rng(0)
    parts = [(rng.standard_normal(5000) * scale).astype(np.float32) for scale in (0.1, 1, 0.5, 7)]
    counts, low, high = grown(parts).statistics()
    everything = np.concatenate(parts)
    expected, _ = np.histogram(everything, bins=BINS, range=(low, high))
    assert counts.sum() == everything.size
    # Values on a bin edge may fall to either side by float32 rounding.
    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 3


def test_range_covers_every_value() -> None:
    histogram = grown([np.array([0.5, 0.6], np.float32), np.array([-40.0, 90.0], np.float32)])
    _, low, high = histogram.statistics()
    assert low <= -40.0
    assert high >= 90.0


def test_zeros_seen_first_are_counted_in_the_bin_that_starts_at_zero() -> None:
    histogram = grown([np.zeros(10, np.float32), np.array([0.0, 2.0], np.float32)])
    counts, low, high = histogram.statistics()
    width = (high - low) / BINS
    assert counts[round(-low / width)] == 11


def test_only_zeros_give_no_histogram() -> None:
    counts, *_ = grown([np.zeros(10, np.float32)]).statistics()
    assert counts.size == 0


def test_vanishing_values_count_as_zeros() -> None:
    tiny = np.array([1e-45, -1e-40, 3e-39], np.float32)
    counts, low, high = grown([tiny, np.array([1.0], np.float32)]).statistics()
    assert counts.sum() == 4
    assert grown([tiny]).statistics()[0].size == 0
    assert low <= 0.0 <= 1.0 <= high


def test_growing_by_many_orders_of_magnitude_keeps_all_counts() -> None:
    parts = [np.full(7, 10.0**power, np.float32) for power in range(-6, 7)]
    counts, low, high = grown(parts).statistics()
    assert counts.sum() == 7 * 13
    assert low <= 0.0 <= 1e6 <= high
