"""The columns of the layer table: what each shows, and which question it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.app import text
from studio.sim.choices import (
    GRANULARITY,
    NUMBER,
    OBSERVER,
    SYMMETRY,
    Kind,
    answer_text,
)

if TYPE_CHECKING:
    from studio.analysis.forecast import LayerForecast
    from studio.project.document import Document
    from studio.sim.plan import Layer

DASH = "—"
SHORT = {
    "asymmetric": "asym",
    "symmetric": "sym",
    "strict symmetric": "strict",
    "unsigned symmetric": "unsigned",
    "strict unsigned symmetric": "strict uns.",
}
KEYS = {
    NUMBER: ("bits", "format", "enabled"),
    GRANULARITY: ("per_channel", "block_size", "lpbq"),
    SYMMETRY: ("symmetric", "strict", "unsigned_symmetric"),
    OBSERVER: ("observer", "percentile"),
}
RUNS = {
    "integer": "integers",
    "integer weights": "int weights",
    "float": "float",
    "absorbed": "fused",
}
"""What is said of `kernel_rules.Runs`."""


@dataclass(frozen=True)
class Column:
    """`question` is the name of the one the column answers for `kind`, "" if none."""

    title: str
    tip: str
    kind: Kind = "weight"
    question: str = ""


COLUMNS = (
    Column("Layer", "Name of the layer"),
    Column("Op", "Operators that run as one"),
    Column("W bits", "Numbers of the weights: bits, or a float format", "weight", NUMBER),
    Column("W scales", "One scale for all, for each channel, or for blocks", "weight", GRANULARITY),
    Column("W sym.", "Where the zero point of the weights may be", "weight", SYMMETRY),
    Column("A bits", "Numbers of the output: bits, or a float format", "act", NUMBER),
    Column("A sym.", "Where the zero point of the output may be", "act", SYMMETRY),
    Column("A observer", "How calibration finds the output's range", "act", OBSERVER),
    Column("Range", "Lowest and highest number the output's grid can hold"),
    Column("Scale", "Size of one step of the output's grid"),
    Column("Runs in", "How the target is expected to compute the layer"),
    Column("SQNR", "Signal to quantization noise of the output, measured by Evaluate"),
)  # fmt: skip
(
    LAYER, OP, W_BITS, W_GRANULARITY, W_SYM, A_BITS, A_SYM, A_OBSERVER, RANGE, SCALE, RUNS_IN, SQNR,
) = range(len(COLUMNS))  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What one cell shows.

    `sort` orders the column. `muted`: follows something else or does not apply. `changed`: the user
    set it for this layer. `reason`: why it is as it is, or where it comes from. `editable`: the
    choice `answer` can be replaced. `role` colours the text.
    """

    text: str
    sort: float | str = ""
    answer: str = ""
    editable: bool = False
    muted: bool = False
    changed: bool = False
    reason: str = ""
    role: str = ""


def cells(
    document: Document,
    layer: Layer,
    sqnr: Mapping[str, float],
    forecast: LayerForecast | None = None,
) -> tuple[Cell, ...]:
    """The row of `layer`; `sqnr` maps layer names to decibels."""
    setting = (_setting(document, layer, column) for column in COLUMNS[W_BITS : A_OBSERVER + 1])
    name = Cell(layer.name, layer.name.lower(), reason=layer.note)
    inside = " + ".join(layer.ops) if layer.kind else ""
    op = Cell(layer.title, layer.title.lower(), reason=inside)
    runs = _runs(layer, forecast)
    return (name, op, *setting, *_encoding(document, layer), runs, _quality(layer, sqnr))


def _setting(document: Document, layer: Layer, column: Column) -> Cell:
    settings, kind = layer.settings, column.kind
    if getattr(settings, f"{kind}_bits") is None:
        return _not_editable(document, layer, column)
    keys = [f"{kind}_{key}" for key in KEYS[column.question]]
    changed = any(key in layer.changed for key in keys)
    answer = answer_text(settings, kind, column.question)
    enabled = getattr(settings, f"{kind}_enabled") is not False
    if column.question == NUMBER:
        sort = _bits(layer, column) if enabled else 99
        reason = layer.origin(keys[1] if settings_format(layer, kind) else keys[0])
        if not enabled:
            reason = f"Stays in float: {layer.origin(f'{kind}_enabled')}"
        short = short_number(answer)
        words = f"{answer}: {reason}" if enabled else reason
        return Cell(short, sort, answer, True, changed=changed, reason=words)
    if not enabled or not answer:
        reason = "Not quantized." if not enabled else "Floating-point numbers are symmetric."
        return Cell(DASH, "~", answer, muted=True, reason=reason)
    origin = layer.origin(keys[0])
    if column.question == GRANULARITY and settings.weight_block_size:
        origin = layer.origin(keys[1])
    short = SHORT.get(answer, answer)
    return Cell(short, answer, answer, True, changed=changed, reason=f"{answer}: {origin}")


