"""Learning rates over a training."""

from __future__ import annotations

import math

import pytest
import torch

from studio.qat.options import Schedule
from studio.qat.schedule import rate_share


def test_cosine_after_a_linear_warm_up() -> None:
    shares = [rate_share(Schedule.COSINE, 0.1, step, 100) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    for step in (10, 40, 99):
        expected = (1 + math.cos(math.pi * (step - 10) / 90)) / 2
        assert shares[step] == pytest.approx(expected)


def test_steps_linear_and_constant() -> None:
    step = [rate_share(Schedule.STEP, 0.0, i, 100) for i in (0, 49, 50, 74, 75, 99)]
    assert step == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    assert rate_share(Schedule.LINEAR, 0.0, 25, 100) == 0.75
    assert rate_share(Schedule.CONSTANT, 0.0, 99, 100) == 1.0


def test_one_cycle_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 1.0)
    total = 200
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total, cycle_momentum=False)
    for step in range(total):
        share = rate_share(Schedule.ONE_CYCLE, 0.0, step, total)
        assert share == pytest.approx(optimizer.param_groups[0]["lr"], abs=0.02)
        optimizer.step()
        if step + 1 < total:
            torchs.step()
