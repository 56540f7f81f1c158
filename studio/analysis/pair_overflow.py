"""Which layers' integers may saturate on x86 processors without VNNI.

There, onnxruntime multiplies unsigned activations with signed weights by `vpmaddubsw`, which adds
two neighbouring products in 16 bits: 255 x (127 + 127) does not fit and is cut off in silence
(onnxruntime issues 5849, 6004, 12072; Intel 64 instruction set reference, VPMADDUBSW). Processors
with VNNI (Intel since 2019, AMD since Zen 4) and Arm add in 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from studio.analysis.forecast import Runs, forecast
from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.quant.grid import Grid
from studio.sim.found import constant_integers
from studio.sim.plan import Layer, Plan
from studio.sim.target import Target

LARGEST = 2**15 - 1
ACTIVATION = 2**8 - 1
HINT = (
    "Give these layers weight_bits=7, or set session.x64quantprecision=1 where the model runs on "
    "such a processor."
)


@dataclass(frozen=True)
class PairOverflow:
    """A layer whose neighbouring products may not fit in 16 bits, if activations reach 255.

    largest: of the magnitudes of such sums. pairs: share of all pairs. channels: output channels
    that have one, of `of_channels`.
    """

    layer: str
    largest: int
    pairs: float
    channels: int
    of_channels: int


def pair_overflows(
    graph: ModelGraph, plan: Plan, target: Target, encodings: Mapping[str, Encoding]
) -> tuple[PairOverflow, ...]:
    """The layers of `plan` that may saturate, the largest share of pairs first.

    Only layers that `target` computes in integers with signed weights of 8 bits; depthwise
    convolutions add in 32 bits anyway.
    """
    rows = {row.layer: row for row in forecast(graph, plan, target, encodings).layers}
    found = []
    for layer in plan.layers:
        if not layer.nodes or rows[layer.name].runs is not Runs.INTEGER:
            continue
        matrix = _weight_rows(graph, plan, layer, encodings)
        if matrix is not None:
            overflow = _overflow(layer.name, matrix)
            found += [overflow] if overflow is not None else []
    return tuple(sorted(found, key=lambda row: -row.pairs))


def overflow_note(rows: Sequence[PairOverflow]) -> str:
    """A sentence on the layers that may saturate, and what can be done; "" if there are none."""
    if not rows:
        return ""
    count = f"{len(rows)} layers" if len(rows) > 1 else "1 layer"
    return (
        f"On x86 processors without VNNI {count} may saturate in 16 bits, most of all "
        f"{rows[0].layer} ({100 * rows[0].pairs:.2g} % of its pairs of products). {HINT}"
    )


def _weight_rows(
    graph: ModelGraph, plan: Plan, layer: Layer, encodings: Mapping[str, Encoding]
) -> np.ndarray | None:
    """Integers (output channels, summed values) in the order in which they are summed."""
    head = graph.node(layer.nodes[0])
    if head.op_type not in ("Conv", "Gemm", "MatMul") or not layer.weights:
        return None
    row = plan.tensors[layer.weights[0]]
    source = plan.tensors[head.inputs[0].name or ""] if head.inputs[0] is not None else None
    unsigned = source is not None and source.spec is not None and _unsigned(source.spec.grid)
    if row.spec is None or row.name not in encodings or not unsigned:
        return None
    grid = row.spec.grid
    if not isinstance(grid, Grid) or not grid.signed or grid.bits > 8:
        return None
    integers = constant_integers(graph, row, encodings[row.name])
    if head.op_type == "Conv":
        if integers.shape[1] == 1:
            return None
        return np.moveaxis(integers, 1, -1).reshape(len(integers), -1)
    if integers.ndim != 2:
        return None
    rows_first = "transB" in head.attributes and head.attributes["transB"].value
    return integers if rows_first else integers.T


def _unsigned(grid: object) -> bool:
    """True for activations that the kernel gets unsigned: signed ones are moved to that."""
    return isinstance(grid, Grid) and grid.bits <= 8


def _overflow(layer: str, rows: np.ndarray) -> PairOverflow | None:
    if rows.shape[1] % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
    pairs = rows.reshape(len(rows), -1, 2)
    above = np.maximum(pairs, 0).sum(axis=2) * ACTIVATION
    below = np.minimum(pairs, 0).sum(axis=2) * ACTIVATION
    over = (above > LARGEST) | (below < -LARGEST - 1)
    if not over.any():
        return None
    return PairOverflow(
        layer,
        int(max(above.max(), -below.min())),
        float(over.mean()),
        int(over.any(axis=1).sum()),
        len(rows),
    )
