"""AutoQuant: tries the techniques one after another until the loss is small enough.

What costs least comes first. Every result is measured on the validation data; the best one so far
is kept, and is what there is when the time is up. Techniques that fit the weights to their bits
start from the best model without them, because what they found would mislead the next one.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from studio.analysis.score import Score, Scorer
from studio.analysis.variants import quantizing
from studio.errors import CancelledError, StudioError
from studio.jobs.events import CancelToken, Emit, Progress, Warned
from studio.ptq.bit_search import BATCH, BitSearch
from studio.ptq.deadline import Deadline, TimeUpError
from studio.ptq.options import Aim, AutoQuantOptions, Cost, MixedPrecisionOptions, Trial
from studio.ptq.pace import within_time
from studio.readable import plural
from studio.sim.choices import number_choices
from studio.sim.plan import Role
from studio.sim.quantized_model import QuantizedModel
from studio.sim.target import load_target
from studio.techniques.technique import Chart, Outcome, Point, Row, Samples

ACT_OBSERVERS = ("minmax", "percentile", "mse", "sqnr", "entropy")
WEIGHT_OBSERVERS = ("minmax", "mse", "sqnr")

FITTING = frozenset({Trial.BIAS_CORRECTION, Trial.ADAROUND, Trial.BLOCK_RECONSTRUCTION})
"""Techniques that fit the weights, or what is added to them, to their bits."""

POINTS, REFINEMENTS = 3, 2
"""Of the curve of mixed precision."""

PHASE = "AutoQuant"


def autoquant(
    model: QuantizedModel,
    samples: Samples,
    options: AutoQuantOptions,
    emit: Emit,
    cancel: CancelToken,
) -> Outcome:
    """The best that the techniques make of `model` in the time allowed: on the validation data it
    is never worse than `model`. Raises DataError without samples, CancelledError."""
    trials = _Trials(model, samples, options, emit, cancel)
    trials.run()
    return trials.outcome()


@dataclass(frozen=True)
class _Tried:
    model: QuantizedModel
    score: Score


class _Trials:
    """The best so far, the base that techniques start from, and what is to be reported."""

    def __init__(
        self,
        model: QuantizedModel,
        samples: Samples,
        options: AutoQuantOptions,
        emit: Emit,
        cancel: CancelToken,
    ) -> None:
        self._samples, self._options, self._emit = samples, options, emit
        self._begin = time.monotonic()
        self._deadline = Deadline(cancel, 60 * options.minutes)
        self._batch = samples.batch_size or BATCH
        self._judge = Scorer(
            samples.original or model.graph,
            samples.validation,
            batch_size=self._batch,
            limit=options.evaluation,
            emit=emit,
            cancel=cancel,
        )
        if self._judge.problem:
            emit(Warned(self._judge.problem))
        exact = self._judge.float_score
        labelled = exact.metric == "top-1"
        self._target = exact.value - options.allowed_drop if labelled else options.wanted_sqnr
        self._start = _Tried(model, self._judge(model, emit, cancel))
        self._best = self._base = self._start
        self._applied_to: dict[Trial, QuantizedModel] = {}
        self._by_activations = False
        self._rows: list[Row] = []
        self._points: list[Point] = []
        self._note = ""
        self._add_point("start", self._start.score, kept=True)

    # -- the course ------------------------------------------------------------------------------

    def run(self) -> None:
        """Try what may be tried until the target is met or the time is up."""
        own: dict[Trial, Callable[[], None]] = {
            Trial.OBSERVERS: self._observers,
            Trial.MIXED_PRECISION: self._mixed_precision,
        }
        if self._reached:
            return
        try:
            self._measure_alone()
            for trial in self._order():
                self._deadline.check()
                if trial in own:
                    own[trial]()
                else:
                    self._technique(trial)
                if self._reached:
                    return
        except TimeUpError:
            self._note = f"the {self._options.minutes:g} minutes were over"

    @property
    def _reached(self) -> bool:
        return self._best.score.value >= self._target

    def _order(self) -> list[Trial]:
        """What may be tried, the cheap first. Where the activations alone miss the target, no
        rounding of weights reaches it: then bits come before AdaRound."""
        rounding = [Trial.ADAROUND, Trial.BLOCK_RECONSTRUCTION]
        late = [*rounding, Trial.MIXED_PRECISION, *rounding]
        order = [
            Trial.OBSERVERS,
            Trial.EQUALIZATION,
            Trial.BIAS_CORRECTION,
            Trial.SEQUENTIAL_MSE,
            *(late[len(rounding) :] if self._by_activations else late),
        ]
        return [trial for trial in order if trial not in self._options.without]

    def _measure_alone(self) -> None:
        """What the weights and what the activations cost alone."""
        model, exact = self._start.model, self._judge.float_score
        rows = [row for row in model.plan.tensors.values() if row.spec is not None]
        weights = {row.name for row in rows if row.role is Role.WEIGHT}
        others = {row.name for row in rows if row.role not in (Role.WEIGHT, Role.BIAS)}
        for title, names in (("Weights alone", weights), ("Activations alone", others)):
            self._say(f"{title.lower()} quantized")
            alone = replace(model, plan=quantizing(model.plan, names))
            score = self._judge(alone, cancel=self._deadline)
            before = exact.value if math.isfinite(exact.value) else None
            self._rows.append(Row(title, "quantized, against float", before, _finite(score)))
            self._by_activations = names is others and score.value < self._target

    def _observers(self) -> None:
        """Compare the observers on the calibration data by what they make of the outputs; the best
        of activations and of weights are measured together."""
        base = self._base.model
        near = Scorer(
            base.graph,
            self._samples.calibration,
            batch_size=self._batch,
            limit=self._options.samples,
            labels=False,
            cancel=self._deadline,
        )
        best, score, words = base, near(base, cancel=self._deadline), []
        for kind, noun, names in (
            ("act", "activations", ACT_OBSERVERS),
            ("weight", "weights", WEIGHT_OBSERVERS),
        ):
            tried = {}
            for name in names:
                self._say(f"observer {name} for {noun}")
                config = best.config.with_defaults(**{f"{kind}_observer": name})
                other = best.changed(config=config)
                tried[name] = other, near(other, cancel=self._deadline)
            name = max(tried, key=lambda name: tried[name][1].rank)
            if tried[name][1].better_than(score):
                best, score = tried[name]
                words.append(f"{name} for {noun}")
        if not words:
            self._rows.append(Row("Observers", "none is better", _finite(self._base.score)))
            return
        self._try("Observers", ", ".join(words), best, clean=True)

    def _technique(self, trial: Trial) -> None:
        """Apply a technique to the base, if it was not applied to that one before."""
        from studio.ptq.technique import TECHNIQUES

        technique = next((item for item in TECHNIQUES if item.name == trial.value), None)
        base = self._base.model
        if technique is None or self._applied_to.get(trial) is base:
            return
        self._applied_to[trial] = base
        title = technique.title
        self._say(title)
        try:
            outcome = within_time(technique, base, self._samples, self._emit, self._deadline)
        except CancelledError:
            raise
        except StudioError as error:
            self._rows.append(Row(title, f"cannot be applied: {error.message}"))
            return
        if outcome is None:
            self._rows.append(Row(title, "would take longer than is left"))
        elif outcome.model is base:
            self._rows.append(Row(title, outcome.summary, _finite(self._base.score)))
        else:
            self._try(title, outcome.summary, outcome.model, clean=trial not in FITTING)

    def _mixed_precision(self) -> None:
        """Search the cheapest bits that reach the target, as far as there is time."""
        base = self._base.model
        candidates = _candidates(base, self._by_activations)
        if len(candidates) < 2:
            return
        own = self._options
        options = MixedPrecisionOptions.model_validate(
            {
                "candidates": candidates,
                "cost": Cost.BIT_OPERATIONS if self._by_activations else Cost.SIZE,
                "aim": Aim.DROP,
                "allowed_drop": own.allowed_drop,
                "wanted_sqnr": own.wanted_sqnr,
                "points": POINTS,
                "refinements": REFINEMENTS,
                "samples": own.samples,
            }
        )
        self._say("mixed precision")
        try:
            search = BitSearch(
                base, self._samples, options, self._emit, self._deadline, self._judge
            )
        except CancelledError:
            raise
        except StudioError as error:
            self._rows.append(Row("Mixed precision", f"cannot be applied: {error.message}"))
            return
        try:
            search.measure_curve()
        finally:
            if search.points:  # what was measured counts, even if the time is up
                found = search.best()
                words = f"{', '.join(candidates)}: {100 * found.cost / search.whole:.0f} % of W8A8"
                self._add("Mixed precision", words, found.model, found.score, clean=True)

    # -- the report ------------------------------------------------------------------------------

    def _say(self, what: str) -> None:
        best, wanted = self._best.score, self._target
        detail = f"{what}; best {best.text}, wanted {wanted:.1f} {best.unit}"
        done = int(time.monotonic() - self._begin)
        self._emit(Progress(PHASE, done, max(int(60 * self._options.minutes), done), detail))

    def _try(self, title: str, words: str, model: QuantizedModel, *, clean: bool) -> None:
        """Measure what a step has made."""
        score = self._judge(model, self._emit, self._deadline)
        self._add(title, words, model, score, clean=clean)

    def _add(
        self, title: str, words: str, model: QuantizedModel, score: Score, *, clean: bool
    ) -> None:
        """Keep the result of a step if it is the best so far, and as the base of later ones if it
        is better than that."""
        base, best = self._base.score, self._best.score
        kept = score.better_than(best)
        start = best if kept else base
        verdict = "kept" if kept else "base of what follows" if score.better_than(base) else "left"
        chance = ", within chance" if score.within_noise(start) else ""
        self._rows.append(Row(title, f"{words}; {verdict}{chance}", _finite(start), _finite(score)))
        self._add_point(title, score, kept=kept)
        if kept:
            self._best = _Tried(model, score)
        if clean and score.better_than(base):
            self._base = _Tried(model, score)

    def _add_point(self, title: str, score: Score, *, kept: bool) -> None:
        if math.isfinite(score.value):
            minutes = self._minutes()
            note = f"{title}: {score.text} after {_duration(minutes)}"
            self._points.append(Point(minutes, score.value, title, note, aside=not kept))

    def outcome(self) -> Outcome:
        start, best = self._start.score, self._best.score
        named = "top-1" if best.metric == "top-1" else "SQNR of the outputs"
        steps = [point for point in self._points if not point.aside]
        parts = [
            f"{named} {start.text} → {best.text} (wanted {self._target:.1f}"
            + (f", float {self._judge.float_score.text}" if best.metric == "top-1" else "")
            + f") on {plural(best.samples, 'sample')} in {_duration(self._minutes())}"
        ]
        if best is start:
            parts.append("nothing was better" if self._rows else "good enough as it is")
        elif start.within_noise(best):
            parts.append("the gain is within chance")
        if not self._samples.apart:
            parts.append("calibration images are among the samples")
        if not self._reached:
            parts.append(self._note or "all was tried")
        points = tuple(replace(p, chosen=bool(steps) and p is steps[-1]) for p in self._points)
        chart = Chart("Steps", "minutes", best.title, points, target=self._target)
        return Outcome(self._best.model, "; ".join(parts), best.title, tuple(self._rows), chart)

    def _minutes(self) -> float:
        return (time.monotonic() - self._begin) / 60


def _duration(minutes: float) -> str:
    return f"{minutes:.1f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} s"


def _finite(score: Score) -> float | None:
    return score.value if math.isfinite(score.value) else None


def _candidates(model: QuantizedModel, by_activations: bool) -> tuple[str, ...]:
    """The bits that most layers have, and more of what the loss comes from; float where the target
    has no more."""
    weight, act = _usual(model, "weight_bits"), _usual(model, "act_bits")
    if weight is None or act is None:
        return ()
    found = [f"w{weight}a{act}"]
    found += [f"w{bits}a{act}" for bits in (4, 8) if bits > weight]
    if by_activations:
        target = load_target(model.config.target)
        kernels = target.numbers.kernels
        wide = any(choice.text == "int16" for choice in number_choices(target, "act"))
        wide = wide and (not kernels or any(k.activations == "int16" for k in kernels))
        found.append(f"w8a{8 if act < 8 else 16}" if act < 8 or wide else "float")
    elif weight >= 8:
        found.append("float")
    return tuple(dict.fromkeys(found))


def _usual(model: QuantizedModel, key: str) -> int | None:
    bits = Counter(getattr(layer.settings, key) for layer in model.plan.layers)
    del bits[None]
    return bits.most_common(1)[0][0] if bits else None
