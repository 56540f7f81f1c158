"""What to know about a model before it is calibrated: can it be run, quantized, deployed?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx_ir as ir

from studio.analysis.cost import LayerCost, Shapes, layer_costs
from studio.analysis.forecast import forecast
from studio.analysis.shape_layers import shape_layers
from studio.graph.describe import display_shape
from studio.graph.model import ModelGraph, is_constant, is_float
from studio.sim.plan import Plan, Role
from studio.sim.target import Target


class Severity(StrEnum):
    """ERROR: cannot go on. WARNING: costs accuracy or speed, or may. NOTE: good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing found: about which layer or tensor (`where`, empty for the whole model), what it
    is, and what can be done about it. `layer` is the layer to show, if there is one."""

    severity: Severity
    topic: str
    where: str
    message: str
    hint: str = ""
    layer: str = ""


@dataclass(frozen=True)
class LayerReport:
    """One layer: its cost, and whether the target computes it in integers (`reason`: why not)."""

    name: str
    title: str
    cost: LayerCost
    integer: bool
    reason: str


@dataclass(frozen=True)
class FloatTensors:
    """Floating-point tensors that stay as they are, for one and the same reason."""

    reason: str
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """The report. Totals leave out layers whose cost is not known (`unknown_macs` names them).

    layers: without those that only compute sizes (`shape_layers` names them). macs, bit_operations:
    of one sample. float_bytes, quantized_bytes: of all constants. dynamic: (input, its shape as
    shown) of the inputs with sizes left open.
    """

    target: str
    findings: tuple[Finding, ...]
    layers: tuple[LayerReport, ...]
    float_tensors: tuple[FloatTensors, ...]
    dynamic: tuple[tuple[str, str], ...]
    shape_layers: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        return sum(layer.cost.macs or 0 for layer in self.layers)

    @property
    def costs_known(self) -> bool:
        """False if no layer that multiplies has known sizes."""
        return self.macs > 0 or not self.unknown_macs

    @property
    def integer_macs(self) -> int:
        """MACs of the layers that run in integers."""
        return sum(layer.cost.macs or 0 for layer in self.layers if layer.integer)

    @property
    def bit_operations(self) -> int:
        return sum(layer.cost.bit_operations or 0 for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        return sum(layer.cost.float_bytes for layer in self.layers)

    @property
    def quantized_bytes(self) -> int:
        return sum(layer.cost.quantized_bytes for layer in self.layers)

    @property
    def unknown_macs(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers if layer.cost.macs is None)

    def count(self, severity: Severity) -> int:
        """Number of findings of that severity."""
        return sum(finding.severity is severity for finding in self.findings)


def validate(
    graph: ModelGraph,
    plan: Plan,
    target: Target,
    shapes: Shapes,
    unsupported: Mapping[str, Sequence[str]],
) -> Validation:
    """The report on `graph` under `plan`.

    `shapes` are those of the tensors that `cost.tensors_to_measure` names (missing ones make a
    cost unknown), `unsupported` the operators no engine runs, with their layers. Reads every
    weight once.
    """
    sizes = shape_layers(graph, plan)
    costs = {cost.layer: cost for cost in layer_costs(graph, plan, shapes)}
    rows = [row for row in forecast(graph, plan, target).layers if row.layer not in sizes]
    layers = tuple(
        LayerReport(row.layer, row.title, costs[row.layer], row.integer, row.reason) for row in rows
    )
    dynamic = tuple(
        (value.name or "", display_shape(value))
        for value in graph.inputs
        if value.shape is None or not all(isinstance(size, int) for size in value.shape)
    )
    findings = [
        *_unsupported(unsupported, plan),
        *_dynamic(graph, target),
        *_weights(graph, plan),
        *_float_layers(layers, {row.reason: row.hint for row in rows}),
        *(
            Finding(Severity.WARNING, "float layers", row.layer, f"{row.warning}.", layer=row.layer)
            for row in rows
            if row.warning
        ),
        *(Finding(Severity.WARNING, "model", "", text) for text in _other_warnings(graph)),
        *(Finding(Severity.WARNING, "settings", "", text) for text in plan.warnings),
    ]
    order = list(Severity)
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Validation(
        plan.target,
        tuple(findings),
        layers,
        _float_tensors(graph, plan, sizes),
        dynamic,
        tuple(layer.name for layer in plan.layers if layer.name in sizes),
    )


def _is_float_data(value: ir.Value) -> bool:
    return is_float(value) and value.dtype is not None


def _unsupported(operators: Mapping[str, Sequence[str]], plan: Plan) -> Iterator[Finding]:
    """One finding an operator, with all its nodes."""
    layers = (
        {node: layer.name for layer in plan.layers for node in layer.nodes} if operators else {}
    )
    for operator, nodes in operators.items():
        yield Finding(
            Severity.ERROR,
            "operators",
            operator,
            f"{operator} cannot be executed: {', '.join(nodes)}.",
            "Export the model without it, or replace it by standard operators.",
            next((layers[node] for node in nodes if node in layers), ""),
        )


def _dynamic(graph: ModelGraph, target: Target) -> Iterator[Finding]:
    for value in graph.inputs:
        if value.shape is None:
            text = f"The input {value.name} does not say how many dimensions it has."
            yield Finding(Severity.WARNING, "shapes", value.name or "", text, "Export it anew.")
            continue
        sides = [axis for axis, size in enumerate(value.shape) if not isinstance(size, int)]
        if not sides:
            continue
        shown = display_shape(value)
        if target.static_shapes:
            yield Finding(
                Severity.WARNING,
                "shapes",
                value.name or "",
                f"The input {value.name} is {shown}; {target.title} wants every size fixed.",
                "Give the sizes when the exported file is compiled for the chip.",
            )
        elif sides != [0]:
            text = f"The input {value.name} is {shown}: its sizes stay open."
            yield Finding(Severity.NOTE, "shapes", value.name or "", text)


def _weights(graph: ModelGraph, plan: Plan) -> Iterator[Finding]:
    """NaN, infinite numbers, channels of zeros, constants all zero."""
    for row in plan.tensors.values():
        if row.role not in (Role.WEIGHT, Role.BIAS, Role.CONSTANT):
            continue
        value = graph.value(row.name)
        if not is_constant(value) or not _is_float_data(value):
            continue
        array = graph.constant(row.name)
        if not array.size:
            continue
        low, high = float(array.min()), float(array.max())
        if not np.isfinite(low) or not np.isfinite(high):
            yield Finding(
                Severity.ERROR if row.spec is not None else Severity.WARNING,
                "weights",
                row.name,
                f"{row.name} holds NaN or infinite numbers.",
                "Check the checkpoint: such a weight has no range to quantize.",
                row.layer,
            )
        elif row.role is Role.WEIGHT and row.spec is not None:
            yield from _dead_channels(row.name, row.layer, array, row.spec.axis)


def _dead_channels(name: str, layer: str, array: np.ndarray, axis: int | None) -> Iterator[Finding]:
    if axis is None:
        if not array.any():
            text = f"{name} is all zeros."
            yield Finding(Severity.WARNING, "weights", name, text, "The layer does nothing.", layer)
        return
    others = tuple(i for i in range(array.ndim) if i != axis)
    dead = np.flatnonzero(~array.any(axis=others))
    if dead.size:
        count = f"{dead.size} of {array.shape[axis]} channels"
        yield Finding(
            Severity.NOTE,
            "weights",
            name,
            f"{count} of {name} are all zeros: {_some(list(map(str, dead)))}.",
            "They cost time and bring nothing; their scale is set to the smallest allowed.",
            layer,
        )


def _float_layers(layers: Iterable[LayerReport], hints: Mapping[str, str]) -> Iterator[Finding]:
    """One finding a reason, with the share of the work it concerns; `hints` by reason."""
    groups: dict[str, list[LayerReport]] = {}
    total = 0
    for layer in layers:
        total += layer.cost.macs or 0
        if layer.reason:
            groups.setdefault(layer.reason, []).append(layer)
    for reason, members in groups.items():
        macs = sum(member.cost.macs or 0 for member in members)
        share = f", {100 * macs / total:.1f} % of the multiply-accumulates" if macs else ""
        names = [member.name for member in members]
        count = f"{len(names)} layers run" if len(names) > 1 else "1 layer runs"
        yield Finding(
            Severity.WARNING if macs else Severity.NOTE,
            "float layers",
            _some(names, 1),
            f"{count} in float{share}: {reason} ({_some(names)}).",
            hints.get(reason, ""),
            names[0],
        )


def _other_warnings(graph: ModelGraph) -> list[str]:
    """What opening the model warned of, weights apart: those are looked at here."""
    return [text for text in graph.warnings if "NaN or infinite" not in text]


def _float_tensors(
    graph: ModelGraph, plan: Plan, sizes: Collection[str]
) -> tuple[FloatTensors, ...]:
    groups: dict[str, list[str]] = {}
    for row in plan.tensors.values():
        if row.layer in sizes:
            continue
        if row.spec is None and _is_float_data(graph.value(row.name)):
            groups.setdefault(row.reason, []).append(row.name)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return tuple(FloatTensors(reason, tuple(names)) for reason, names in ordered)


def _some(names: Sequence[str], shown: int = 3) -> str:
    rest = len(names) - shown
    words = ", ".join(names[:shown])
    return f"{words} and {rest} more" if rest > 0 else words
