"""`quant-studio sensitivity`: which layers the loss comes from, the worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.cli.output import print_json, print_table
from studio.readable import decibels, percent

if TYPE_CHECKING:
    from studio.analysis.sensitivity_figures import (
        Deviation,
        LayerSensitivity,
        Outlier,
        Sensitivity,
    )

OUTLIERS = 10
NONE = "-"


def print_sensitivity(found: Sensitivity, *, as_json: bool) -> None:
    """What weights and activations do, a row a layer, and the worst outlier channels."""
    if as_json:
        print_json(found)
        return
    print(f"{found.samples} samples of {found.data}")
    if found.synthetic:
        print("RANDOM DATA: these figures say nothing about the model's accuracy.")
    whole = [
        ("weights alone", found.weights),
        ("activations alone", found.activations),
        ("all quantized", found.both),
    ]
    rows = [("float", NONE, NONE, NONE, _percent(found.float_top1))]
    rows += [(title, *_deviation(deviation)) for title, deviation in whole]
    print_table(("", "SQNR", "KL", "agreement", "top-1"), rows)
    layers = sorted(found.layers, key=lambda layer: _order(found, layer))
    titles = ("layer", "alone: SQNR", "top-1", "left float", "top-1", "weights", "output")
    print()
    print_table(titles, [_row(found, layer) for layer in layers])
    print(
        "\nalone: SQNR of the model's outputs with this layer quantized and all others in float; "
        "left float: what\nleaving it in float brings, all others quantized; weights, output: "
        "their own SQNR."
    )
    _print_outliers(found.outliers)


def _order(found: Sensitivity, layer: LayerSensitivity) -> float:
    if layer.alone is not None:
        return layer.alone.sqnr_db
    return -(found.gain_db(layer) or 0.0)


def _row(found: Sensitivity, layer: LayerSensitivity) -> tuple[str, ...]:
    gain = found.gain_db(layer)
    return (
        layer.layer,
        NONE if layer.alone is None else decibels(layer.alone.sqnr_db),
        NONE if layer.alone is None else _percent(layer.alone.top1),
        NONE if gain is None else f"{gain:+.1f} dB",
        NONE if layer.left is None else _percent(layer.left.top1),
        NONE if layer.weight is None else decibels(layer.weight.sqnr_db),
        NONE if layer.output is None else decibels(layer.output.sqnr_db),
    )


def _deviation(deviation: Deviation) -> tuple[str, str, str, str]:
    return (
        decibels(deviation.sqnr_db),
        NONE if deviation.kl is None else f"{deviation.kl:.4f}",
        _percent(deviation.agreement),
        _percent(deviation.top1),
    )


def _percent(value: float | None) -> str:
    return NONE if value is None else percent(value)


def _print_outliers(outliers: tuple[Outlier, ...]) -> None:
    if not outliers:
        print("No tensor with one scale has outlier channels.")
        return
    print("\noutlier channels (one scale for all, set by the widest):")
    print_table(
        ("tensor", "layer", "widest to median", "bits lost", "channels beyond", "what helps"),
        [
            (
                item.tensor,
                item.layer,
                f"{item.factor:.1f} x",
                f"{item.lost_bits:.1f}",
                f"{item.beyond} of {item.channels}",
                item.advice,
            )
            for item in outliers[:OUTLIERS]
        ],
    )
    if len(outliers) > OUTLIERS:
        print(f"and {len(outliers) - OUTLIERS} more (--json has all)")
