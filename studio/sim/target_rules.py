"""The parts of a target's rule file, one model each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.sim.config import Bits, BlockSize, Format, ObserverName

Number = Annotated[
    str,
    Field(
        pattern=r"^(int([2-9]|1[0-6]|32)|float32|float16|bfloat16|float8e4m3fn|float8e4m3fnuz|float8e5m2"
        r"|float8e5m2fnuz|float4e2m1)$"
    ),
]
"""A kind of number by name: `int8` (integers of 8 bits, signed or not), `float16`, ..."""


class Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightRule(Rule):
    """Default grid of constants of weighted ops. `block_size` 0 is no blocks."""

    bits: Bits
    signed: bool
    symmetric: bool
    per_channel: bool
    observer: ObserverName
    format: Format = "int"
    strict: bool = False
    power_of_two: bool = False
    block_size: BlockSize = 0
    lpbq: bool = False
    enabled: bool = True


class ActivationRule(Rule):
    """Default grid of inputs, activations and other constants."""

    bits: Bits
    signed: bool
    symmetric: bool
    observer: ObserverName
    format: Format = "int"
    strict: bool = False
    unsigned_symmetric: bool = False
    power_of_two: bool = False
    enabled: bool = True
    dynamic: bool = False
    percentile: float = 99.99


class FollowOps(Rule):
    """Ops whose output uses their input's encoding: `exact` ones only move or select values,
    `within_range` ones compute values inside the input's range."""

    exact: frozenset[str]
    within_range: frozenset[str]


class QuantizedInputs(Rule):
    """Q/DQ at the inputs of the listed ops only; every other op reads float (TensorRT's style).

    ops: op type or kind of recognised layer -> positions of the inputs that are rounded (constants
    among them are weights). weighted_only: only for nodes whose weight is a constant that is
    quantized. residual_add: of the two inputs of an Add, the shortcut alone is rounded, so that
    Conv + Add + Relu fuses (see studio/sim/residual.py).
    """

    ops: Mapping[str, tuple[int, ...]]
    weighted_only: bool = False
    residual_add: bool = False


class Kernel(Rule):
    """Numbers an op can compute with together: those of activations and of weights."""

    activations: Number
    weights: Number


class Numbers(Rule):
    """What the hardware can do at all; settings beyond are refused before calibration.

    weights, activations: numbers there are (None: any). Weights of fewer bits fit in wider
    integers; activations of fewer bits do not, unless `narrow_activations`. asymmetric_weights,
    asymmetric_activations: whether zero points other than the middle are allowed. block_sizes: of
    weights (None: any; empty: no blocks). partial_blocks: the last block may be smaller. lpbq:
    blocks may be integer multiples of a scale for each channel. dynamic_ops: ops whose inputs can
    be ranged at every inference, as unsigned asymmetric integers of 8 bits (ONNX
    DynamicQuantizeLinear). kernels: pairs computed without going through float (empty: not stated);
    others get a warning; op_kernels: those of single ops instead.
    """

    weights: tuple[Number, ...] | None = None
    activations: tuple[Number, ...] | None = None
    narrow_activations: bool = False
    asymmetric_weights: bool = True
    asymmetric_activations: bool = True
    block_sizes: tuple[int, ...] | None = ()
    partial_blocks: bool = False
    lpbq: bool = False
    dynamic_ops: frozenset[str] = frozenset()
    kernels: tuple[Kernel, ...] = ()
    op_kernels: Mapping[str, tuple[Kernel, ...]] = {}


class ExportRule(Rule):
    """What is written for this target; `ExportOptions` of an export may ask for something else.

    format:
      `qdq`          ONNX with QuantizeLinear / DequantizeLinear;
      `qoperator`    ONNX with QLinearConv, QLinearMatMul, ...;
      `weight-only`  ONNX whose weights are integers (in blocks) and whose activations are float;
      `dynamic`      ONNX with DynamicQuantizeLinear + MatMulInteger;
      `encodings`    float ONNX, weights rounded to their grid, beside an encodings file.
    weights: `int` stores integers behind DequantizeLinear, `float` float values in front of
      QuantizeLinear + DequantizeLinear (for `encodings` it is always float).
    weight_storage_bits: smallest integer type of weights in the file.
    activation_storage_bits: smallest integer type of activations; fewer bits get a Clip (QCDQ).
    opset_minimum, opset_maximum: opsets the target reads; what the types need lies between.
    zero_points: `any`; `zero`: all of them must be 0 (TensorRT's parser).
    contrib_ops: operators of the domain com.microsoft may be used (MatMulNBits,
      DynamicQuantizeLSTM, 16-bit Q/DQ below opset 21).
    encodings_version: layout of the encodings file that goes with it.

    Whether a bias is int32 or float is no rule of the file but of placement: `Target.bias`, then
    `QuantConfig.bias`; the plan's BIAS rows have a spec (int32) or none (float). Which nodes read a
    rounded tensor is `TensorPlan.read_by`.
    """

    format: Literal["qdq", "qoperator", "weight-only", "dynamic", "encodings"] = "qdq"
    weights: Literal["int", "float"] = "int"
    weight_storage_bits: Literal[2, 4, 8] = 8
    activation_storage_bits: Literal[4, 8] = 8
    opset_minimum: Annotated[int, Field(ge=10)] = 13
    opset_maximum: Annotated[int, Field(ge=10)] = 26
    zero_points: Literal["any", "zero"] = "any"
    contrib_ops: bool = False
    encodings_version: Literal["0.6.1", "1.0.0", "2.0.0", "2.1.0"] = "1.0.0"
