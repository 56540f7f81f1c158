"""Coordinate descent finds the best roundings there are, as trying all of them does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from studio.jobs.events import CancelToken
from studio.ptq.descent import descend
from studio.ptq.gptq import Steps, inverse_factor, round_columns
from studio.quant.grid import Grid


def problem(seed: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor, Steps]:
    """A weight (2 groups, 3 outputs), the form of its error, and a coarse grid."""
    rng = np.random.default_rng(seed)
    rows = torch.tensor(rng.standard_normal((2, 40, inputs)), dtype=torch.float32)
    rows = rows + 1.5 * rows.mean(2, keepdim=True)  # inputs that go together
    form = rows.transpose(1, 2) @ rows / 40
    aim = torch.tensor(rng.standard_normal((2, 3, inputs)), dtype=torch.float32)
    scale = torch.full_like(aim, 0.7)
    low, high = torch.full_like(aim, -4.0), torch.full_like(aim, 3.0)
    return aim, form, Steps(Grid(3, signed=True, symmetric=True), scale, low, high)


def loss(matrix: torch.Tensor, aim: torch.Tensor, form: torch.Tensor) -> torch.Tensor:
    change = (matrix - aim).double()
    return ((change @ form.double()) * change).sum(2)


def best_of_all(aim: torch.Tensor, form: torch.Tensor, steps: Steps) -> torch.Tensor:
    floor = torch.floor(aim / steps.scale)
    best = torch.full(aim.shape[:2], float("inf"), dtype=torch.float64)
    for up in itertools.product((0.0, 1.0), repeat=aim.shape[2]):
        numbers = (floor + torch.tensor(up)).clamp(-4, 3)
        best = torch.minimum(best, loss(numbers * steps.scale, aim, form))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_close_to_the_best_of_all_roundings(seed: int) -> None:
    aim, form, steps = problem(seed, 8)
    nearest = torch.stack([steps.nearest(i, aim[..., i]) for i in range(8)], -1)
    inverse = inverse_factor(form.double(), 0.001, by_activation=True)
    columns = round_columns(aim, inverse, steps, CancelToken())
    found = descend(columns, aim, form, steps, 20, CancelToken())
    assert (loss(found, aim, form) <= loss(columns, aim, form) + 1e-6).all()
    before, after = loss(nearest, aim, form), loss(found, aim, form)
    best = best_of_all(aim, form, steps)
    assert after.mean() < before.mean()
    assert after.mean() <= 1.25 * best.mean()


def test_no_single_weight_can_be_moved_to_advantage() -> None:
    aim, form, steps = problem(7, 130)  # more than two blocks of inputs
    found = descend(torch.zeros_like(aim), aim, form, steps, 50, CancelToken())
    reached = loss(found, aim, form)
    for column, by in itertools.product(range(130), (-1, 1)):
        moved = found.clone()
        moved[..., column] = (moved[..., column] + by * 0.7).clamp(-4 * 0.7, 3 * 0.7)
        assert (loss(moved, aim, form) >= reached - 1e-4).all()
