"""Encodings files in AIMET's 1.0.0 layout: what Qualcomm's converters read beside a float ONNX.

Sign convention: real = (q + offset) * scale with unsigned q, so offset = qmin - zero_point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from studio import __version__
from studio.errors import ConfigError
from studio.quant.encoding import Encoding
from studio.sim.plan import Plan, QuantSpec, Role


def encodings_document(plan: Plan, encodings: Mapping[str, Encoding]) -> dict[str, Any]:
    """The file's content; entries in graph order.

    Biases have no entry: their scale is input scale times weight scale by definition.
    """
    activations: list[dict[str, Any]] = []
    parameters: list[dict[str, Any]] = []
    for name, encoding in encodings.items():
        role = plan.tensors[name].role
        if role is Role.BIAS:
            continue
        (parameters if role is Role.WEIGHT else activations).append(_entry(name, encoding))
    return {
        "version": "1.0.0",
        "producer": {"package": "quantization-studio", "version": __version__},
        "activation_encodings": activations,
        "param_encodings": parameters,
        "excluded_layers": [
            layer.name
            for layer in plan.layers
            if all(plan.tensors[name].spec is None for name in (*layer.weights, *layer.outputs))
        ],
        "quantizer_args": _quantizer_args(plan),
    }


def _entry(name: str, encoding: Encoding) -> dict[str, Any]:
    offset = encoding.grid.qmin - encoding.zero_point
    return {
        "name": name,
        "dtype": "INT",
        "bw": encoding.grid.bits,
        "is_sym": encoding.grid.symmetric,
        "scale": [float(value) for value in encoding.scale.reshape(-1)],
        "offset": [int(value) for value in offset.reshape(-1)],
        "enc_type": "PER_TENSOR" if encoding.axis is None else "PER_CHANNEL",
    }


def _quantizer_args(plan: Plan) -> dict[str, Any]:
    """The most common settings, as AIMET states them for the whole model."""
    weights = [row.spec for row in plan.tensors.values() if row.spec and row.role is Role.WEIGHT]
    others = [
        row.spec
        for row in plan.tensors.values()
        if row.spec and (row.observed or row.from_file) and row.role is not Role.WEIGHT
    ]

    def common(specs: list[QuantSpec], default: int) -> int:
        bits = [spec.grid.bits for spec in specs]
        return max(set(bits), key=bits.count) if bits else default

    return {
        "quant_scheme": others[0].observer if others else "minmax",
        "param_bitwidth": common(weights, 8),
        "activation_bitwidth": common(others, 8),
        "dtype": "int",
        "is_symmetric": any(spec.grid.symmetric for spec in weights),
        "per_channel_quantization": any(spec.axis is not None for spec in weights),
    }


def read_encodings(path: Path, plan: Plan) -> dict[str, Encoding]:
    """Encodings of a 1.0.0 file for the tensors of `plan`, biases excepted.

    Raises ConfigError for a file that cannot be read, another version, a tensor that the plan does
    not quantize, or one whose grid or channel count differs from the plan's.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document["version"]
        entries = [*document["activation_encodings"], *document["param_encodings"]]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The encodings file {path} cannot be read: {error!r}.", "Give a 1.0.0 encodings file."
        ) from None
    if version != "1.0.0":
        raise ConfigError(
            f"The encodings file {path} has version {version}.", "Version 1.0.0 can be read."
        )
    try:
        return {entry["name"]: _encoding(entry, path, plan) for entry in entries}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"The encodings file {path} has an entry that cannot be read: {error!r}.",
            "Give a 1.0.0 encodings file.",
        ) from None


def _encoding(entry: dict[str, Any], path: Path, plan: Plan) -> Encoding:
    name = entry["name"]
    row = plan.tensors.get(name)
    if row is None or row.spec is None:
        raise ConfigError(
            f"{path.name} has an encoding for {name}, which the configuration does not quantize.",
            "Use the configuration (recipe.json) that belongs to this file.",
        )
    grid, axis = row.spec.grid, row.spec.axis
    scale = np.asarray(entry["scale"], dtype=np.float32)
    offset = np.asarray(entry["offset"], dtype=np.int64)
    if (
        entry["bw"] != grid.bits
        or entry["is_sym"] != grid.symmetric
        or scale.shape != offset.shape
        or scale.ndim != 1
        or (axis is None and scale.size != 1)
        or not (np.isfinite(scale).all() and (scale > 0).all())
    ):
        raise ConfigError(
            f"The encoding of {name} in {path.name} does not fit the configuration ({grid}).",
            "Use the configuration (recipe.json) that belongs to this file.",
        )
    if axis is None:
        scale, offset = scale.reshape(()), offset.reshape(())
    return Encoding(grid, scale, grid.qmin - offset, axis)
