"""The schema of AIMET's quantsim configuration.

(aimet_torch 2.42, `common/quantsim_config/quantsim_config_schema.py`.) Switches are the words
"True" and "False".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, StrictBool

from studio.sim.target_rules import Rule


def switch(value: Any) -> Any:
    """The truth of a word; anything else as it is."""
    return {"True": True, "False": False}.get(value, value) if isinstance(value, str) else value


Switch = Annotated[
    StrictBool, BeforeValidator(switch), PlainSerializer(lambda on: "True" if on else "False")
]


class OpDefaults(Rule):
    is_output_quantized: Switch | None = None
    is_symmetric: Switch | None = None


class Param(Rule):
    is_quantized: Switch | None = None
    is_symmetric: Switch | None = None


class NumberKind(Rule):
    bitwidth: Literal[4, 8, 16, 32]
    dtype: Literal["int", "float"]


class KernelPair(Rule):
    activation: NumberKind
    param: NumberKind


class Defaults(Rule):
    ops: OpDefaults = OpDefaults()
    params: Param = Param()
    strict_symmetric: Switch | None = None
    unsigned_symmetric: Switch | None = None
    per_channel_quantization: Switch | None = None
    supported_kernels: tuple[KernelPair, ...] | None = None
    hw_version: str | None = None


class Constraints(Rule):
    min: float | None = None
    max: float | None = None


class OpType(Rule):
    is_input_quantized: Switch | None = None
    is_output_quantized: Switch | None = None
    is_symmetric: Switch | None = None
    params: Mapping[str, Param] | None = None
    supported_kernels: tuple[KernelPair, ...] | None = None
    per_channel_quantization: Switch | None = None
    encoding_constraints: Constraints | None = None


class Supergroup(Rule):
    op_list: Annotated[tuple[str, ...], Field(min_length=2)]


class ModelInput(Rule):
    is_input_quantized: Switch | None = None


class ModelOutput(Rule):
    is_output_quantized: Switch | None = None


class Config(Rule):
    defaults: Defaults
    params: Mapping[str, Param]
    op_type: Mapping[str, OpType]
    supergroups: tuple[Supergroup, ...]
    supergroup_pass_list: tuple[str, ...] | None = None
    model_input: ModelInput
    model_output: ModelOutput
