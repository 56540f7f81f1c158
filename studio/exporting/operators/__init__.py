"""Operators that compute on integers, in place of float operators between DequantizeLinear and
QuantizeLinear.

Each module takes a QDQ graph and replaces what it knows; everything else stays as it is, so the
graph computes the same at any time.
"""

from studio.exporting.operators.dynamic import use_dynamic_operators
from studio.exporting.operators.matmul_nbits import use_matmul_nbits
from studio.exporting.operators.qlinear import use_qlinear_operators

__all__ = ["use_dynamic_operators", "use_matmul_nbits", "use_qlinear_operators"]
