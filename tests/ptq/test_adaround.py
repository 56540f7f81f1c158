"""AdaRound: constants of the paper's formulas, and that it repairs few bits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "qat"))
from qat_models import digits_model, digits_samples

from studio.errors import CancelledError
from studio.jobs.events import CancelToken, silent
from studio.ptq.adaround import adaround, beta_at, rectified_sigmoid
from studio.ptq.options import AdaRoundOptions
from studio.qat.options import Ranges
from studio.qat.simulation import TrainedSimulation
from studio.qat.train import measure
from studio.quant.grid import Grid
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome

FEW = AdaRoundOptions(samples=200, iterations=500)


def top1(model: QuantizedModel) -> float:
    simulation = TrainedSimulation(model, Ranges.FIXED, torch.device("cpu"))
    return measure(simulation, model, digits_samples().validation, 60)[1]


@pytest.fixture(scope="module")
def before() -> QuantizedModel:
    return digits_model(2, 8)


@pytest.fixture(scope="module")
def outcome(before: QuantizedModel) -> Outcome:
    return adaround(before, digits_samples(), FEW, silent, CancelToken())


def test_the_annealing_has_the_published_value() -> None:
    options = AdaRoundOptions(iterations=10000)
    assert beta_at(8000, options) == pytest.approx(4.636038969321072)
    assert beta_at(2000, options) == 20.0
    assert beta_at(10000, options) == 2.0


def test_the_rectified_sigmoid_reaches_both_ends() -> None:
    v = torch.tensor([-10.0, 0.0, 10.0])
    torch.testing.assert_close(rectified_sigmoid(v), torch.tensor([0.0, 0.5, 1.0]))


def test_two_bit_weights_are_repaired(before: QuantizedModel, outcome: Outcome) -> None:
    assert top1(before) < 40
    assert top1(outcome.model) > 85
    assert all(row.after >= row.before for row in outcome.rows)  # type: ignore[operator]
    assert {row.layer for row in outcome.rows} == {
        layer.name for layer in before.plan.layers if layer.weights
    }


def test_weights_move_by_less_than_a_step_and_lie_on_the_grid(
    before: QuantizedModel, outcome: Outcome
) -> None:
    moved = 0
    for name, encoding in outcome.model.given.items():
        assert encoding == before.encodings[name]
        assert isinstance(encoding.grid, Grid)
        old, new = before.graph.constant(name), outcome.model.graph.constant(name)
        np.testing.assert_array_equal(encoding.quantize_dequantize(new), new)
        scale = encoding.spread(encoding.scale, old.shape)
        lowest = encoding.spread(encoding.minimum, old.shape)
        highest = encoding.spread(encoding.maximum, old.shape)
        inside = (old > lowest) & (old < highest)
        assert (np.abs(new - old) / scale)[inside].max() < 1 + 1e-4
        moved += int((new != encoding.quantize_dequantize(old)).sum())
    assert moved > 100


def test_cancelled(before: QuantizedModel) -> None:
    token = CancelToken()
    with pytest.raises(CancelledError):
        adaround(before, digits_samples(), FEW, lambda _: token.cancel(), token)
