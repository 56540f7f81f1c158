"""Mixed precision: the bits of each layer, from what its rounding does to the outputs.

The noise that each group of layers alone adds to the outputs at each candidate is measured; what
groups add together is taken as the sum. Integer programming finds the best choice for a budget, as
in HAWQ-V3 (Yao et al. 2021, arXiv 2011.10680); many budgets make the curve.
"""

from __future__ import annotations

import math

from studio.analysis.score import Score
from studio.errors import ConfigError
from studio.jobs.events import CancelToken, Emit
from studio.ptq.bit_search import BitSearch, MeasuredChoice
from studio.ptq.options import Aim, Cost, MixedPrecisionOptions, Rerounding
from studio.quant.grid import Grid
from studio.readable import count, decibels, percent, plural, size
from studio.sim.encodings import fits_spec
from studio.sim.plan import Layer, Plan
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Chart, Outcome, Point, Row, Samples

MEASURE = (
    "SQNR of the outputs if this layer alone is rounded, in dB, with the fewest bits and with "
    "those chosen"
)
REROUNDED = "rounded again"


def mixed_precision(
    model: QuantizedModel,
    samples: Samples,
    options: MixedPrecisionOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """`model` with other bits of its layers. Raises ConfigError if the target can do fewer than two
    of the candidates or no choice is cheap enough, DataError without samples, CancelledError."""
    search = BitSearch(model, samples, options, emit, cancel)
    search.measure_curve()
    best = search.best()
    improved, score = best.model, best.score
    notes = [_reached(search, best), *_lost(model, best.model)]
    if options.reround is not Rerounding.NONE:
        improved, score, note = _reround(search, best)
        notes.append(note)
    return Outcome(
        improved,
        "; ".join(filter(None, [_summary(search, best), *notes])),
        MEASURE,
        _rows(search, best),
        _chart(search, best, None if improved is best.model else score),
    )


def _summary(search: BitSearch, best: MeasuredChoice) -> str:
    """`Size 3.1 MB, 67.2 % of W8A8: top-1 86.4 % (float 88.0 %, W8A8 87.4 %) on 500 samples`."""
    judge = search.judge
    others = [
        f"{point.uniform.name} {point.score.text}"
        for point in search.points.values()
        if point.uniform is not None and point.uniform.weight is not None
    ]
    if judge.metric == "top-1":
        others.insert(0, f"float {judge.float_score.text}")
    name = "size" if search.options.cost is Cost.SIZE else "bit-operations"
    metric = "top-1" if judge.metric == "top-1" else "SQNR of the outputs"
    return (
        f"{name} {_cost_text(search, best.cost)}, {percent(100 * best.cost / search.whole)} of "
        f"W8A8: {metric} {best.score.text} ({', '.join(others)}) on {judge.samples} samples"
    )


def _cost_text(search: BitSearch, cost: float) -> str:
    return size(round(cost)) if search.options.cost is Cost.SIZE else count(cost)


def _reached(search: BitSearch, best: MeasuredChoice) -> str:
    if search.options.aim is Aim.DROP and best.score.value < search.target:
        return f"no choice reaches {search.target:.1f} {best.score.unit}, this is the best"
    return ""


def _lost(before: QuantizedModel, after: QuantizedModel) -> list[str]:
    """What an earlier technique found for a grid that is now another."""
    lost = [
        name
        for name, encoding in before.given.items()
        if name in before.plan.tensors
        and fits_spec(encoding, before.plan.tensors[name].spec)
        and not fits_spec(encoding, after.plan.tensors[name].spec)
    ]
    if not lost:
        return []
    tensors = plural(len(lost), "tensor")
    return [f"what earlier techniques found for {tensors} no longer fits their bits"]


def _reround(search: BitSearch, best: MeasuredChoice) -> tuple[QuantizedModel, Score, str]:
    """The chosen model after the technique that rounds for its bits; itself if that is no gain."""
    from studio.ptq.technique import TECHNIQUES

    name = search.options.reround.value
    technique = next((item for item in TECHNIQUES if item.name == name), None)
    if technique is None:
        raise ConfigError(f"There is no technique {name!r} to round with.", "Choose another.")
    outcome = technique.load()(
        best.model, search.samples, technique.options(), search.emit, search.cancel
    )
    score = search.judge(outcome.model, cancel=search.cancel)
    if not score.better_than(best.score):
        return best.model, best.score, f"{technique.title} brought it to {score.text}: left out"
    return outcome.model, score, f"{REROUNDED} by {technique.title}: {score.text}"


def _rows(search: BitSearch, best: MeasuredChoice) -> tuple[Row, ...]:
    """A row for each layer with weights that has a choice."""
    rows = []
    for index, allowed in enumerate(search.allowed):
        if len(allowed) < 2:
            continue
        losses = [float(search.problem.loss[index, c]) for c in allowed]
        for name in search.groups.groups[index].layers:
            layer = best.model.plan.layer(name)
            if not layer.editable_weight:
                continue
            old = _bits(search.model.plan, search.model.plan.layer(name))
            new = _bits(best.model.plan, layer)
            chosen = float(search.problem.loss[index, best.chosen[index]])
            what = new if old == new else f"{old} → {new}"
            rows.append(Row(name, what, _decibels(max(losses)), _decibels(chosen)))
    return tuple(rows)


def _bits(plan: Plan, layer: Layer) -> str:
    """`W4A8`; `float` for what is not quantized."""
    parts = []
    for kind, name in (("W", layer.weights[0]), ("A", layer.output)):
        spec = plan.tensors[name].spec
        if spec is None:
            parts.append(f"{kind}32")
        else:
            parts.append(f"{kind}{spec.grid.bits}" if isinstance(spec.grid, Grid) else f"{kind}fp")
    return "float" if parts == ["W32", "A32"] else "".join(parts)


def _decibels(noise: float) -> float | None:
    return -10 * math.log10(noise) if noise > 0 else None


def _chart(search: BitSearch, best: MeasuredChoice, rerounded: Score | None) -> Chart:
    front = search.front()
    others = [p for p in search.points.values() if p.uniform is not None and p not in front]
    points = [
        _point(search, point, best, aside=point not in front)
        for point in sorted([*front, *others], key=lambda p: p.cost)
        if math.isfinite(point.score.value)
    ]
    if rerounded is not None:
        x = _x(search, best.cost)
        points.append(
            Point(x, rerounded.value, REROUNDED, _note(search, best.cost, rerounded), aside=True)
        )
    saved = search.options.cost is Cost.SIZE
    labelled = search.judge.metric == "top-1"
    return Chart(
        "Size against accuracy" if saved else "Bit-operations against accuracy",
        f"{'model size' if saved else 'bit-operations of one sample'}, {_unit(search)[0]}",
        "top-1, %" if labelled else "SQNR of the outputs, dB",
        tuple(points),
        target=search.target if math.isfinite(search.target) else None,
    )


def _point(search: BitSearch, point: MeasuredChoice, best: MeasuredChoice, *, aside: bool) -> Point:
    if point.uniform is not None:
        label = point.uniform.name
    else:
        label = f"{percent(100 * point.cost / search.whole, 0)} of W8A8"
    note = f"{_note(search, point.cost, point.score)}; {_mixture(search, point)}"
    settings = search.groups.settings_of(point.chosen)
    x = _x(search, point.cost)
    return Point(x, point.score.value, label, note, point is best, settings, aside)


def _x(search: BitSearch, cost: float) -> float:
    return cost / _unit(search)[1]


def _unit(search: BitSearch) -> tuple[str, float]:
    """The unit of costs in the chart."""
    if search.options.cost is Cost.SIZE:
        return ("MB", 1e6) if search.whole >= 1e6 else ("kB", 1e3)
    return ("G", 1e9) if search.whole >= 1e9 else ("M", 1e6)


def _note(search: BitSearch, cost: float, score: Score) -> str:
    near = "" if score.metric == "SQNR" else f", SQNR {decibels(score.sqnr_db)}"
    return f"{_cost_text(search, cost)}, {score.text}{near}"


def _mixture(search: BitSearch, point: MeasuredChoice) -> str:
    """`31 layers W4A8, 19 layers W8A8`."""
    counts: dict[str, int] = {}
    for index, candidate in enumerate(point.chosen):
        if len(search.allowed[index]) > 1:
            name = search.groups.candidates[candidate].name
            layers = [search.model.plan.layer(n) for n in search.groups.groups[index].layers]
            counts[name] = counts.get(name, 0) + sum(layer.editable_weight for layer in layers)
    parts = [f"{plural(number, 'layer')} {name}" for name, number in counts.items() if number]
    return ", ".join(parts)
