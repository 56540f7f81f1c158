"""Targets: what a runtime or chip can do, as a rule file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from studio.errors import ConfigError
from studio.resource_files import resource
from studio.sim.config import Bits, ObserverName


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightRule(_Rule):
    """Default grid of constants of weighted ops."""

    bits: Bits
    signed: bool
    symmetric: bool
    per_channel: bool
    observer: ObserverName


class ActivationRule(_Rule):
    """Default grid of inputs, activations and other constants."""

    bits: Bits
    signed: bool
    symmetric: bool
    observer: ObserverName


class FollowOps(_Rule):
    """Ops whose output uses their input's encoding: `exact` ones only move or select values,
    `within_range` ones compute values inside the input's range."""

    exact: frozenset[str]
    within_range: frozenset[str]


class Target(_Rule):
    """A rule file of `resources/targets`.

    fusions: op sequences that run as one kernel, so only the last output is quantized.
    weight_storage_bits: smallest integer type weights are stored in (8 where integer kernels want
    8-bit storage). float_ops: ops whose results are never quantized, and why.
    fixed_ranges: ops with a bounded output. integer_ops: ops with an integer kernel, with the
    attributes it needs; None where every op whose tensors are quantized has one. static_shapes:
    every size must be fixed before the model runs there.
    """

    version: Literal[1]
    name: str
    title: str
    description: str
    weights: WeightRule
    activations: ActivationRule
    bias: Literal["int32", "float"]
    weight_storage_bits: Literal[4, 8]
    per_channel_ops: frozenset[str]
    fusions: tuple[tuple[str, ...], ...]
    follow_ops: FollowOps
    float_ops: Mapping[str, str]
    float_bias_ops: Mapping[str, str] = {}
    fixed_ranges: Mapping[str, tuple[float, float]]
    integer_ops: Mapping[str, Mapping[str, str]] | None = None
    static_shapes: bool = False


def target_names() -> tuple[str, ...]:
    """Names of the bundled targets."""
    return tuple(sorted(path.stem for path in resource("targets").glob("*.json")))


@lru_cache(maxsize=32)
def load_target(name: str) -> Target:
    """The bundled target `name`, or the rule file at the path `name`.

    Raises ConfigError for an unknown name, an unreadable file or a bad rule.
    """
    path = resource("targets") / f"{name}.json"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise ConfigError(f"There is no target {name!r}.", f"Targets: {', '.join(target_names())}.")
    try:
        return Target.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"The target file {path} cannot be read: {error}.", "Give a JSON rule file."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"The target file {path} is not valid at {where}: {first['msg']}.",
            "Compare it with a bundled target.",
        ) from None
