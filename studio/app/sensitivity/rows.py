"""The tables of the sensitivity pane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.app import text
from studio.app.sensitivity.measures import MEASURES
from studio.app.text_table import Row

if TYPE_CHECKING:
    from studio.analysis.sensitivity_figures import Deviation, Outlier, Sensitivity

LAYER_TITLES = (
    "Layer",
    "Alone",
    "Top-1",
    "Left float",
    "Top-1",
    "Weights",
    "Output",
)
OUTLIER_TITLES = ("Layer", "Tensor", "Factor", "Bits lost", "Channels", "What helps")


def layer_rows(found: Sensitivity) -> list[Row]:
    """A row a layer, the worst first."""
    rows = []
    for layer in found.layers:
        values = {name: measure.get(found, layer) for name, measure in MEASURES.items()}
        words = {name: MEASURES[name].words(value) for name, value in values.items()}
        keys = {name: _key(name, value) for name, value in values.items()}
        rows.append(
            Row(
                (
                    layer.layer,
                    words["alone"],
                    _top1(layer.alone),
                    words["left"],
                    _top1(layer.left),
                    words["weight"],
                    words["output"],
                ),
                layer.layer,
                keys=(
                    layer.layer,
                    keys["alone"],
                    _top1_key(layer.alone),
                    keys["left"],
                    _top1_key(layer.left),
                    keys["weight"],
                    keys["output"],
                ),
            )
        )
    first = 1 if any(layer.alone is not None for layer in found.layers) else 3
    return sorted(rows, key=lambda row: row.keys[first])


def _key(name: str, value: float | None) -> float:
    """Sorted upwards the worst comes first; what has no figure comes last."""
    return 1e9 if value is None else -MEASURES[name].harm(value)


def _top1(deviation: Deviation | None) -> str:
    return "–" if deviation is None or deviation.top1 is None else text.percent(deviation.top1)


def _top1_key(deviation: Deviation | None) -> float:
    return 1e9 if deviation is None or deviation.top1 is None else deviation.top1


def outlier_rows(outliers: tuple[Outlier, ...]) -> list[Row]:
    rows = []
    for item in outliers:
        cells = (
            item.layer,
            item.tensor,
            f"{item.factor:.1f} ×",
            f"{item.lost_bits:.1f}",
            f"{item.beyond} of {item.channels}",
            item.advice,
        )
        keys = (item.layer, item.tensor, -item.factor, -item.lost_bits, item.beyond, item.advice)
        rows.append(Row(cells, item.layer, keys=keys))
    return rows


def totals(found: Sensitivity) -> list[tuple[str, str, str]]:
    """(caption, figure, what it means) of the tiles."""
    tiles = []
    for caption, deviation, what in (
        ("ALL QUANTIZED", found.both, "Everything quantized"),
        ("WEIGHTS ALONE", found.weights, "Weights and biases quantized, activations in float"),
        ("ACTIVATIONS ALONE", found.activations, "Activations quantized, weights in float"),
    ):
        figure = text.decibels(deviation.sqnr_db)
        if deviation.top1 is not None:
            figure += f" · {text.percent(deviation.top1)}"
        elif deviation.agreement is not None:
            figure += f" · {text.percent(deviation.agreement)} alike"
        tiles.append((caption, figure, f"{what}: {_described(deviation)}"))
    return tiles


def _described(deviation: Deviation) -> str:
    parts = [f"SQNR of the outputs to float {text.decibels(deviation.sqnr_db)}"]
    if deviation.kl is not None:
        parts.append(f"KL divergence of the class probabilities {text.number(deviation.kl, 3)}")
    if deviation.agreement is not None:
        parts.append(f"the same best class for {text.percent(deviation.agreement)} of the samples")
    if deviation.top1 is not None:
        parts.append(f"top-1 {text.percent(deviation.top1)}")
    return ", ".join(parts) + "."
