"""Everything a user decides about quantization: a target, defaults, and settings per layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from studio.errors import ConfigError

Bits = Annotated[int, Field(ge=2, le=16)]
Format = Literal[
    "int",
    "float16",
    "bfloat16",
    "float8e4m3fn",
    "float8e4m3fnuz",
    "float8e5m2",
    "float8e5m2fnuz",
    "float4e2m1",
]
"""Kinds of numbers: integers of the bits set, or a floating-point format (its bits are its own)."""
BlockSize = Annotated[int, Field(ge=0, le=65536)]
ObserverName = Literal[
    "minmax", "moving_average", "percentile", "sqnr", "tf_enhanced", "mse", "entropy", "isotone"
]


class LayerSettings(BaseModel):
    """Settings of one layer; None leaves the default of the configuration or the target.

    `weight_block_size` above 0 gives blocks of that many values along the input channels an
    encoding each, `weight_lpbq` with integer multiples of one scale for each channel. `act_dynamic`
    ranges what the layer reads anew at every inference. `act_percentile` is the share of values, in
    percent, that the `percentile` observer keeps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight_format: Format | None = None
    weight_bits: Bits | None = None
    weight_symmetric: bool | None = None
    weight_strict: bool | None = None
    weight_power_of_two: bool | None = None
    weight_per_channel: bool | None = None
    weight_block_size: BlockSize | None = None
    weight_lpbq: bool | None = None
    weight_enabled: bool | None = None
    weight_observer: ObserverName | None = None
    act_format: Format | None = None
    act_bits: Bits | None = None
    act_symmetric: bool | None = None
    act_strict: bool | None = None
    act_unsigned_symmetric: bool | None = None
    act_power_of_two: bool | None = None
    act_enabled: bool | None = None
    act_dynamic: bool | None = None
    act_observer: ObserverName | None = None
    act_percentile: Annotated[float, Field(ge=50.0, le=100.0)] | None = None

    def merged(self, other: LayerSettings) -> LayerSettings:
        """These settings, overruled by those that `other` gives."""
        return LayerSettings(**{**self.given(), **other.given()})

    def given(self) -> dict[str, Any]:
        """The settings that are not None."""
        return self.model_dump(exclude_none=True)


class QuantConfig(BaseModel):
    """The configuration a user edits; versioned JSON.

    `defaults` overrules the target for all layers, its rules for single ops too; `layers` maps a
    layer's name, or a pattern with `*`, `?` or `[...]`, to its settings: later entries win over
    earlier ones. `op:LayerNorm` stands for all layers with that op (its ONNX type or the kind of a
    recognised layer), `block:Attention` for those of a recognised block; both may be patterns. A
    key that overrules a target's is shown with its origin (`Layer.origin`). `source_encodings`
    keeps the encodings of a model that came quantized for all that no setting changes; without it,
    such a model is placed anew like a float one. `calibrate_rounded` ranges activations with the
    weights rounded already, as they are then: the ranges fit only as long as the weights' settings
    stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    target: str = "onnxruntime"
    bias: Literal["int32", "float"] | None = None
    source_encodings: bool = True
    calibrate_rounded: bool = False
    defaults: LayerSettings = LayerSettings()
    layers: Mapping[str, LayerSettings] = {}

    @field_validator("layers")
    @classmethod
    def _drop_empty(cls, layers: Mapping[str, LayerSettings]) -> dict[str, LayerSettings]:
        return {name: settings for name, settings in layers.items() if settings.given()}

    def with_defaults(self, **settings: Any) -> QuantConfig:
        """A copy whose defaults have `settings` changed; raises ConfigError on bad values."""
        return self._replaced(defaults={**self.defaults.model_dump(), **settings})

    def with_layers(self, names: list[str], **settings: Any) -> QuantConfig:
        """A copy in which `settings` are changed for the layers `names` (None: back to default)."""
        layers = dict(self.layers)
        for name in names:
            before = layers.pop(name, LayerSettings()).model_dump()
            layers[name] = parse_settings({**before, **settings})
        return self._replaced(layers=layers)

    def with_target(self, target: str) -> QuantConfig:
        return self._replaced(target=target)

    def _replaced(self, **fields: Any) -> QuantConfig:
        return parse_config(
            {**{name: getattr(self, name) for name in type(self).model_fields}, **fields}
        )


def parse_settings(values: Mapping[str, Any]) -> LayerSettings:
    """Settings from JSON-like values; ConfigError names the key and what is allowed."""
    try:
        return LayerSettings.model_validate(dict(values))
    except ValidationError as error:
        raise _config_error(error, LayerSettings) from None


def parse_config(values: Any) -> QuantConfig:
    """A configuration from JSON-like values; ConfigError names the key and what is allowed."""
    try:
        return QuantConfig.model_validate(values)
    except ValidationError as error:
        raise _config_error(error, QuantConfig) from None


def parse_override(text: str) -> tuple[str, dict[str, Any]]:
    """`LAYER:key=value[,key=value]` -> (layer, settings); ConfigError if it has another form."""
    layer, colon, rest = text.rpartition(":")
    if not colon or not layer or "=" not in rest:
        raise ConfigError(
            f"The override {text!r} is not of the form LAYER:key=value.",
            "Give for example features.0.conv:weight_bits=4. Keys: "
            f"{', '.join(LayerSettings.model_fields)}.",
        )
    settings = dict(part.partition("=")[::2] for part in rest.split(","))
    return layer, parse_settings(settings).given()


def _config_error(error: ValidationError, model: type[BaseModel]) -> ConfigError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = LayerSettings if len(first["loc"]) > 1 else model
        return ConfigError(
            f"Unknown setting {where!r}.", f"Known settings: {', '.join(known.model_fields)}."
        )
    return ConfigError(
        f"The setting {where!r} is not valid: {first['msg']} (got {first['input']!r}).",
        "Bits go from 2 to 16; switches are true or false.",
    )
