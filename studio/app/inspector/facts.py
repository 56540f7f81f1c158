"""What the inspector says about a layer, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from studio.app import text

if TYPE_CHECKING:
    from studio.analysis.forecast import LayerForecast
    from studio.analysis.sensitivity_figures import Sensitivity
    from studio.project.document import Document
    from studio.quant.encoding import Encoding
    from studio.sim.plan import Layer, TensorPlan


@dataclass(frozen=True)
class EncodingFacts:
    """One tensor's encoding as shown: `rows` of (what, value), and why it is as it is."""

    tensor: str
    role: str
    rows: tuple[tuple[str, str], ...]
    reason: str


def subtitle(document: Document, layer: Layer) -> str:
    """`Conv 3×3 depthwise + Clip · model.py:118`; the kind of a recognised layer."""
    from studio.graph.describe import op_summary, source_line

    if not layer.nodes:
        return layer.title
    nodes = [document.graph.node(name) for name in layer.nodes]
    summary = layer.kind or " + ".join(op_summary(node) for node in nodes)
    source = next((line for line in map(source_line, nodes) if line), "")
    return f"{summary} · {source}" if source else summary


def facts(document: Document, layer: Layer) -> list[tuple[str, str]]:
    """(what, value): shapes, parameters and work of the layer, the operators it was made from."""
    from studio.graph.describe import display_shape, macs, op_summary, parameters

    graph = document.graph

    def shapes(names: Sequence[str]) -> str:
        known = (display_shape(graph.value(name)) for name in names if graph.has_value(name))
        return ", ".join(shape for shape in known if shape)

    nodes = [graph.node(name) for name in layer.nodes]
    rows = [("Input", shapes(layer.inputs)), ("Output", shapes(layer.outputs))]
    total = sum(parameters(node) for node in nodes)
    work = [amount for node in nodes if (amount := macs(graph, node)) is not None]
    if total:
        operations = f" · {text.count(sum(work))} MACs" if work else ""
        rows.append(("Parameters", f"{text.count(total)}{operations}"))
    if layer.kind:
        rows.append(("Operators", ", ".join(op_summary(node) for node in nodes)))
    return [(what, value) for what, value in rows if value]


def encodings(document: Document, layer: Layer) -> list[EncodingFacts]:
    """Output, weights and bias of the layer."""
    names = [layer.output, *layer.weights, *([layer.bias] if layer.bias else [])]
    plans = (document.plan.tensors.get(name) for name in names)
    return [_encoding(document, plan) for plan in plans if plan is not None]


def _encoding(document: Document, plan: TensorPlan) -> EncodingFacts:
    role = {"activation": "Output"}.get(plan.role.value, plan.role.value.capitalize())
    rows: list[tuple[str, str]] = [("Grid", "float" if plan.spec is None else str(plan.spec.grid))]
    encoding = document.encodings.get(plan.name)
    if plan.dynamic:
        rows.append(("Range", "found at every inference"))
    elif encoding is not None:
        rows += encoding_rows(encoding)
    elif plan.spec is not None:
        rows.append(("Range", "known after calibration"))
    reason = plan.reason
    if plan.from_file:
        reason = f"Scale and zero point {reason}."
    if plan.tied_to:
        reason = f"Uses the encoding of {plan.tied_to}. {reason}"
    return EncodingFacts(plan.name, role, tuple(rows), reason)


