"""Targets: what a runtime or chip can do, as a rule file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from studio.errors import ConfigError
from studio.resource_files import resource
from studio.sim.config import LayerSettings
from studio.sim.target_rules import (
    ActivationRule,
    ExportRule,
    FollowOps,
    Numbers,
    QuantizedInputs,
    Rule,
    WeightRule,
)


class Target(Rule):
    """A rule file of `resources/targets` (resources/docs/targets.md explains it to users).

    Ops are named by their ONNX type or by the kind of a recognised layer (`LayerNorm` is also
    `LayerNormalization`); keys of `ops` may also name a recognised block (`Attention`).

    ops: settings of layers of an op, over `weights` and `activations`: what begins with `weight_`
    for the op that has the weight, what begins with `act_` for the op that makes the output.
    operands: op -> position of an input -> settings of the activation read there.
    weight_ops: ops whose constants are weights. per_channel_ops: those with a scale for each output
    channel. block_ops: those whose weights may come in blocks along the input channels.
    bias: of layers that sum in integers; float_bias_ops: ops whose bias stays float, and why;
    quantized_bias_ops: ops whose bias is quantized all the same.
    fusions: op sequences that run as one kernel, so only the last output is quantized.
    separate_kinds: recognised layers that do not run as one here.
    follow_ops: ops that keep their input's encoding. tied_inputs: ops whose inputs use the encoding
    of the output (Concat). backward_ops: ops that clip, so that their input uses the output's
    encoding where nothing else reads it (Relu).
    float_ops: ops whose results are never quantized, and why.
    fixed_ranges: ops with a bounded output; one end null is what the op gives anyhow.
    model_inputs, model_outputs: whether these are quantized.
    quantized_inputs: Q/DQ at inputs of some ops alone (null: at every output).
    integer_ops: ops with an integer kernel, with the attributes it needs; None where every op whose
    tensors are quantized has one. numbers: what the hardware can do at all.
    static_shapes: every size must be fixed before the model runs there. hardware: the chip's
    version as AIMET's configurations name it. export: the file that is written.
    """

    version: Literal[1]
    name: str
    title: str
    description: str
    weights: WeightRule
    activations: ActivationRule
    bias: Literal["int32", "float"]
    ops: Mapping[str, LayerSettings] = {}
    operands: Mapping[str, Mapping[int, LayerSettings]] = {}
    weight_ops: frozenset[str]
    per_channel_ops: frozenset[str]
    block_ops: frozenset[str] = frozenset(["Gemm", "MatMul"])
    float_bias_ops: Mapping[str, str] = {}
    quantized_bias_ops: frozenset[str] = frozenset()
    fusions: tuple[tuple[str, ...], ...]
    separate_kinds: frozenset[str] = frozenset()
    follow_ops: FollowOps
    tied_inputs: frozenset[str] = frozenset()
    backward_ops: frozenset[str] = frozenset()
    float_ops: Mapping[str, str]
    fixed_ranges: Mapping[str, tuple[float | None, float | None]] = {}
    model_inputs: bool = True
    model_outputs: bool = True
    quantized_inputs: QuantizedInputs | None = None
    integer_ops: Mapping[str, Mapping[str, str]] | None = None
    numbers: Numbers = Numbers()
    static_shapes: bool = False
    hardware: str = ""
    export: ExportRule = ExportRule()


def target_names() -> tuple[str, ...]:
    """Names of the bundled targets."""
    return tuple(sorted(path.stem for path in resource("targets").glob("*.json")))


def load_target(name: str) -> Target:
    """The bundled target `name`, or the rule file or AIMET configuration at the path `name`.

    Raises ConfigError for an unknown name, an unreadable file or a bad rule.
    """
    bundled = resource("targets") / f"{name}.json"
    path = bundled if bundled.is_file() else Path(name)
    if not path.is_file():
        raise ConfigError(
            f"There is no target {name!r}.",
            f"Targets: {', '.join(target_names())}; or give the path of a rule file.",
        )
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _load(path: Path, _written: int) -> Target:
    from studio.sim.aimet_config import is_aimet_config, target_from_aimet

    values = _read(path)
    if is_aimet_config(values):
        return target_from_aimet(values, path.stem, str(path))
    return parse_target(_extended(values, path, ()), str(path))


def parse_target(values: Any, source: str) -> Target:
    """The target that JSON-like `values` describe; ConfigError names `source` and the key."""
    try:
        return Target.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"The target file {source} has an unknown key {where!r}.",
                "Remove it, or compare its spelling with a bundled target.",
            ) from None
        raise ConfigError(
            f"The target file {source} is not valid at {where}: {first['msg']}.",
            "Compare it with a bundled target.",
        ) from None


def _read(path: Path) -> Any:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"The target file {path} cannot be read: {error}.", "Give a JSON rule file."
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"The target file {path} does not hold a JSON object.", "Give a JSON rule file."
        )
    return values


def _extended(values: dict[str, Any], path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """`values` merged over the target they extend, if any (RFC 7396: null removes a key)."""
    base = values.pop("extends", None)
    if base is None:
        return values
    found = next(
        (
            place
            for place in (resource("targets") / f"{base}.json", path.parent / str(base))
            if place.is_file()
        ),
        None,
    )
    if found is None:
        raise ConfigError(
            f"The target file {path} extends {base!r}, which is neither a target nor a file.",
            f"Targets: {', '.join(target_names())}.",
        )
    if found in (path, *seen):
        raise ConfigError(
            f"The target file {path} extends itself.", "Let it extend a bundled target."
        )
    return _merged(_extended(_read(found), found, (*seen, path)), values)


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result
