"""What a user decides about post-training techniques."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from studio.techniques.technique import Options


class AdaRoundOptions(Options):
    samples: Annotated[int, Field(ge=1)] = Field(64, description="Images the layers are fitted on.")
    iterations: Annotated[int, Field(ge=1)] = Field(1000, description="Steps for each layer.")
    rows: Annotated[int, Field(ge=1)] = Field(
        256, description="Output positions a step is fitted on."
    )
    positions: Annotated[int, Field(ge=1)] = Field(
        16384, description="Output positions of each layer that are kept to choose from."
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-2, description="Of Adam.")
    regularization: Annotated[float, Field(ge=0)] = Field(
        0.01, description="Weight of what drives roundings to 0 or 1 (lambda)."
    )
    warm_start: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Share of the steps before that begins."
    )
    beta_start: float = Field(20.0, description="Its exponent at first ...")
    beta_end: float = Field(2.0, description="... and at last.")
    seed: int = Field(0, description="Of the choice of positions.")
