"""The best choice of candidates under a budget, by integer programming.

Each group of layers gets one candidate; the loss is the sum of the groups' own losses (as in
HAWQ-V3, Yao et al. 2021, arXiv 2011.10680), the cost at most the budget. Solved by HiGHS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from studio.ptq.bit_costs import Costs
from studio.ptq.quiet import quiet_library

SECONDS = 20.0
"""After which the best choice found so far is taken."""

Array = npt.NDArray[np.float64]
Chosen = tuple[int, ...]
"""The candidate of each group."""


@dataclass(frozen=True)
class Problem:
    """`loss[group, candidate]` is finite; `allowed[group]` are the candidates of a group."""

    loss: Array
    allowed: tuple[tuple[int, ...], ...]
    costs: Costs

    def loss_of(self, chosen: Sequence[int]) -> float:
        """The loss where group i has the candidate chosen[i]."""
        return sum(float(self.loss[group, candidate]) for group, candidate in enumerate(chosen))

    def prices(self, group: int, candidate: int) -> Array:
        """All that the cost depends on through this choice: its own, and with each of the others'.
        Nowhere larger is never dearer."""
        parts = [self.costs.single[group, [candidate]]]
        for pair in self.costs.pairs:
            if pair.first == group:
                parts.append(pair.table[candidate, list(self.allowed[pair.second])])
            if pair.second == group:
                parts.append(pair.table[list(self.allowed[pair.first]), candidate])
        return np.concatenate(parts)


def without_dominated(problem: Problem) -> Problem:
    """`problem` without candidates of a group that lose more and cost no less than another."""

    def kept(group: int, allowed: tuple[int, ...]) -> Iterator[int]:
        for one in allowed:
            worse = (
                _dominates(problem, group, other, one, other < one)
                for other in allowed
                if other != one
            )
            if not any(worse):
                yield one

    allowed = tuple(tuple(kept(group, some)) for group, some in enumerate(problem.allowed))
    return replace(problem, allowed=allowed)


def _dominates(problem: Problem, group: int, one: int, other: int, first: bool) -> bool:
    """True if `one` is nowhere worse than `other`; of equals the `first` wins."""
    loss = problem.loss[group, one] - problem.loss[group, other]
    price = problem.prices(group, one) - problem.prices(group, other)
    if loss > 0 or (price > 0).any():
        return False
    return bool(loss < 0 or (price < 0).any()) or first


def solve(problem: Problem, budget: float) -> Chosen | None:
    """The candidates with the least loss at a cost of at most `budget`; None if none is cheap
    enough."""
    problem = without_dominated(problem)
    found = _solve(problem, budget)
    # Losses far above the best one hide small differences from the solver: none of them is in the
    # best choice, so they can be left out and the rest solved with a finer scale.
    while found is not None:
        floor = _floor(problem)
        most = max(problem.loss_of(found) - float(floor.sum()), 0.0)
        allowed = tuple(
            tuple(c for c in some if problem.loss[g, c] - floor[g] <= most * (1 + 1e-6))
            for g, some in enumerate(problem.allowed)
        )
        before, problem = _spread(problem), replace(problem, allowed=allowed)
        if _spread(problem) > 0.1 * before:
            return found
        finer = _solve(problem, budget)
        if finer is None or problem.loss_of(finer) >= problem.loss_of(found):
            return found
        found = finer
    return None


def _floor(problem: Problem) -> Array:
    """The least loss of each group."""
    return np.array([min(problem.loss[g, c] for c in s) for g, s in enumerate(problem.allowed)])


def _spread(problem: Problem) -> float:
    """The largest loss of a candidate above the best of its group."""
    floor = _floor(problem)
    return max(
        float(problem.loss[g, c] - floor[g]) for g, some in enumerate(problem.allowed) for c in some
    )


def _solve(problem: Problem, budget: float) -> Chosen | None:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    costs, groups = problem.costs, len(problem.allowed)
    places = [(g, c) for g, allowed in enumerate(problem.allowed) for c in allowed]
    column = {place: index for index, place in enumerate(places)}
    entries: list[tuple[int, int, float]] = [(g, column[g, c], 1.0) for g, c in places]
    low, high = [1.0] * groups, [1.0] * groups
    price = [float(costs.single[place]) for place in places]
    # A pair's cost belongs to a product of two choices: for each combination of them a variable z
    # with z >= x + y - 1, which the budget keeps low.
    for pair in costs.pairs:
        for one in problem.allowed[pair.first]:
            for other in problem.allowed[pair.second]:
                row, z = len(low), len(price)
                price.append(float(pair.table[one, other]))
                entries += [
                    (row, z, 1.0),
                    (row, column[pair.first, one], -1.0),
                    (row, column[pair.second, other], -1.0),
                ]
                low.append(-1.0)
                high.append(np.inf)
    scale = max(*price, 1.0)
    entries += [(len(low), index, value / scale) for index, value in enumerate(price) if value]
    low.append(-np.inf)
    high.append((budget - costs.fixed) / scale)
    rows, columns, values = zip(*entries, strict=True)
    matrix = csr_array((values, (rows, columns)), shape=(len(low), len(price)))
    objective = np.zeros(len(price))
    floor, spread = _floor(problem), _spread(problem)
    objective[: len(places)] = [
        (problem.loss[g, c] - floor[g]) / (spread or 1.0) for g, c in places
    ]
    with quiet_library():
        found = milp(
            objective,
            integrality=(np.arange(len(price)) < len(places)).astype(int),
            bounds=Bounds(0.0, 1.0),
            constraints=LinearConstraint(matrix, low, high),
            options={"time_limit": SECONDS, "mip_rel_gap": 0.0},
        )
    if found.x is None:
        return None
    chosen = dict(place for place, value in zip(places, found.x, strict=False) if value > 0.5)
    result = tuple(chosen[group] for group in range(groups))
    # Its tolerance lets the budget be passed by some millionths.
    return result if costs.of(result) <= budget * (1 + 1e-6) else None


def cheapest(problem: Problem) -> Chosen:
    """The candidates that cost least, where one of each group costs no more than the others."""
    return tuple(
        min(allowed, key=lambda candidate: float(problem.prices(group, candidate).sum()))
        for group, allowed in enumerate(problem.allowed)
    )


def sweep(problem: Problem, count: int) -> tuple[Chosen, ...]:
    """The best choices for `count` budgets, evenly from the lowest cost to that of the least loss;
    each once, by cost."""
    least = solve(problem, np.inf)
    assert least is not None
    low, high = problem.costs.of(cheapest(problem)), problem.costs.of(least)
    found = {least}
    for budget in np.linspace(low, high, max(count, 2))[:-1]:
        chosen = solve(problem, float(budget))
        if chosen is not None:
            found.add(chosen)
    return tuple(sorted(found, key=problem.costs.of))
