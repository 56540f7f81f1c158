"""What a user decides about quantization-aware training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from studio.techniques.technique import Options

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0)]


class Ranges(StrEnum):
    """What happens to the encodings while the weights are trained.

    FIXED: those of activations stay, those of weights follow the weights (regular QAT; Jacob et al.
    2018, arXiv 1712.05877). SCALE: scales, and zero points of asymmetric activations, are trained
    (LSQ, arXiv 1902.08153; LSQ+, arXiv 2004.09576). RANGE: both ends of ranges are trained (AIMET's
    range learning). PACT: the upper end of activations is
    trained by what it clips (arXiv 1805.06085), weights as in FIXED.
    """

    FIXED = "fixed"
    SCALE = "scale"
    RANGE = "range"
    PACT = "pact"


class Optimizer(StrEnum):
    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class Schedule(StrEnum):
    """How the learning rate goes: COSINE and LINEAR down to 0, ONE_CYCLE up and down, STEP a tenth
    after 1/2 and 3/4 of the steps."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"
    ONE_CYCLE = "one_cycle"
    STEP = "step"


class BatchNorm(StrEnum):
    """FOLDED: as in the prepared graph. TRAINED: BatchNormalization is kept in training, with the
    statistics of each batch; weights are rounded as if it were folded, which it is afterwards."""

    FOLDED = "folded"
    TRAINED = "trained"


class QatOptions(Options):
    """`learning_rate` None is 3e-3 for SGD, 3e-5 for Adam: some hundredth of what trains a network
    from the start. `range_learning_rate` is relative to each range's own size, so that one number
    serves all of them."""

    common: ClassVar[tuple[str, ...]] = (
        "epochs",
        "batch_size",
        "ranges",
        "loss",
        "optimizer",
        "learning_rate",
        "schedule",
        "bits_first",
    )

    epochs: Annotated[int, Field(ge=1, le=10000)] = Field(2, description="Passes over the data.")
    batch_size: Annotated[int, Field(ge=1)] = Field(32, description="Samples a step.")
    ranges: Ranges = Field(Ranges.SCALE, description="What happens to the encodings.")
    loss: str = Field(
        "auto",
        description="auto (distillation; for the rest cross_entropy where there are labels),"
        " cross_entropy, binary, mse, l1, ctc, segmentation, distillation, or file.py:function.",
    )
    distillation: Share | None = Field(
        None,
        description="Share of the distance to the float model's output in the loss (none: all of it"
        " where the loss is auto, else half).",
    )
    temperature: Rate = Field(4.0, description="Temperature of the distillation of class scores.")
    optimizer: Optimizer = Field(Optimizer.SGD, description="What updates the weights.")
    learning_rate: Rate | None = Field(None, description="Of the weights at its highest.")
    range_learning_rate: Rate = Field(
        1e-3, description="Of ranges, in shares of their size (Adam)."
    )
    momentum: Share = Field(0.9, description="Of SGD.")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        1e-4, description="Of weights; biases, norms and ranges are spared."
    )
    schedule: Schedule = Field(Schedule.COSINE, description="How the learning rate goes.")
    warmup: Share = Field(0.05, description="Share of the steps in which the rate rises from 0.")
    clip_gradient: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Largest norm of all gradients together (0: no limit)."
    )
    average: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Decay of the moving average of the weights that is kept (0: none)."
    )
    bits_first: tuple[Annotated[int, Field(ge=2, le=16)], ...] = Field(
        (), description="Weight bits to pass through first, an equal share of the steps each."
    )
    freeze_ranges: Share = Field(1.0, description="Share of the steps after which ranges stay.")
    batch_norm: BatchNorm = Field(
        BatchNorm.FOLDED, description="Fold BatchNormalization before training, or keep it."
    )
    freeze_batch_norm: Share = Field(
        0.5, description="Share of the steps after which kept statistics stay."
    )
    flip: bool = Field(False, description="Mirror images at random, left to right.")
    crop: Annotated[int, Field(ge=0)] = Field(
        0, description="Move images at random by up to so many pixels."
    )
    color: Share = Field(0.0, description="Change brightness and contrast at random by this share.")
    validation: Share = Field(
        0.1, description="Share of the training data kept to measure on, where there is no other."
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="Stop after so many epochs without a better result (0: never)."
    )
    mixed_precision: bool = Field(False, description="bfloat16 where torch may use it.")
    recompute: bool = Field(
        False, description="Compute activations again in the backward pass, to need less memory."
    )
    device: str = Field("auto", description="auto (CUDA where there is one), cpu, cuda, cuda:1 ...")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Of order, augmentation and dropout.")
    trust: bool = Field(False, description="Allow the file of an own loss to run.")
    checkpoints: Path | None = Field(None, description="Folder for checkpoints (none: not kept).")

    @model_validator(mode="after")
    def _falling(self) -> QatOptions:
        if list(self.bits_first) != sorted(self.bits_first, reverse=True):
            raise ValueError("bits_first must fall")
        return self

    @property
    def weight_rate(self) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        return 3e-3 if self.optimizer is Optimizer.SGD else 3e-5