def short_number(number: str) -> str:
    """`8` of `int8`, `e4m3` of `fp8 e4m3`: what a narrow column has room for."""
    return number.removeprefix("int").removeprefix("fp8 ").removeprefix("fp4 ")


def settings_format(layer: Layer, kind: Kind) -> str:
    """The float format of the weights or the output, "" for integers."""
    found = getattr(layer.settings, f"{kind}_format")
    return "" if found in (None, "int") else str(found)


def _bits(layer: Layer, column: Column) -> float:
    from studio.quant.grid import FloatGrid

    found = settings_format(layer, column.kind)
    if found:
        return FloatGrid(found).bits + 0.5  # behind integers of as many bits
    return float(getattr(layer.settings, f"{column.kind}_bits"))


def _not_editable(document: Document, layer: Layer, column: Column) -> Cell:
    number = column.question == NUMBER
    nothing: float | str = -1.0 if number else "~"
    if column.kind == "weight":
        return Cell(DASH, nothing, muted=True, reason="This layer has no weights.")
    tensor = document.plan.tensors.get(layer.output)
    spec = tensor.spec if tensor is not None else None
    reason = layer.note or (tensor.reason if tensor is not None else "")
    if layer.follows:
        reason = f"Uses the encoding of {layer.follows}. {reason}".strip()
    if spec is None or column.question == OBSERVER:
        return Cell(DASH, nothing, muted=True, reason=reason)
    if number:
        return Cell(
            short_number(number_of(spec.grid)), float(spec.grid.bits), muted=True, reason=reason
        )
    shown = "sym" if spec.grid.symmetric else "asym"
    return Cell(shown, shown, muted=True, reason=reason)


def number_of(grid: object) -> str:
    """`8`, `fp8 e4m3`."""
    from studio.quant.grid import FloatGrid, Grid
    from studio.sim.choices import SHORT_FORMATS

    if isinstance(grid, FloatGrid):
        return SHORT_FORMATS[grid.format]
    assert isinstance(grid, Grid)
    return str(grid.bits)


def _encoding(document: Document, layer: Layer) -> tuple[Cell, Cell]:
    encoding = document.encodings.get(layer.output)
    if encoding is None:
        tensor = document.plan.tensors.get(layer.output)
        reason = "Known after calibration."
        if tensor is not None and tensor.dynamic:
            reason = "Ranged anew at every inference."
        elif tensor is None or tensor.spec is None:
            reason = tensor.reason if tensor is not None else ""
        missing = Cell(DASH, float("inf"), muted=True, reason=reason)
        return missing, missing
    minimum, maximum = float(encoding.minimum.min()), float(encoding.maximum.max())
    scale = float(encoding.scale.max())
    return (
        Cell(text.span(minimum, maximum), maximum - minimum),
        Cell(text.number(scale), scale),
    )


def _runs(layer: Layer, forecast: LayerForecast | None) -> Cell:
    if forecast is None:
        reason = "A model input." if not layer.nodes else "Not known yet."
        return Cell(DASH, "~", muted=True, reason=reason)
    runs = forecast.runs.value
    words = (forecast.kernel, forecast.reason, forecast.hint, forecast.warning)
    reason = text.sentences(*words)
    role = "warn" if runs == "float" or forecast.warning else ""
    mark = "! " if role else ""  # beside the colour
    return Cell(f"{mark}{RUNS[runs]}", runs, muted=runs == "absorbed", reason=reason, role=role)


def _quality(layer: Layer, sqnr: Mapping[str, float]) -> Cell:
    if layer.name not in sqnr:
        return Cell(DASH, float("inf"), muted=True, reason="Known after evaluation.")
    return Cell(text.decibels(sqnr[layer.name]), sqnr[layer.name])
