"""What a user decides about post-training techniques."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, Field, field_validator

from studio.ptq.bit_groups import parse_candidate
from studio.techniques.technique import Options


class RoundingOptions(Options):
    """What AdaRound and block reconstruction have in common."""

    samples: Annotated[int, Field(ge=1)] = Field(64, description="Samples the layers read.")
    ranges: bool = Field(True, description="Search the range of each channel first.")
    biases: bool = Field(
        True, description="Let biases make up for what rounding changes on average."
    )
    damping: Annotated[float, Field(gt=0)] = Field(
        1.0, description="What keeps weights near the float ones; of 64 samples, of more less."
    )
    positions: Annotated[int, Field(ge=16)] = Field(
        16384, description="Output positions that each layer is fitted on."
    )
    iterations: Annotated[int, Field(ge=0)] = Field(
        0, description="Steps of learning for each layer, after the direct solution."
    )
    rows: Annotated[int, Field(ge=1)] = Field(
        256, description="Output positions that a step of learning reads."
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(3e-2, description="Of Adam.")
    regularization: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of what drives roundings to 0 or 1 (lambda)."
    )
    warm_start: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Share of the steps before that begins."
    )
    beta_start: float = Field(20.0, description="Its exponent at first ...")
    beta_end: float = Field(2.0, description="... and at last.")
    seed: int = Field(0, description="Of the choice of positions.")


class AdaRoundOptions(RoundingOptions):
    common: ClassVar[tuple[str, ...]] = ("samples", "iterations", "ranges", "biases")


class ReconstructionOptions(RoundingOptions):
    common: ClassVar[tuple[str, ...]] = ("samples", "steps", "drop", "activations")

    steps: Annotated[int, Field(ge=1)] = Field(200, description="Steps of learning for each block.")
    drop: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of activations left float while learning (QDrop); 0: BRECQ."
    )
    activations: bool = Field(True, description="Learn the scales of activations, too.")
    range_learning_rate: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="Of scales, as a share of each."
    )


class Inputs(StrEnum):
    """quantized: layer and float layer read what the quantized network made (AIMET's symqt). float:
    both read the float network's (symfp). both: each reads its own (asym)."""

    QUANTIZED = "quantized"
    FLOAT = "float"
    BOTH = "both"


class SequentialMseOptions(Options):
    common: ClassVar[tuple[str, ...]] = ("samples", "candidates")

    samples: Annotated[int, Field(ge=1)] = Field(64, description="Samples the layers read.")
    candidates: Annotated[int, Field(ge=1, le=1000)] = Field(
        20, description="Shares of the full range that are tried for each channel or block."
    )
    inputs: Inputs = Field(
        Inputs.BOTH, description="What layer and float layer read: quantized, float, or both."
    )
    positions: Annotated[int, Field(ge=1)] = Field(
        16384, description="Outputs of each channel that the error is measured on."
    )


class SmoothQuantOptions(Options):
    common: ClassVar[tuple[str, ...]] = ("search", "alpha")

    search: bool = Field(
        True, description="Choose alpha for each input by the error of the layers that read it."
    )
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="Share of the difficulty that moves into the weights; without the search."
    )
    insert: bool = Field(
        True, description="Put a Mul before a layer whose input cannot be divided where it is made."
    )


class GptqOptions(Options):
    common: ClassVar[tuple[str, ...]] = ("samples", "by_activation")

    samples: Annotated[int, Field(ge=1)] = Field(64, description="Samples the layers read.")
    by_activation: bool = Field(True, description="Round the inputs with large numbers first.")
    damping: Annotated[float, Field(gt=0)] = Field(
        0.05, description="Added to the diagonal of the Hessian, as a share of its mean."
    )
    inputs: Inputs = Field(
        Inputs.BOTH, description="What layer and float layer read: quantized, float, or both."
    )
    positions: Annotated[int, Field(ge=1)] = Field(
        16384, description="Outputs of each channel that the Hessian is made of."
    )


