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
from studio.ptq.adaround import adaround
from studio.ptq.options import AdaRoundOptions
from studio.ptq.soft_rounding import beta_at, rectified_sigmoid
from studio.qat.options import Ranges
from studio.qat.simulation import TrainedSimulation
from studio.qat.train import measure
from studio.quant.grid import Grid
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome

FEW = AdaRoundOptions(samples=200)


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
    assert beta_at(8000, options, 10000) == pytest.approx(4.636038969321072)
    assert beta_at(2000, options, 10000) == 20.0
    assert beta_at(10000, options, 10000) == 2.0


def test_the_rectified_sigmoid_reaches_both_ends() -> None:
    v = torch.tensor([-10.0, 0.0, 10.0])
    torch.testing.assert_close(rectified_sigmoid(v), torch.tensor([0.0, 0.5, 1.0]))


def test_two_bit_weights_are_repaired(before: QuantizedModel, outcome: Outcome) -> None:
    assert top1(before) < 40
    assert top1(outcome.model) > 95
    assert all(row.after >= row.before for row in outcome.rows)  # type: ignore[operator]
    assert {row.layer for row in outcome.rows} == {
        layer.name for layer in before.plan.layers if layer.weights
    }


def test_weights_lie_on_the_grids_of_their_encodings(
    before: QuantizedModel, outcome: Outcome
) -> None:
    for name, encoding in outcome.model.given.items():
        assert isinstance(encoding.grid, Grid)
        assert encoding.grid == before.encodings[name].grid
        new = outcome.model.graph.constant(name)
        np.testing.assert_array_equal(encoding.quantize_dequantize(new), new)
        assert (new != before.encodings[name].quantize_dequantize(new)).any()


def test_ranges_and_biases_stay_where_that_is_asked(before: QuantizedModel) -> None:
    options = AdaRoundOptions(samples=60, ranges=False, biases=False)
    made = adaround(before, digits_samples(), options, silent, CancelToken()).model
    assert dict(made.given) == {name: before.encodings[name] for name in made.given}
    for layer in before.plan.layers:
        if layer.bias is not None:
            old = before.graph.constant(layer.bias)
            np.testing.assert_array_equal(made.graph.constant(layer.bias), old)


def test_learning_is_kept_only_where_it_is_better(before: QuantizedModel) -> None:
    options = AdaRoundOptions(samples=60, iterations=100, damping=0.1)
    learned = adaround(before, digits_samples(), options, silent, CancelToken())
    assert top1(learned.model) > 90
    for name, encoding in learned.model.given.items():
        new = learned.model.graph.constant(name)
        np.testing.assert_array_equal(encoding.quantize_dequantize(new), new)


def test_cancelled(before: QuantizedModel) -> None:
    token = CancelToken()
    with pytest.raises(CancelledError):
        adaround(before, digits_samples(), FEW, lambda _: token.cancel(), token)
