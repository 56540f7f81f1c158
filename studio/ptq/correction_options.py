"""What a user decides about techniques that fit nothing: equalization, absorption, correction."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from studio.techniques.technique import Options


class Objective(StrEnum):
    """ranges: equal ranges of weights on both sides, as published. error: from there on, less
    expected rounding error of weights and activations."""

    RANGES = "ranges"
    ERROR = "error"


class EqualizationOptions(Options):
    objective: Objective = Field(
        Objective.RANGES,
        description="ranges: equal weights, as published. error: activations count too.",
    )
    clips: bool = Field(
        True,
        description="Also through Clip and ReLU6, which get limits for each channel; exact.",
    )


class AbsorptionOptions(Options):
    common: ClassVar[tuple[str, ...]] = ("deviations",)

    deviations: Annotated[float, Field(ge=0)] = Field(
        3.0, description="What lies so many standard deviations below a channel's mean is absorbed."
    )
    exact: bool = Field(
        False,
        description="Absorb no more than the smallest value seen, so that nothing is cut off.",
    )


class Method(StrEnum):
    """auto: analytic where batch normalization tells what a layer reads, else empirical."""

    AUTO = "auto"
    EMPIRICAL = "empirical"
    ANALYTIC = "analytic"


class BiasCorrectionOptions(Options):
    common: ClassVar[tuple[str, ...]] = ("method", "samples")

    method: Method = Field(
        Method.AUTO,
        description="empirical: from samples. analytic: from batch normalization. auto: both.",
    )
    samples: Annotated[int, Field(ge=1)] = Field(
        64, description="Samples the mean error of each channel is measured on."
    )


class NormEstimationOptions(Options):
    common: ClassVar[tuple[str, ...]] = ("samples",)

    samples: Annotated[int, Field(ge=1)] = Field(
        256, description="Samples the layers' outputs are measured on."
    )
    scale: bool = Field(True, description="Adjust the spread of channels, not only their mean.")
