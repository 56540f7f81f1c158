"""The small floating-point formats: how many digits, how far they reach."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class FloatFormat:
    """Numbers (-1)**s * (1 + f / 2**mantissa_bits) * 2**e from `smallest_exponent` upwards, and
    below them subnormal ones at the same spacing.

    `largest` is the highest finite number. `dtype` is the format's name in ml_dtypes or NumPy.
    """

    bits: int
    mantissa_bits: int
    smallest_exponent: int
    largest: float
    dtype: str

    @property
    def largest_exponent(self) -> int:
        """Exponent of `largest`: emax of the OCP MX specification."""
        return math.frexp(self.largest)[1] - 1


FORMATS = {
    "float16": FloatFormat(16, 10, -14, 65504.0, "float16"),
    "bfloat16": FloatFormat(16, 7, -126, (2 - 2.0**-7) * 2.0**127, "bfloat16"),
    "float8e4m3fn": FloatFormat(8, 3, -6, 448.0, "float8_e4m3fn"),
    "float8e4m3fnuz": FloatFormat(8, 3, -7, 240.0, "float8_e4m3fnuz"),
    "float8e5m2": FloatFormat(8, 2, -14, 57344.0, "float8_e5m2"),
    "float8e5m2fnuz": FloatFormat(8, 2, -15, 57344.0, "float8_e5m2fnuz"),
    "float4e2m1": FloatFormat(4, 1, 0, 6.0, "float4_e2m1fn"),
}
"""By ONNX name. (ONNX "Float stored in 8 bits", "Float stored in 4 bits"; OCP OFP8 v1.0; Noune et
al. 2022, arXiv 2206.02915, for the fnuz forms.)"""
