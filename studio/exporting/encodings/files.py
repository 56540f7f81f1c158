"""Whole encodings files of any version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio import __version__
from studio.errors import ConfigError, ExportError
from studio.exporting.encodings import v061, v100, v200, v210
from studio.exporting.encodings.fields import EntryError
from studio.exporting.encodings.one_x import other_fields
from studio.exporting.encodings.stored import EncodingsFile, StoredEncoding, stored
from studio.quant.encoding import Encoding
from studio.sim.plan import Plan, QuantSpec, Role

_BY_VERSION: dict[str, Any] = {"0.6.1": v061, "1.0.0": v100, "2.0.0": v200, "2.1.0": v210}

VERSIONS = tuple(_BY_VERSION)
"""Versions that are written and read."""

DEFAULT_VERSION = "1.0.0"
"""What most installed converters read."""

LARGEST_FILE = 2**30
"""Bytes; the encodings of every block of a large language model take less."""

AGAIN = "Give an encodings file of version 0.6.1, 1.0.0, 2.0.0 or 2.1.0, written to the end."
MEND = "Mend the entry, or write the file again."


def encodings_document(
    plan: Plan, encodings: Mapping[str, Encoding], version: str = DEFAULT_VERSION
) -> dict[str, Any]:
    """What the file of `version` holds, as JSON values; entries in graph order.

    int32 biases are listed from 2.0.0 on; before, their scale is input scale times weight scale by
    definition. Raises ExportError for a tensor that the version has no entry for, ConfigError for
    an unknown version.
    """
    file = file_of(plan, encodings, version)
    problem = _problem(file)
    if problem:
        raise ExportError(
            f"Encodings {version} cannot be written: {problem}.", "Write version 2.0.0 or 2.1.0."
        )
    return write_document(file)


def version_problem(plan: Plan, encodings: Mapping[str, Encoding], version: str) -> str:
    """Why encodings cannot be written in `version`, naming the tensor; empty if they can."""
    return _problem(file_of(plan, encodings, version))


def _problem(file: EncodingsFile) -> str:
    layout = _layout(file.version)
    for name, encoding in file.encodings.items():
        reason = layout.problem(encoding)
        if reason:
            return f"{name}: {reason}"
    return ""


def file_of(plan: Plan, encodings: Mapping[str, Encoding], version: str) -> EncodingsFile:
    """The content of a file of `version` for our own encodings."""
    _layout(version)
    found = {}
    biases = version.startswith("2.")
    for name, encoding in encodings.items():
        role = plan.tensors[name].role
        if role is not Role.BIAS or biases:
            found[name] = stored(name, encoding, role in (Role.WEIGHT, Role.BIAS))
    excluded = [
        layer.name
        for layer in plan.layers
        if all(plan.tensors[name].spec is None for name in (*layer.weights, *layer.outputs))
    ]
    producer = {"package": "quantization-studio", "version": __version__}
    return EncodingsFile(version, found, producer, tuple(excluded), _quantizer_args(plan))


def write_document(file: EncodingsFile, version: str | None = None) -> dict[str, Any]:
    """`file` as JSON values, in another version if one is given.

    Raises ExportError where the other version cannot hold what the file says.
    """
    version = version or file.version
    layout = _layout(version)
    for encoding in file.encodings.values() if version != file.version else ():
        axis_known = encoding.axis is not None or not encoding.scale.ndim
        if layout.problem(encoding) or (version.startswith("2.") and not axis_known):
            raise ExportError(
                f"Encodings {version} cannot be written from {file.name or 'a file'} of version "
                f"{file.version}: {encoding.name} has no entry there.",
                "Load the file with its model, and export again.",
            )
    document: dict[str, Any] = layout.write(replace(file, version=version))
    return document


def _layout(version: str) -> Any:
    if version not in _BY_VERSION:
        raise ConfigError(
            f"Encodings version {version!r} is not known.", f"Versions: {', '.join(VERSIONS)}."
        )
    return _BY_VERSION[version]


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


def read_encodings(path: Path) -> EncodingsFile:
    """The encodings file at `path`, whatever its version, as it is.

    Raises ConfigError for a file that cannot be read, has an unknown version, or an entry that
    means nothing (named with its tensor).
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes, no encodings file.", AGAIN)
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"The encodings file {path} cannot be read: {error}.", AGAIN) from None
    if not isinstance(document, Mapping) or not isinstance(document.get("version"), str):
        raise ConfigError(f"{path} does not say which version of encodings it is.", AGAIN)
    version = document["version"]
    if version not in _BY_VERSION:
        raise ConfigError(f"{path} has the unknown encodings version {version!r}.", AGAIN)
    layout = _BY_VERSION[version]
    try:
        entries = layout.entries(document)
    except EntryError as error:
        raise ConfigError(f"The encodings file {path} {error}.", AGAIN) from None
    found: dict[str, StoredEncoding] = {}
    for name, entry, parameter in entries:
        if name in found:
            raise ConfigError(f"{path} has two encodings for {name!r}.", MEND)
        try:
            encoding: StoredEncoding = layout.read(name, entry, parameter)
        except EntryError as error:
            raise ConfigError(f"{path}: the encoding of {name!r} {error}.", MEND) from None
        if version.startswith("2."):
            encoding = replace(encoding, parameter=None)
        found[name] = encoding
    return EncodingsFile(version, found, name=path.name, **other_fields(document))
