"""The integer grid a tensor is rounded to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """Integers of `bits` bits; `symmetric` fixes the zero point to the middle of the grid.

    The middle is 0 for signed and 2**(bits-1) for unsigned integers (ONNX QuantizeLinear's sign
    convention: real = (integer - zero_point) * scale).
    """

    bits: int
    signed: bool
    symmetric: bool

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 32:
            raise ValueError(f"bits must be 2 to 32, not {self.bits}")

    @property
    def qmin(self) -> int:
        return -(2 ** (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def middle(self) -> int:
        """Zero point of the symmetric grid."""
        return 0 if self.signed else 2 ** (self.bits - 1)

    @property
    def steps(self) -> int:
        """Number of steps between the lowest and the highest integer."""
        return self.qmax - self.qmin

    def __str__(self) -> str:
        kind = "symmetric" if self.symmetric else "asymmetric"
        return f"{'int' if self.signed else 'uint'}{self.bits} {kind}"
