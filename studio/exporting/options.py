"""What a user chooses about the files of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import ConfigError
from studio.sim.target_rules import ExportRule

OLDEST_OPSET = 10
NEWEST_OPSET = 26
"""onnxruntime 1.31 refuses later ones."""

Format = Literal["qdq", "qoperator", "weight-only", "dynamic", "encodings"]
EncodingsVersion = Literal["0.6.1", "1.0.0", "2.0.0", "2.1.0"]
Bits = Literal[2, 4, 8]


class ExportOptions(BaseModel):
    """Choices of one export; None leaves them to the target.

    format: `qdq`: QuantizeLinear and DequantizeLinear; `qoperator`: QLinearConv, QLinearMatMul and
    their kin; `weight-only`: MatMulNBits for weights in blocks; `dynamic`: MatMulInteger and
    ConvInteger for tensors ranged at every inference; `encodings`: the float ONNX and the encodings
    are what the target reads, and the quantized ONNX only shows what they mean (as `qdq`).
    weights: `int` stores integers, `float` the floats, with QuantizeLinear in the file.
    bias: `float` writes int32 biases as the rounded floats they stand for.
    opset: of the quantized ONNX; below what the types need is refused.
    weight_storage_bits, activation_storage_bits: smallest integer type; 8 stores 4-bit weights in
    bytes and limits narrow activations by Clip (QCDQ), for runtimes without smaller types.
    contrib_ops: operators of onnxruntime's domain com.microsoft may be used.
    float_weights: of the float ONNX: `plain`, or `rounded` to their grid.
    encodings_versions: an encodings file for each.
    state_dict: the rounded parameters under the source model's names (safetensors).
    exported_program: the simulation as a .pt2 that torch alone can run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format | None = None
    weights: Literal["int", "float"] | None = None
    bias: Literal["int32", "float"] | None = None
    opset: Annotated[int, Field(ge=OLDEST_OPSET, le=NEWEST_OPSET)] | None = None
    weight_storage_bits: Bits | None = None
    activation_storage_bits: Bits | None = None
    contrib_ops: bool | None = None
    float_weights: Literal["plain", "rounded"] = "plain"
    encodings_versions: Annotated[tuple[EncodingsVersion, ...], Field(min_length=1)] | None = None
    state_dict: bool = False
    exported_program: bool = False


@dataclass(frozen=True)
class ExportForm:
    """`ExportOptions` with every choice made; see there. `rule` is the target's; `versions_chosen`
    is True where the user asked for just these versions of the encodings file."""

    rule: ExportRule
    format: Format
    float_constants: bool
    float_bias: bool
    opset: int | None
    weight_storage_bits: int
    activation_storage_bits: int
    contrib_ops: bool
    round_float_model: bool
    encodings_versions: tuple[str, ...]
    versions_chosen: bool
    state_dict: bool
    exported_program: bool


def parse_export_options(values: Mapping[str, Any]) -> ExportOptions:
    """Options from JSON-like values; ConfigError names the key and what is allowed."""
    try:
        return ExportOptions.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"Unknown export option {where!r}.",
                f"Known options: {', '.join(ExportOptions.model_fields)}.",
            ) from None
        raise ConfigError(
            f"The export option {where!r} is not valid: {first['msg']} (got {first['input']!r}).",
            f"Opsets go from {OLDEST_OPSET} to {NEWEST_OPSET}.",
        ) from None


def export_form(options: ExportOptions, rule: ExportRule) -> ExportForm:
    """`options`, filled up from the target's `rule`; ConfigError for choices that contradict each
    other or the target."""
    format = options.format or rule.format
    weights = options.weights or rule.weights
    if options.weights == "float" and format in ("qoperator", "weight-only", "dynamic"):
        raise ConfigError(
            f"The format {format} computes with integer weights; they cannot be stored in float.",
            "Use the format qdq, or store weights as integers.",
        )
    opset = options.opset
    if opset is not None and opset > rule.opset_maximum:
        raise ConfigError(
            f"The target reads opsets up to {rule.opset_maximum}, not {opset}.",
            f"Choose {rule.opset_maximum} or less, or leave the opset to the studio.",
        )
    contrib = options.contrib_ops
    if contrib is None:
        asked = options.format in ("qoperator", "weight-only")
        contrib = rule.contrib_ops or asked
    return ExportForm(
        rule=rule,
        format=format,
        float_constants=weights == "float" and format in ("qdq", "encodings"),
        float_bias=options.bias == "float",
        opset=opset,
        weight_storage_bits=options.weight_storage_bits or rule.weight_storage_bits,
        activation_storage_bits=options.activation_storage_bits or rule.activation_storage_bits,
        contrib_ops=contrib,
        round_float_model=options.float_weights == "rounded",
        encodings_versions=options.encodings_versions or (rule.encodings_version,),
        versions_chosen=options.encodings_versions is not None,
        state_dict=options.state_dict,
        exported_program=options.exported_program,
    )


DEFAULTS = ExportOptions()
"""Everything as the target's rule has it."""
