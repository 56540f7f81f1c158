"""The declarations of the post-training techniques."""

from __future__ import annotations

from studio.ptq.correction_options import (
    AbsorptionOptions,
    BiasCorrectionOptions,
    EqualizationOptions,
    NormEstimationOptions,
)
from studio.ptq.options import (
    AdaRoundOptions,
    AutoQuantOptions,
    GptqOptions,
    MixedPrecisionOptions,
    ReconstructionOptions,
    SequentialMseOptions,
    SmoothQuantOptions,
)
from studio.techniques.technique import Run, Technique


def _autoquant() -> Run:
    from studio.ptq.autoquant import autoquant

    return autoquant


AUTOQUANT = Technique(
    name="autoquant",
    title="AutoQuant",
    description="Tries the other techniques until the loss is small enough, and keeps the best.",
    options=AutoQuantOptions,
    load=_autoquant,
)


def _adaround() -> Run:
    from studio.ptq.adaround import adaround

    return adaround


ADAROUND = Technique(
    name="adaround",
    title="AdaRound",
    description="Rounds each weight up or down so that its layer's output is right; no labels.",
    options=AdaRoundOptions,
    load=_adaround,
)


def _reconstruction() -> Run:
    from studio.ptq.reconstruction import reconstruct

    return reconstruct


RECONSTRUCTION = Technique(
    name="block_reconstruction",
    title="Block reconstruction (BRECQ, QDrop)",
    description="Learns the roundings of a block's weights together, and its scales; no labels.",
    options=ReconstructionOptions,
    load=_reconstruction,
)


def _mixed_precision() -> Run:
    from studio.ptq.mixed_precision import mixed_precision

    return mixed_precision


MIXED_PRECISION = Technique(
    name="mixed_precision",
    title="Mixed precision",
    description="Chooses the bits of each layer for a size, for bit-operations or for a loss.",
    options=MixedPrecisionOptions,
    load=_mixed_precision,
)


def _equalization() -> Run:
    from studio.ptq.equalization import equalization

    return equalization


EQUALIZATION = Technique(
    name="equalization",
    title="Cross-layer equalization",
    description="Scales channels so that weights of one range get all steps; float is the same.",
    options=EqualizationOptions,
    load=_equalization,
)


def _absorption() -> Run:
    from studio.ptq.absorption import absorption

    return absorption


ABSORPTION = Technique(
    name="absorption",
    title="High-bias absorption",
    description="Moves what channels always exceed into the next layer's bias: smaller ranges.",
    options=AbsorptionOptions,
    load=_absorption,
)


def _norm_estimation() -> Run:
    from studio.ptq.norm_estimation import norm_estimation

    return norm_estimation


NORM_ESTIMATION = Technique(
    name="norm_estimation",
    title="Batch norm re-estimation",
    description="Gives the channels of the rounded network the mean and spread of the float one.",
    options=NormEstimationOptions,
    load=_norm_estimation,
)


def _bias_correction() -> Run:
    from studio.ptq.bias_correction import bias_correction

    return bias_correction


BIAS_CORRECTION = Technique(
    name="bias_correction",
    title="Bias correction",
    description="Takes the mean error that rounded weights make off the biases; no labels.",
    options=BiasCorrectionOptions,
    load=_bias_correction,
)


def _sequential_mse() -> Run:
    from studio.ptq.sequential_mse import sequential_mse

    return sequential_mse


SEQUENTIAL_MSE = Technique(
    name="sequential_mse",
    title="Sequential MSE",
    description="Chooses each weight's range so that its layer's output is right; no labels.",
    options=SequentialMseOptions,
    load=_sequential_mse,
)


def _smoothquant() -> Run:
    from studio.ptq.smoothquant import smoothquant

    return smoothquant


SMOOTHQUANT = Technique(
    name="smoothquant",
    title="SmoothQuant",
    description="Moves what is hard to round from the inputs of linear layers into their weights.",
    options=SmoothQuantOptions,
    load=_smoothquant,
)


def _gptq() -> Run:
    from studio.ptq.gptq import gptq

    return gptq


GPTQ = Technique(
    name="gptq",
    title="GPTQ",
    description="Rounds weights one after the other, each making up for those before; no labels.",
    options=GptqOptions,
    load=_gptq,
)


TECHNIQUES = (
    AUTOQUANT,
    EQUALIZATION,
    ABSORPTION,
    BIAS_CORRECTION,
    SEQUENTIAL_MSE,
    ADAROUND,
    RECONSTRUCTION,
    SMOOTHQUANT,
    GPTQ,
    MIXED_PRECISION,
    NORM_ESTIMATION,
)
