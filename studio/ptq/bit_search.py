"""The search for the bits of each layer: a curve of choices that are really measured.

The best choices for several budgets (see `bit_choice`) are improved by swaps that are measured on
the calibration data, and then measured on the validation data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from studio.analysis.cost import tensors_to_measure
from studio.analysis.score import Score, Scorer
from studio.errors import ConfigError, DataError
from studio.jobs.events import CancelToken, Emit, Progress, Warned
from studio.ptq.bit_choice import Chosen, Problem, cheapest, solve
from studio.ptq.bit_costs import Costs, bit_operation_costs, size_costs
from studio.ptq.bit_groups import (
    Candidate,
    find_groups,
    parse_candidate,
    possible_candidates,
    special_layers,
)
from studio.ptq.bit_losses import measure_losses
from studio.ptq.options import Aim, Cost, MixedPrecisionOptions
from studio.runtime.shapes import measured_shapes
from studio.sim.overrides import with_settings
from studio.sim.placement import place
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Samples

BATCH = 8
"""Samples measured together where the model takes any number."""

HALVINGS = 4
"""Points measured between the cheapest that is good enough and the next cheaper one."""

PROMISING = 12
"""Layers with more bits, and with fewer, that swaps are made of."""

PHASE = "Measuring choices"


@dataclass(frozen=True)
class MeasuredChoice:
    """A choice that was really measured. `uniform` is the candidate if all layers have the same."""

    chosen: Chosen
    model: QuantizedModel
    cost: float
    score: Score
    uniform: Candidate | None


class BitSearch:
    """What is known of the choices so far.

    groups, costs, losses: of the candidates; the last candidate may be W8A8 to compare with, which
    is not allowed then. whole: cost of all layers at W8A8. limit: the budget (inf: none). target:
    the score to reach (-inf: none). points: what was measured.
    """

    def __init__(
        self,
        model: QuantizedModel,
        samples: Samples,
        options: MixedPrecisionOptions,
        emit: Emit,
        cancel: CancelToken,
        judge: Scorer | None = None,
    ) -> None:
        """`judge` measures the points (None: on the validation data)."""
        self.model, self.samples, self.options = model, samples, options
        self.emit, self.cancel = emit, cancel
        self._batch = samples.batch_size or BATCH
        self._near_data = samples.calibration.subset(options.samples)
        self._place_candidates()
        self.problem = self._problem()
        self.limit = self._budget()
        self._near = Scorer(
            model.graph,
            self._near_data,
            batch_size=self._batch,
            labels=False,
            emit=emit,
            cancel=cancel,
        )
        self.judge = judge or Scorer(
            samples.original or model.graph,
            samples.validation,
            batch_size=self._batch,
            limit=options.evaluation,
            emit=emit,
            cancel=cancel,
        )
        if self.judge.problem:
            emit(Warned(self.judge.problem))
        self.target = -math.inf
        if options.aim is Aim.DROP:
            labelled = self.judge.metric == "top-1"
            least = self.judge.float_score.value - options.allowed_drop
            self.target = least if labelled else options.wanted_sqnr
        self.points: dict[Chosen, MeasuredChoice] = {}
        self._models: dict[Chosen, QuantizedModel] = {}
        self._near_scores: dict[Chosen, Score] = {}

    # -- what is known before --------------------------------------------------------------------

    def _place_candidates(self) -> None:
        graph, config = self.model.graph, self.model.config
        asked = [parse_candidate(text) for text in self.options.candidates]
        possible, problems = possible_candidates(graph, config, asked)
        for problem in problems:
            self.emit(Warned(problem))
        if len(possible) < 2:
            raise ConfigError(
                f"Of the candidates {', '.join(c.name for c in asked)}, the target "
                f"{config.target} can do {len(possible)}: there is nothing to choose.",
                "Give others, or choose another target.",
            )
        every = tuple(dict.fromkeys((*possible, Candidate(8, 8))))
        self.eight = every.index(Candidate(8, 8))
        self.real = tuple(range(len(possible)))
        special = special_layers(graph, config)
        settings = find_groups(self.model.plan, every, special).settings
        first = next(i for i, candidate in enumerate(every) if candidate.weight is not None)
        # What shares an encoding is to be seen with the same bits everywhere.
        plan = place(graph, with_settings(graph, config, settings[first]))
        self.groups = find_groups(plan, every, special)
        self._configs = [with_settings(graph, config, each) for each in self.groups.settings]
        self.allowed = tuple(
            tuple(sorted({group.choices[group.choice_of[index]] for index in self.real}))
            for group in self.groups.groups
        )
        if not any(len(some) > 1 for some in self.allowed):
            raise ConfigError(
                "There is no layer to choose bits for: the candidates come to the same in all.",
                "Give candidates that differ, and switch quantization of weights on.",
            )

    def _problem(self) -> Problem:
        model = self.model
        uniform = {index: model.changed(config=self._configs[index]) for index in self.real}
        plans = [place(model.graph, config) for config in self._configs]
        if self.options.cost is Cost.SIZE:
            costs = size_costs(model.graph, self.groups, plans)
        else:
            size = self.samples.batch_size or 1
            batch = next(iter(self._near_data.batches(size, cancel=self.cancel)), None)
            if batch is None:
                raise DataError("There is no sample to measure on.", "Choose a folder of images.")
            shapes = measured_shapes(model.graph, batch.inputs, tensors_to_measure(model.graph))
            costs = bit_operation_costs(model.graph, self.groups, plans, shapes)
        self.costs: Costs = costs
        self.whole = costs.of(self.groups.uniform(self.eight))
        if self.whole <= 0:
            raise ConfigError(
                "The bit-operations of this model are not known: it has no products, or only the "
                "data tell their sizes.",
                "Choose the size as cost.",
            )
        losses = measure_losses(
            model,
            self.groups,
            self.allowed,
            uniform,
            self._near_data,
            batch_size=self._batch,
            emit=self.emit,
            cancel=self.cancel,
        )
        return Problem(losses, self.allowed, costs)

    def _budget(self) -> float:
        """The cost allowed; inf where the loss is given."""
        options = self.options
        if options.aim is Aim.DROP:
            return math.inf
        if options.megabytes is not None:
            if options.cost is not Cost.SIZE:
                raise ConfigError(
                    "megabytes is a size, but bit-operations are to be saved.",
                    "Give a share, or cost=size.",
                )
            limit = options.megabytes * 1e6
        else:
            limit = options.share * self.whole
        least = self.costs.of(cheapest(self.problem))
        if limit < least:
            raise ConfigError(
                "No choice is cheap enough: the fewest bits everywhere cost "
                f"{least / self.whole:.3f} of W8A8, allowed is {limit / self.whole:.3f}.",
                "Allow more, or give candidates with fewer bits.",
            )
        return limit

    # -- measuring -------------------------------------------------------------------------------

    def measure_curve(self) -> None:
        """Measure the uniform choices, the best for some budgets, and those around the aim. Ends as
        soon as the cheapest uniform choice reaches the target."""
        uniform = list(dict.fromkeys(self.groups.uniform(index) for index in self.real))
        best = solve(self.problem, math.inf)
        assert best is not None
        low, high = self.costs.of(cheapest(self.problem)), self.costs.of(best)
        budgets = list(np.linspace(low, high, self.options.points + 1)[1:-1])
        if low <= self.limit < high:
            budgets.append(self.limit)
        total = len(uniform) + len(budgets) + (HALVINGS if self.target > -math.inf else 0)
        uniform.sort(key=self.costs.of)
        for chosen in uniform:
            self._progress(total)
            reached = self.measure(chosen).score.value >= self.target > -math.inf
            if reached and chosen is uniform[0]:
                return  # nothing is cheaper, and nothing better is asked for
        for budget in sorted(budgets):
            self._progress(total)
            self._measure_best(float(budget))
        if self.target > -math.inf:
            for _ in range(HALVINGS):
                self._progress(total)
                if not self._halve():
                    break
        self.emit(Progress(PHASE, total, total))

    def _progress(self, total: int) -> None:
        done = min(len(self.points), total - 1)
        self.emit(Progress(PHASE, done, total, f"on {self.judge.samples} samples"))

    def _measure_best(self, budget: float) -> bool:
        """Measure the best choice for `budget`; False if that was measured before."""
        chosen = solve(self.problem, budget)
        if chosen is None:
            return False
        chosen = self._refined(chosen, budget)
        new = chosen not in self.points
        self.measure(chosen)
        return new

    def _halve(self) -> bool:
        """Measure a choice between the cheapest that reaches the target and the next cheaper."""
        good = [p.cost for p in self.points.values() if p.score.value >= self.target]
        below = [p.cost for p in self.points.values() if good and p.cost < min(good)]
        return bool(below) and self._measure_best((min(good) + max(below)) / 2)

    def measure(self, chosen: Chosen) -> MeasuredChoice:
        """Measure `chosen` on the validation data, if that was not done yet."""
        if chosen not in self.points:
            self.cancel.check()
            model = self._model_of(chosen)
            score = self.judge(model, cancel=self.cancel)
            uniform = {self.groups.uniform(i): self.groups.candidates[i] for i in self.real}
            self.points[chosen] = MeasuredChoice(
                chosen, model, self.costs.of(chosen), score, uniform.get(chosen)
            )
        return self.points[chosen]

    def _model_of(self, chosen: Chosen) -> QuantizedModel:
        if chosen not in self._models:
            model, settings = self.model, self.groups.settings_of(chosen)
            config = with_settings(model.graph, model.config, settings)
            self._models[chosen] = model.changed(config=config)
        return self._models[chosen]

    def _refined(self, chosen: Chosen, budget: float) -> Chosen:
        """The nearest to float of `chosen` and some choices around it, on calibration data."""
        tried = {chosen}
        for _ in range(self.options.refinements):
            move = next((m for m in self._moves(chosen, budget) if m not in tried), None)
            if move is None:
                break
            tried.add(move)
            if self._near_score(move).better_than(self._near_score(chosen)):
                chosen = move
        return chosen

    def _near_score(self, chosen: Chosen) -> Score:
        if chosen not in self._near_scores:
            self._near_scores[chosen] = self._near(self._model_of(chosen), cancel=self.cancel)
        return self._near_scores[chosen]

    def _moves(self, chosen: Chosen, budget: float) -> Iterator[Chosen]:
        """Choices within the budget in which one group gets more and one fewer bits (or nothing
        but one of both), those of the least sum of losses first."""
        loss = self.problem.loss
        singles = [
            (group, candidate)
            for group, allowed in enumerate(self.allowed)
            for candidate in allowed
            if candidate != chosen[group]
        ]

        def added(place: tuple[int, int]) -> float:
            return float(loss[place] - loss[place[0], chosen[place[0]]])

        better = sorted((s for s in singles if added(s) < 0), key=added)[:PROMISING]
        worse = sorted((s for s in singles if added(s) >= 0), key=added)[:PROMISING]
        moves = [(one,) for one in singles] + [
            (one, other) for one in better for other in worse if one[0] != other[0]
        ]
        for move in sorted(moves, key=lambda move: sum(map(added, move))):
            changed = list(chosen)
            for group, candidate in move:
                changed[group] = candidate
            if self.costs.of(changed) <= budget:
                yield tuple(changed)

    # -- choosing --------------------------------------------------------------------------------

    def best(self) -> MeasuredChoice:
        """The choice that the aim asks for; the best there is where none reaches the target."""
        points = [p for p in self.points.values() if p.cost <= self.limit * (1 + 1e-6)]
        good = [point for point in points if point.score.value >= self.target]
        if self.options.aim is Aim.DROP and good:
            return min(good, key=lambda p: (p.cost, [-part for part in p.score.rank]))
        return max(points, key=lambda p: (p.score.rank, -p.cost))

    def front(self) -> tuple[MeasuredChoice, ...]:
        """The points that no cheaper or equally cheap one is better than or as good as, by cost."""
        found: list[MeasuredChoice] = []
        for point in sorted(
            self.points.values(), key=lambda p: (p.cost, [-part for part in p.score.rank])
        ):
            if not found or point.score.better_than(found[-1].score):
                found.append(point)
        return tuple(found)
