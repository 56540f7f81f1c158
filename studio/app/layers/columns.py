"""The columns of the layer table: what each shows, and which setting it edits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.app import text

if TYPE_CHECKING:
    from studio.project.document import Document
    from studio.sim.plan import Layer

BITS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
OFF = "off"
DASH = "—"


@dataclass(frozen=True)
class Column:
    """`key` is the setting of `LayerSettings` the column edits, "" if it edits none."""

    title: str
    tip: str
    key: str = ""

    @property
    def kind(self) -> str:
        return self.key.partition("_")[0]

    def choices(self) -> tuple[tuple[str, Any], ...]:
        """(shown, value) of the editor; the value None means off."""
        if self.key.endswith("bits"):
            return (*((str(bits), bits) for bits in BITS), (OFF, None))
        if self.key.endswith("per_channel"):
            return (("per channel", True), ("per tensor", False))
        return (("sym", True), ("asym", False)) if self.key else ()


COLUMNS = (
    Column("Layer", "Name of the layer"),
    Column("Op", "Operators that run as one"),
    Column("W bits", "Bits of the weights", "weight_bits"),
    Column("W scales", "One scale for each channel, or one for all", "weight_per_channel"),
    Column("W sym.", "Symmetric: the zero point is in the middle of the grid", "weight_symmetric"),
    Column("A bits", "Bits of the output", "act_bits"),
    Column("A sym.", "Symmetric: the zero point is in the middle of the grid", "act_symmetric"),
    Column("Range", "Lowest and highest number the output's grid can hold"),
    Column("Scale", "Size of one step of the output's grid"),
    Column("SQNR", "Signal to quantization noise of the output, measured by Evaluate"),
)  # fmt: skip
LAYER, OP, W_BITS, W_GRANULARITY, W_SYM, A_BITS, A_SYM, RANGE, SCALE, SQNR = range(len(COLUMNS))


@dataclass(frozen=True)
class Cell:
    """What one cell shows.

    `sort` orders the column. `muted`: follows something else or does not apply. `changed`: the user
    set it for this layer. `reason`: why it is as it is. `key` "" : not editable.
    """

    text: str
    sort: float | str = ""
    value: Any = None
    key: str = ""
    muted: bool = False
    changed: bool = False
    reason: str = ""


def cells(document: Document, layer: Layer, sqnr: Mapping[str, float]) -> tuple[Cell, ...]:
    """The row of `layer`; `sqnr` maps layer names to decibels."""
    setting = tuple(_setting(document, layer, column) for column in COLUMNS[W_BITS : A_SYM + 1])
    name = Cell(layer.name, layer.name.lower(), reason=layer.note)
    inside = " + ".join(layer.ops) if layer.kind else ""
    op = Cell(layer.title, layer.title.lower(), reason=inside)
    return (name, op, *setting, *_encoding(document, layer), _quality(layer, sqnr))


def _setting(document: Document, layer: Layer, column: Column) -> Cell:
    settings = layer.settings
    value = getattr(settings, column.key)
    if value is None:
        return _not_editable(document, layer, column)
    enabled = getattr(settings, f"{column.kind}_enabled") is not False
    changed = column.key in layer.changed
    if column.key.endswith("bits"):
        changed = changed or f"{column.kind}_enabled" in layer.changed
        if not enabled:
            return Cell(OFF, 99, None, column.key, changed=changed, reason="Stays in float.")
        return Cell(str(value), value, value, column.key, changed=changed)
    shown = next(shown for shown, choice in column.choices() if choice == value)
    if not enabled:
        return Cell(DASH, "~", value, "", muted=True, reason="Not quantized.")
    return Cell(shown, shown, value, column.key, changed=changed)


def _not_editable(document: Document, layer: Layer, column: Column) -> Cell:
    if column.kind == "weight":
        return Cell(
            DASH,
            -1 if column.key.endswith("bits") else "~",
            muted=True,
            reason="This layer has no weights.",
        )
    tensor = document.plan.tensors.get(layer.output)
    grid = tensor.spec.grid if tensor is not None and tensor.spec is not None else None
    reason = layer.note or (tensor.reason if tensor is not None else "")
    if layer.follows:
        reason = f"Uses the encoding of {layer.follows}. {reason}".strip()
    if grid is None:
        return Cell(DASH, -1 if column.key.endswith("bits") else "~", muted=True, reason=reason)
    if column.key.endswith("bits"):
        return Cell(str(grid.bits), grid.bits, grid.bits, muted=True, reason=reason)
    shown = "sym" if grid.symmetric else "asym"
    return Cell(shown, shown, grid.symmetric, muted=True, reason=reason)


def _encoding(document: Document, layer: Layer) -> tuple[Cell, Cell]:
    encoding = document.encodings.get(layer.output)
    if encoding is None:
        tensor = document.plan.tensors.get(layer.output)
        quantized = tensor is not None and tensor.spec is not None
        reason = "Known after calibration." if quantized else (tensor.reason if tensor else "")
        missing = Cell(DASH, float("inf"), muted=True, reason=reason)
        return missing, missing
    minimum, maximum = float(encoding.minimum.min()), float(encoding.maximum.max())
    scale = float(encoding.scale.max())
    return (
        Cell(text.span(minimum, maximum), maximum - minimum),
        Cell(text.number(scale), scale),
    )


def _quality(layer: Layer, sqnr: Mapping[str, float]) -> Cell:
    if layer.name not in sqnr:
        return Cell(DASH, float("inf"), muted=True, reason="Known after evaluation.")
    return Cell(text.decibels(sqnr[layer.name]), sqnr[layer.name])
