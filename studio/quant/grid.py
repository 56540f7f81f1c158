"""The numbers a tensor is rounded to, before they are scaled: integers, or small floats."""

from __future__ import annotations

from dataclasses import dataclass

from studio.quant.float_formats import FORMATS, FloatFormat


@dataclass(frozen=True)
class Grid:
    """Integers of `bits` bits; `symmetric` fixes the zero point to the middle of the grid.

    The middle is 0 for signed and 2**(bits-1) for unsigned integers (ONNX QuantizeLinear's sign
    convention: real = (integer - zero_point) * scale). `strict` leaves the lowest integer of a
    symmetric grid out, so that its range has equal ends. `power_of_two` allows scales 2**k alone.
    `unsigned_symmetric` puts the zero point of a symmetric grid at its lowest integer where no
    value is negative, so that all integers are used.
    """

    bits: int
    signed: bool
    symmetric: bool
    strict: bool = False
    power_of_two: bool = False
    unsigned_symmetric: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 32:
            raise ValueError(f"bits must be 2 to 32, not {self.bits}")

    @property
    def qmin(self) -> int:
        lowest = -(2 ** (self.bits - 1)) if self.signed else 0
        return lowest + int(self.strict and self.symmetric)

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
        kind = f"strict {kind}" if self.strict else kind
        kind = f"{kind}, power-of-two scale" if self.power_of_two else kind
        return f"{'int' if self.signed else 'uint'}{self.bits} {kind}"


@dataclass(frozen=True)
class FloatGrid:
    """A small floating-point format by its ONNX name: `float16`, `bfloat16`, `float8e4m3fn`,
    `float8e4m3fnuz`, `float8e5m2`, `float8e5m2fnuz`, `float4e2m1`.

    There is no zero point. float16 and bfloat16 are not scaled and overflow to infinity, as ONNX
    Cast does; the others saturate, as ONNX QuantizeLinear does. `power_of_two` allows scales 2**k
    alone, as the blocks of the OCP MX formats have (Open Compute Project, MX v1.0, section 5).
    Raises ValueError for an unknown format.
    """

    format: str
    power_of_two: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            known = ", ".join(FORMATS)
            raise ValueError(f"unknown number format '{self.format}' (known: {known})")

    @property
    def numbers(self) -> FloatFormat:
        """The numbers of the format."""
        return FORMATS[self.format]

    @property
    def bits(self) -> int:
        return self.numbers.bits

    @property
    def scaled(self) -> bool:
        """False for the formats whose own range is wide enough: their scale is 1."""
        return self.bits < 16

    @property
    def symmetric(self) -> bool:
        return True

    def __str__(self) -> str:
        return f"{self.format}, power-of-two scale" if self.power_of_two else self.format
