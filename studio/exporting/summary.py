"""What an export wrote and how it was verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studio.analysis.quality import Distance


@dataclass(frozen=True)
class LayerCheck:
    """One layer of the exported file in onnxruntime against the simulation, on equal inputs.

    identical: share of output integers that are the same. within_one: share at most one step apart.
    largest: the largest difference in steps.
    """

    layer: str
    tensor: str
    identical: float
    within_one: float
    largest: int


@dataclass(frozen=True)
class EndToEnd:
    """The exported file in onnxruntime against the simulation, whole network."""

    optimizations: bool
    distance: Distance
    agreement: float | None


@dataclass(frozen=True)
class Verification:
    """onnxruntime against the simulation on `samples` samples.

    integer_nodes / float_nodes: how many compute nodes onnxruntime's optimised graph runs in
    integers and in float. different_constants: scales, zero points and weights in the file that
    are not those of the encodings.
    """

    samples: int
    layers: tuple[LayerCheck, ...]
    plain: EndToEnd
    optimized: EndToEnd
    integer_nodes: int = 0
    float_nodes: int = 0
    different_constants: tuple[str, ...] = ()

    @property
    def identical(self) -> float:
        """Smallest share of identical integers over the layers."""
        return min((check.identical for check in self.layers), default=1.0)

    @property
    def largest(self) -> int:
        """Largest difference in steps over the layers."""
        return max((check.largest for check in self.layers), default=0)

    @property
    def passed(self) -> bool:
        """The constants are those of the encodings, and every integer of every layer is at most one
        step away from the simulation."""
        return not self.problem

    @property
    def problem(self) -> str:
        """What is wrong with the exported file; empty if nothing is."""
        if self.different_constants:
            return (
                f"{len(self.different_constants)} constants of the exported file are not those of "
                f"its encodings, the first is {self.different_constants[0]}."
            )
        if self.largest > 1:
            worst = max(self.layers, key=lambda check: check.largest)
            return (
                f"The layer {worst.layer} of the exported file differs by {worst.largest} steps "
                "from the simulation."
            )
        return ""


@dataclass(frozen=True)
class Artifact:
    """One written file."""

    name: str
    bytes: int
    what: str


@dataclass(frozen=True)
class ExportSummary:
    """The result of one export."""

    folder: Path
    artifacts: tuple[Artifact, ...]
    float_bytes: int
    quantized_bytes: int
    verification: Verification | None
    warnings: tuple[str, ...] = ()