def _split(value: Any) -> Any:
    """`w4a8+w8a8` -> its parts: on the command line, commas are between options."""
    return value.replace("+", " ").split() if isinstance(value, str) else value


Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], BeforeValidator(_split)]


class Trial(StrEnum):
    """What AutoQuant may try."""

    OBSERVERS = "observers"
    EQUALIZATION = "equalization"
    BIAS_CORRECTION = "bias_correction"
    SEQUENTIAL_MSE = "sequential_mse"
    ADAROUND = "adaround"
    BLOCK_RECONSTRUCTION = "block_reconstruction"
    MIXED_PRECISION = "mixed_precision"


class AutoQuantOptions(Options):
    common: ClassVar[tuple[str, ...]] = ("allowed_drop", "wanted_sqnr", "minutes")

    allowed_drop: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Loss allowed to float, in points of top-1."
    )
    wanted_sqnr: float = Field(
        20.0, title="Wanted SQNR", description="Without labels: of the outputs to reach, in dB."
    )
    minutes: Annotated[float, Field(gt=0)] = Field(
        30.0, description="Time allowed; what is best then is kept."
    )
    without: Listed[Trial] = Field(
        (), description=f"What is not to be tried, of {', '.join(Trial)}."
    )
    evaluation: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Images the result is measured on (automatic: all there are)."
    )
    samples: Annotated[int, Field(ge=1)] = Field(
        64, description="Calibration images that observers and layers are compared on."
    )


class Cost(StrEnum):
    """size: bytes of all constants. bit_operations: multiply-accumulates of one sample times the
    bits of both operands, which stands for energy and time on hardware with kernels for them."""

    SIZE = "size"
    BIT_OPERATIONS = "bit_operations"


class Aim(StrEnum):
    """budget: the best that costs no more than the share. drop: the cheapest that loses no more
    than is allowed."""

    BUDGET = "budget"
    DROP = "drop"


class Rerounding(StrEnum):
    NONE = "none"
    ADAROUND = "adaround"
    SEQUENTIAL_MSE = "sequential_mse"


class MixedPrecisionOptions(Options):
    common: ClassVar[tuple[str, ...]] = (
        "candidates",
        "cost",
        "aim",
        "share",
        "allowed_drop",
        "reround",
    )

    candidates: Listed[str] = Field(
        ("w4a8", "w8a8"), description="Bits to choose from for each layer; float leaves it alone."
    )
    cost: Cost = Field(Cost.SIZE, description="What is to be saved.")
    aim: Aim = Field(Aim.BUDGET, description="What is given: the cost, or the loss.")
    share: Annotated[float, Field(gt=0)] = Field(
        0.75, description="Cost allowed, relative to all layers at W8A8."
    )
    megabytes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Size allowed, in place of a share."
    )
    allowed_drop: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Loss allowed to float, in points of top-1."
    )
    wanted_sqnr: float = Field(
        20.0, title="Wanted SQNR", description="Without labels: of the outputs to reach, in dB."
    )
    points: Annotated[int, Field(ge=2, le=100)] = Field(
        8, description="Points of the curve that are really measured."
    )
    refinements: Annotated[int, Field(ge=0)] = Field(
        4, description="Swaps of two layers tried for each point, really measured."
    )
    samples: Annotated[int, Field(ge=1)] = Field(
        64, description="Calibration images that layers and swaps are measured on."
    )
    evaluation: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Images that points are measured on (automatic: all there are)."
    )
    reround: Rerounding = Field(
        Rerounding.NONE, description="Technique that rounds the weights for their bits at the end."
    )

    @field_validator("candidates")
    @classmethod
    def _readable(cls, candidates: tuple[str, ...]) -> tuple[str, ...]:
        if len({parse_candidate(text) for text in candidates}) < 2:
            raise ValueError("give two candidates at least")
        return candidates
