"""A file's encodings and a model's tensors brought together by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from studio.errors import ConfigError
from studio.exporting.encodings.fit import MisfitError, fitted
from studio.exporting.encodings.stored import UNSCALED, EncodingsFile
from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid
from studio.sim.plan import Plan, QuantSpec, Role

SHOWN = 5


class FindingKind(StrEnum):
    """What is different between a file and a model; the value is what people read."""

    UNKNOWN = "in the file, but not in the model"
    PREPARED_AWAY = "in the file, but prepared away"
    MISFIT = "does not fit the tensor"
    DIFFERENT = "differs from the settings"
    MISSING = "in the model, but not in the file"


@dataclass(frozen=True)
class Finding:
    """One tensor: `name` is what differs how (`message`) and what to do about it (`action`)."""

    kind: FindingKind
    name: str
    message: str
    action: str


@dataclass(frozen=True)
class MatchReport:
    """`file` (of `version`) against a model: `encodings` fit a tensor of that name, `findings` say
    what does not or is otherwise than planned."""

    file: str
    version: str
    encodings: Mapping[str, Encoding]
    findings: tuple[Finding, ...]

    def of(self, *kinds: FindingKind) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.kind in kinds)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Findings that keep encodings from being used."""
        return self.of(FindingKind.UNKNOWN, FindingKind.MISFIT)

    @property
    def summary(self) -> str:
        """One line: `16 encodings match; 1 in the file, but not in the model`."""
        parts = [f"{len(self.encodings)} encodings match"]
        parts += [f"{count} {kind}" for kind in FindingKind if (count := len(self.of(kind)))]
        return f"{self.file} ({self.version}): {'; '.join(parts)}"

    def require(self) -> None:
        """Raises ConfigError naming the first encodings that no tensor can use."""
        if not self.problems:
            return
        first = self.problems[0]
        shown = "\n".join(f"  {item.name}: {item.message}" for item in self.problems[:SHOWN])
        more = len(self.problems) - SHOWN
        shown += f"\n  and {more} more" if more > 0 else ""
        raise ConfigError(
            f"{self.file} does not fit the model: {len(self.problems)} of its encodings cannot be "
            f"used:\n{shown}",
            first.action,
        )


def match_encodings(file: EncodingsFile, graph: ModelGraph, plan: Plan) -> MatchReport:
    """Every encoding of `file` and every tensor that `plan` quantizes, by name.

    Biases that a file leaves out because of its version, and float16 tensors in 2.x, are not
    missing. Nothing is raised.
    """
    matched: dict[str, Encoding] = {}
    findings: list[Finding] = []
    names = [name for name in plan.tensors if graph.has_value(name)]
    for name, entry in file.encodings.items():
        if name not in plan.tensors:
            findings.append(_unknown(name, graph, names))
            continue
        row = plan.tensors[name]
        try:
            encoding = fitted(entry, graph, row)
        except MisfitError as error:
            action = "Give the file that belongs to this model, or mend the entry."
            findings.append(Finding(FindingKind.MISFIT, name, f"{error}", action))
            continue
        matched[name] = encoding
        message = _difference(encoding, row.spec, row.reason)
        if message:
            action = "The file decides; change the settings of its layer to have them instead."
            findings.append(Finding(FindingKind.DIFFERENT, name, message, action))
    findings += [_missing(name, plan) for name in _absent(file, plan, matched)]
    return MatchReport(file.name, file.version, matched, tuple(findings))


def _unknown(name: str, graph: ModelGraph, names: list[str]) -> Finding:
    captured = graph.captured
    if captured is not None and captured.has_value(name):
        return Finding(
            FindingKind.PREPARED_AWAY,
            name,
            "the tensor was merged into a layer or removed when the model was prepared",
            "Its encoding is not needed. To keep the tensor, leave out the rule of preparation.",
        )
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"; the nearest name is {near[0]!r}" if near else ""
    action = (
        f"Rename the entry to {near[0]!r} if that is meant, or give the file of this model."
        if near
        else "Give the file that belongs to this model."
    )
    return Finding(FindingKind.UNKNOWN, name, f"the model has no such tensor{guess}", action)


def _difference(encoding: Encoding, spec: QuantSpec | None, reason: str) -> str:
    if spec is None:
        return f"the settings leave it float: {reason}"
    found, planned = _described(encoding), _planned(spec)
    if found == planned:
        return ""
    return f"{found} in the file, {planned} by the settings"


def _described(encoding: Encoding) -> str:
    return f"{encoding.grid}{_granularity(encoding.axis, encoding.block_size)}"


def _planned(spec: QuantSpec) -> str:
    return f"{spec.grid}{_granularity(spec.axis, spec.block_size)}"


def _granularity(axis: int | None, block_size: int | None) -> str:
    if block_size:
        return f" in blocks of {block_size} along axis {axis}"
    return " per tensor" if axis is None else f" per channel of axis {axis}"


def _absent(file: EncodingsFile, plan: Plan, matched: Mapping[str, Encoding]) -> list[str]:
    absent = []
    for name in plan.quantized:
        row = plan.tensors[name]
        assert row.spec is not None
        implied = (row.role is Role.BIAS and not file.biases) or (
            file.version.startswith("2.")
            and isinstance(row.spec.grid, FloatGrid)
            and row.spec.grid.format in UNSCALED
        )
        if name not in matched and name not in file.encodings and not implied:
            absent.append(name)
    return absent


def _missing(name: str, plan: Plan) -> Finding:
    row = plan.tensors[name]
    return Finding(
        FindingKind.MISSING,
        name,
        f"the settings quantize it ({row.layer}), the file has nothing for it",
        "It stays float as in the file; load the file partially to calibrate what it leaves out.",
    )
