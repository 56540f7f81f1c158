"""The table of layers: how weights and outputs are quantized, and what it cost."""

from __future__ import annotations

import math

from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import Cell, Column, Markup, Row, breakable, table
from studio.exporting.report.scales import sqnr_class
from studio.exporting.report.text import decibel_change, plural
from studio.readable import decibels, number
from studio.sim.plan import Layer, Role, TensorPlan

_COLUMNS = (
    Column("#", numeric=True),
    Column("Layer"),
    Column("Ops"),
    Column("W bits", numeric=True, hint="Bits of the weights"),
    Column("W scales", hint="Granularity of the weights: one scale per tensor or per channel"),
    Column("W grid", hint="Weights symmetric or asymmetric"),
    Column("A bits", numeric=True, hint="Bits of the output activation"),
    Column("A grid", hint="Output activation symmetric or asymmetric"),
    Column("Min", numeric=True, hint="Lowest number the output's encoding represents"),
    Column("Max", numeric=True, hint="Highest number the output's encoding represents"),
    Column("Scale", numeric=True, hint="Scale of the output"),
    Column("Zero", numeric=True, hint="Zero point of the output"),
    Column("SQNR dB", numeric=True, hint="Output of the simulated against the float network"),
)
_SENSITIVITY = (
    Column(
        "Alone dB",
        numeric=True,
        hint="SQNR of the model's outputs with this layer quantized and all others in float",
    ),
    Column(
        "Left float",
        numeric=True,
        hint="dB that the SQNR of the model's outputs gains with this layer left in float",
    ),
)
_NOTHING = "–"


def layer_table(content: ReportContent) -> Markup:
    """One row per layer in execution order; none but arithmetic of sizes is left out."""
    measured = () if content.sensitivity is None else _SENSITIVITY
    columns = (*_COLUMNS, *measured, Column("Note"))
    return table(columns, (_row(content, layer) for layer in content.layers), "layers tools")


def _row(content: ReportContent, layer: Layer) -> Row:
    output = content.plan.tensors[layer.output]
    sqnr = content.sqnr.get(layer.name, math.nan)
    return (
        str(content.numbers[layer.name]),
        breakable(layer.name),
        layer.title,
        *_weight_cells(content, layer),
        *_output_cells(content, output, bool(layer.changed & {"act_bits", "act_enabled"})),
        _NOTHING if math.isnan(sqnr) else _sqnr_cell(sqnr),
        *_sensitivity_cells(content, layer),
        "; ".join(_notes(content, layer)),
    )


def _weight(content: ReportContent, layer: Layer) -> TensorPlan | None:
    """The layer's weight; other constants it reads are quantized like activations."""
    rows = (content.plan.tensors[name] for name in layer.weights)
    return next((row for row in rows if row.role is Role.WEIGHT), None)


def _weight_cells(content: ReportContent, layer: Layer) -> Row:
    weight = _weight(content, layer)
    if weight is None:
        return (_NOTHING,) * 3
    if weight.spec is None:
        return ("float", _NOTHING, _NOTHING)
    granularity = "per tensor" if weight.spec.axis is None else "per channel"
    bits = _bits(weight.spec.grid.bits, "weight_bits" in layer.changed)
    return (bits, granularity, _symmetry(weight.spec.grid.symmetric))


def _output_cells(content: ReportContent, output: TensorPlan, changed: bool) -> Row:
    if output.spec is None:
        return (Cell("float", "set") if changed else "float", *(_NOTHING,) * 5)
    cells = (_bits(output.spec.grid.bits, changed), _symmetry(output.spec.grid.symmetric))
    encoding = content.encoding(output.name)
    if encoding is None:
        return (*cells, *(_NOTHING,) * 4)
    if encoding.axis is not None:
        return (*cells, _NOTHING, _NOTHING, plural(encoding.channels, "scale"), _NOTHING)
    return (
        *cells,
        number(float(encoding.minimum)),
        number(float(encoding.maximum)),
        number(float(encoding.scale)),
        str(int(encoding.zero_point)),
    )


def _sensitivity_cells(content: ReportContent, layer: Layer) -> Row:
    found = content.sensitivity
    if found is None:
        return ()
    row = content.sensitivities.get(layer.name)
    if row is None:
        return (_NOTHING,) * 2
    gain = found.gain_db(row)
    return (
        _NOTHING if row.alone is None else _sqnr_cell(row.alone.sqnr_db),
        _NOTHING if gain is None else decibel_change(gain).removesuffix(" dB"),
    )


def _sqnr_cell(sqnr: float) -> Cell:
    return Cell(decibels(sqnr, unit=False), _colour(sqnr))


def _colour(sqnr: float) -> str:
    return "q" if sqnr == math.inf else f"q {sqnr_class(sqnr)}"


def _bits(bits: int, changed: bool) -> str | Cell:
    return Cell(str(bits), "set") if changed else str(bits)


def _symmetry(symmetric: bool) -> str:
    return "sym" if symmetric else "asym"


def _notes(content: ReportContent, layer: Layer) -> list[str]:
    output, weight = content.plan.tensors[layer.output], _weight(content, layer)
    notes = []
    if layer.changed:
        given = layer.settings.given()
        changed = ", ".join(f"{key} = {given.get(key)}" for key in sorted(layer.changed))
        notes.append(f"set here: {changed}")
    if layer.follows:
        notes.append(f"uses the encoding of {layer.follows}")
    elif output.spec is None:
        notes.append(layer.note or output.reason)
    elif layer.note:
        notes.append(layer.note)
    if weight is not None and weight.spec is None:
        notes.append(f"weight: {weight.reason}")
    if output.spec is not None and content.encoding(output.name) is None:
        notes.append("not calibrated")
    return notes
