"""Integer programming against trying everything."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.ptq.bit_choice import Problem, cheapest, solve, sweep, without_dominated
from studio.ptq.bit_costs import Costs, Pair


def random_problem(seed: int, groups: int, candidates: int, pairs: int) -> Problem:
    """Losses over ten orders of magnitude; costs that grow with the candidate, as bits do."""
    random = np.random.default_rng(seed)
    loss = 10 ** random.uniform(-8, 2, (groups, candidates))
    loss[:, -1] = random.choice([0.0, 1e-6], groups)
    single = np.sort(random.integers(1, 1000, (groups, candidates)), axis=1).astype(float)
    found = []
    for _ in range(pairs):
        first, second = sorted(random.choice(groups, 2, replace=False).tolist())
        bits = np.sort(random.integers(2, 16, candidates)), np.sort(random.integers(2, 16, 3))
        table = np.outer(bits[0], np.resize(bits[1], candidates)).astype(float)
        found.append(Pair(first, second, np.sort(np.sort(table, 0), 1)))
    allowed = tuple(
        tuple(sorted(random.choice(candidates, random.integers(1, candidates + 1), False).tolist()))
        for _ in range(groups)
    )
    return Problem(loss, allowed, Costs(17.0, single, tuple(found)))


def tried(problem: Problem, budget: float) -> float | None:
    """The least loss of all choices within the budget."""
    losses = [
        problem.loss_of(chosen)
        for chosen in product(*problem.allowed)
        if problem.costs.of(chosen) <= budget
    ]
    return min(losses, default=None)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(2, 6),
    candidates=st.integers(2, 3),
    pairs=st.integers(0, 3),
    share=st.floats(-0.1, 1.1),
)
def test_no_choice_within_the_budget_is_better(seed, groups, candidates, pairs, share):
    problem = random_problem(seed, groups, candidates, pairs)
    costs = [problem.costs.of(chosen) for chosen in product(*problem.allowed)]
    budget = min(costs) + share * (max(costs) - min(costs))
    best, found = tried(problem, budget), solve(problem, budget)
    if found is None:
        assert best is None
        return
    assert best is not None
    assert all(c in allowed for c, allowed in zip(found, problem.allowed, strict=True))
    assert problem.costs.of(found) <= budget * (1 + 1e-6)
    assert problem.loss_of(found) == pytest.approx(best, rel=1e-6, abs=1e-12)


def test_small_losses_beside_a_huge_one_count():
    loss = np.array([[1e6, 0.0], [3e-6, 0.0], [2e-6, 0.0]])
    costs = Costs(0.0, np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]))
    problem = Problem(loss, ((0, 1),) * 3, costs)
    assert solve(problem, 5.0) == (1, 1, 0)
    assert solve(problem, 4.0) == (1, 0, 0)
    assert solve(problem, 2.9) is None


def test_dominated_candidates_go_and_equal_ones_leave_one():
    loss = np.array([[1.0, 2.0, 1.0], [3.0, 3.0, 0.0]])
    costs = Costs(0.0, np.array([[1.0, 1.0, 2.0], [4.0, 4.0, 5.0]]))
    problem = without_dominated(Problem(loss, ((0, 1, 2), (0, 1, 2)), costs))
    assert problem.allowed == ((0,), (0, 2))


def test_a_sweep_goes_from_the_cheapest_to_the_best():
    problem = random_problem(3, 6, 3, 0)
    found = sweep(problem, 12)
    costs = [problem.costs.of(chosen) for chosen in found]
    losses = [problem.loss_of(chosen) for chosen in found]
    assert len(found) > 3
    assert costs[0] == problem.costs.of(cheapest(problem))
    assert losses[-1] == sum(min(problem.loss[g, list(a)]) for g, a in enumerate(problem.allowed))
    assert costs == sorted(costs)
    assert losses == sorted(losses, reverse=True)
