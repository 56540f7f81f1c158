"""Calibration methods: from collected statistics to the range a tensor's grid has to cover.

Every method is a pure function of the statistics, so changing the method or the bitwidth never
needs the data again. A tensor without spread (all zero, one value, or no histogram collected) has
its exact range whatever the method.
"""

from __future__ import annotations

from studio.quant.observers.observed import OBSERVERS, observed_encoding
from studio.quant.observers.weights import weight_encoding

__all__ = ["OBSERVERS", "observed_encoding", "weight_encoding"]