def encoding_rows(encoding: Encoding) -> list[tuple[str, str]]:
    """Range, scale and granularity of one encoding, whatever its form."""
    from studio.quant.grid import FloatGrid

    low, high = float(encoding.minimum.min()), float(encoding.maximum.max())
    rows = [("min / max", f"{text.number(low)} / {text.number(high)}")]
    small, large = float(encoding.scale.min()), float(encoding.scale.max())
    floats = isinstance(encoding.grid, FloatGrid)
    if floats and not encoding.grid.scaled:  # type: ignore[union-attr]
        return [*rows, ("scale", "1, as it is")]
    if encoding.axis is None:
        if floats:
            return [*rows, ("scale", text.number(small, 5))]
        zero = int(encoding.zero_point)
        return [*rows, ("scale / zero point", f"{text.number(small, 5)} / {zero}")]
    rows.append(("scales", f"{text.number(small, 3)} … {text.number(large, 3)}"))
    if encoding.block_size is None:
        rows.append(("channels", f"{encoding.channels} along axis {encoding.axis}"))
    else:
        rows.append(("blocks", f"{encoding.channels:,} of {encoding.block_size} values"))
        rows.append(("along", f"axis {encoding.axis}, scales {_shape(encoding.scale.shape)}"))
    if not floats:
        zeros = encoding.zero_point
        first, last = int(zeros.min()), int(zeros.max())
        rows.append(("zero points", str(first) if first == last else f"{first} … {last}"))
    if encoding.integer_scale is not None:
        integers, scale = encoding.integer_scale, encoding.channel_scale
        span = f"{int(integers.min())} … {int(integers.max())}"
        ends = f"{text.number(float(scale.min()), 3)} … {text.number(float(scale.max()), 3)}"
        rows.append(("LPBQ integers", span))
        rows.append(("channel scales", f"{ends} ({scale.size})"))
    return rows


def _shape(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))


def runs_in(forecast: LayerForecast | None) -> tuple[str, str]:
    """(`QLinearConv, in integers`, why not: "" if there is nothing to say)."""
    if forecast is None:
        return "", ""
    runs = forecast.runs.value
    words = {"integer": "integers", "integer weights": "integer weights"}.get(runs, runs)
    where = "part of another kernel" if runs == "absorbed" else f"{words} ({forecast.kernel})"
    return where, text.sentences(forecast.reason, forecast.hint, forecast.warning)


def quality_line(layer: str, sqnr: dict[str, float]) -> tuple[str, str]:
    """(`14.1 dB, lowest of 95 layers`, role of the style sheet); empty before an evaluation."""
    if layer not in sqnr:
        return "", ""
    value = sqnr[layer]
    rank = sum(other < value for other in sqnr.values())
    words = f"{text.decibels(value)} output SQNR"
    if rank == 0 and len(sqnr) > 1:
        return f"{words}, lowest of {len(sqnr)} layers", "bad"
    if rank < 5 and 10 * rank < len(sqnr):
        return f"{words}, {rank} of {len(sqnr)} layers are lower", "warn"
    return words, "muted"


def sensitivity_words(layer: str, sensitivity: Sensitivity | None) -> str:
    """What the layer does to the model's outputs; "" before an analysis."""
    found = sensitivity.by_layer.get(layer) if sensitivity is not None else None
    if sensitivity is None or found is None:
        return ""
    parts = []
    if found.alone is not None:
        parts.append(f"{text.decibels(found.alone.sqnr_db)} quantized alone")
    gain = sensitivity.gain_db(found)
    if gain is not None:
        sign = "+" if gain >= 0.05 else ""
        parts.append(f"{sign}{text.decibels(round(gain, 1) + 0.0)} left in float alone")
    return ", ".join(parts)


def coarser(
    counts: npt.NDArray[np.int64], edges: npt.NDArray[np.float64], low: float, high: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """About 128 bins for the eye: those that touch [low, high], merged in groups of equal size.

    counts (n,), edges (n + 1,); returns the same for fewer bins.
    """
    first = max(0, int(np.searchsorted(edges, low, side="right")) - 1)
    last = min(len(counts), int(np.searchsorted(edges, high, side="left")))
    group = max(1, (last - first) // 128)
    groups = -(-(last - first) // group)
    padded = np.zeros(groups * group, dtype=np.int64)
    padded[: last - first] = counts[first:last]
    width = edges[1] - edges[0]
    merged = padded.reshape(groups, group).sum(axis=1).astype(np.float64)
    return merged, edges[first] + width * group * np.arange(groups + 1)
