"""What an export wrote and how it was verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studio.analysis.kernel_rules import Runs
from studio.analysis.pair_overflow import PairOverflow
from studio.analysis.quality import Distance

FLOAT_LAYER_DB = 30.0
"""A layer whose result stays float is wrong below this SQNR, in dB."""


@dataclass(frozen=True)
class LayerCheck:
    """One layer of the exported file in onnxruntime against the simulation, on equal inputs.

    identical: share of output integers that are the same. within_one: share at most one step apart.
    largest: the largest difference in steps. optimized_db: SQNR in dB of the output with
    onnxruntime's optimisations on against off, in the whole network (None: it cannot be read).
    values: how many integers were compared.
    """

    layer: str
    tensor: str
    identical: float
    within_one: float
    largest: int
    optimized_db: float | None = None
    values: int = 0


@dataclass(frozen=True)
class FloatLayerCheck:
    """One layer with quantized operands and a float result, on equal inputs."""

    layer: str
    tensor: str
    distance: Distance


@dataclass(frozen=True)
class EndToEnd:
    """One output of the exported file in onnxruntime against the simulation, whole network."""

    optimizations: bool
    distance: Distance
    agreement: float | None


@dataclass(frozen=True)
class OutputCheck:
    """One output of the model, whole network.

    plain, optimized: onnxruntime against the simulation with its optimisations off and on. itself:
    onnxruntime with its optimisations on against onnxruntime with them off.
    """

    output: str
    plain: EndToEnd
    optimized: EndToEnd
    itself: EndToEnd


@dataclass(frozen=True)
class KernelCheck:
    """How onnxruntime runs a layer of the exported file, and how that was forecast."""

    layer: str
    forecast: Runs
    forecast_kernel: str
    runs: Runs
    kernel: str
    reason: str = ""

    @property
    def as_forecast(self) -> bool:
        """True if the layer runs as forecast; one that became part of another always does."""
        return self.forecast is self.runs or Runs.ABSORBED in (self.forecast, self.runs)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run on one thread: medians of `rounds`, taking turns.

    samples: in one run.
    """

    float_ms: float
    quantized_ms: float
    rounds: int
    samples: int

    @property
    def ratio(self) -> float:
        """Quantized to float: below 1 is faster."""
        return self.quantized_ms / self.float_ms


@dataclass(frozen=True)
class RuntimeCheck:
    """The exported file in another runtime against the simulation; `problem` says why it did not
    run, `command` how to check it elsewhere."""

    runtime: str
    version: str = ""
    samples: int = 0
    distance: Distance | None = None
    agreement: float | None = None
    problem: str = ""
    command: str = ""


@dataclass(frozen=True)
class Verification:
    """onnxruntime against the simulation on `samples` samples.

    plain, optimized: of the first output (`outputs` has all). integer_nodes / float_nodes: how many
    compute nodes onnxruntime's optimised graph runs in integers and in float. different_constants:
    scales, zero points and weights in the file that are not those of the encodings.
    wrong_bias_scales: biases whose scale is not exactly input scale times weight scale. refused:
    why onnxruntime does not take the file with integer kernels; `optimized` is then without them.
    pair_overflows: layers that may saturate on x86 processors without VNNI.
    """

    samples: int
    layers: tuple[LayerCheck, ...]
    plain: EndToEnd
    optimized: EndToEnd
    integer_nodes: int = 0
    float_nodes: int = 0
    different_constants: tuple[str, ...] = ()
    wrong_bias_scales: tuple[str, ...] = ()
    float_layers: tuple[FloatLayerCheck, ...] = ()
    outputs: tuple[OutputCheck, ...] = ()
    kernels: tuple[KernelCheck, ...] = ()
    latency: Latency | None = None
    other_runtimes: tuple[RuntimeCheck, ...] = ()
    pair_overflows: tuple[PairOverflow, ...] = ()
    refused: str = ""

    @property
    def identical(self) -> float:
        """Smallest share of identical integers over the layers."""
        return min((check.identical for check in self.layers), default=1.0)

    @property
    def all_identical(self) -> float:
        """Share of identical integers of all layers together."""
        total = sum(check.values for check in self.layers)
        same = sum(check.identical * check.values for check in self.layers)
        return same / total if total else 1.0

    @property
    def within_one(self) -> float:
        """Share of integers at most one step apart, of all layers together."""
        total = sum(check.values for check in self.layers)
        near = sum(check.within_one * check.values for check in self.layers)
        return near / total if total else 1.0

    @property
    def largest(self) -> int:
        """Largest difference in steps over the layers."""
        return max((check.largest for check in self.layers), default=0)

    @property
    def not_as_forecast(self) -> tuple[KernelCheck, ...]:
        """Layers that onnxruntime runs in another way than was forecast."""
        return tuple(check for check in self.kernels if not check.as_forecast)

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
        if self.wrong_bias_scales:
            return (
                f"{len(self.wrong_bias_scales)} biases of the exported file do not have the scale "
                f"input x weight, the first is {self.wrong_bias_scales[0]}."
            )
        if self.largest > 1:
            worst = max(self.layers, key=lambda check: check.largest)
            return (
                f"The layer {worst.layer} of the exported file differs by {worst.largest} steps "
                "from the simulation."
            )
        far = [row for row in self.float_layers if not row.distance.sqnr_db >= FLOAT_LAYER_DB]
        if far:
            first = min(far, key=lambda row: row.distance.sqnr_db)
            return (
                f"The float result of the layer {first.layer} of the exported file is "
                f"{first.distance.sqnr_db:.1f} dB from the simulation."
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
