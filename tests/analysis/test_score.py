"""The shared measure, against evaluation and closed forms."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "qat"))
from qat_models import digits_data, digits_model

from studio.analysis import score as module
from studio.analysis.evaluate import evaluate
from studio.analysis.score import Score, Scorer
from studio.errors import CancelledError, DataError
from studio.jobs.events import CancelToken, silent
from studio.sim.quantized_model import QuantizedModel


@pytest.fixture(scope="module")
def model() -> QuantizedModel:
    return digits_model(3, 4)


def score(values: list[float], metric: str = "top-1", sqnr: float = 10.0) -> Score:
    each = np.array(values)
    value = 100 * float(each.mean()) if metric == "top-1" else sqnr
    return Score(metric, value, sqnr, None, len(values), each)  # type: ignore[arg-type]


def test_it_is_what_evaluation_finds(model: QuantizedModel) -> None:
    data = digits_data("test")
    scorer = Scorer(model.graph, data, batch_size=32, limit=150)
    found = scorer(model)
    wanted = evaluate(
        model.graph,
        model.plan,
        model.encodings,
        data,
        original=model.graph,
        limit=150,
        batch_size=32,
        emit=silent,
        cancel=CancelToken(),
    )
    assert wanted.accuracy is not None
    assert wanted.float_accuracy is not None
    assert (found.metric, found.samples) == ("top-1", 150)
    assert found.value == pytest.approx(wanted.accuracy.top1)
    assert found.agreement == pytest.approx(wanted.agreement)
    assert found.sqnr_db == pytest.approx(wanted.output.sqnr_db, rel=1e-5)
    assert scorer.float_score.value == pytest.approx(wanted.float_accuracy.top1)
    assert scorer.float_score.sqnr_db == math.inf


def test_what_does_not_fit_in_memory_is_computed_again(
    model: QuantizedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = digits_data("test")
    whole = Scorer(model.graph, data, batch_size=50)(model)
    monkeypatch.setattr(module, "KEPT_BYTES", 60_000)
    scorer = Scorer(model.graph, data, batch_size=50)
    assert 0 < len(scorer._parts) < 8
    again = scorer(model)
    assert again.rank == pytest.approx(whole.rank)
    np.testing.assert_array_equal(again.each, whole.each)


def test_without_labels_it_is_the_distance_to_float(model: QuantizedModel) -> None:
    scorer = Scorer(model.graph, digits_data("test"), batch_size=60, labels=False)
    found = scorer(model)
    assert (found.metric, found.value) == ("SQNR", found.sqnr_db)
    assert scorer.float_score.value == math.inf
    assert found.value == pytest.approx(-10 * math.log10(found.each.mean()))
    assert scorer.float_score.better_than(found)


@pytest.mark.parametrize(
    ("change", "sqnr"),
    [
        (lambda y: y, math.inf),
        (lambda y: 1.1 * y, 20.0),
        (lambda y: np.full_like(y, np.nan), -math.inf),
        (lambda y: np.where(y == y.max(), np.inf, y), -math.inf),
        (lambda y: y[:, :5], -math.inf),
    ],
)
def test_outputs_at_the_edges(
    model: QuantizedModel, monkeypatch: pytest.MonkeyPatch, change, sqnr: float
) -> None:
    """Equal, known noise, not finite, another shape: never NaN, and always comparable."""
    scorer = Scorer(model.graph, digits_data("test"), batch_size=60)
    session = module.float_session(model.graph)

    def run(inputs, names):
        return {name: change(array) for name, array in session.run(inputs, names).items()}

    monkeypatch.setattr(module, "simulated_session", lambda *_: SimpleNamespace(run=run))
    found = scorer(model)
    assert found.sqnr_db == pytest.approx(sqnr, abs=1e-4)
    assert not math.isnan(found.value)
    assert not found.better_than(scorer.float_score)
    if sqnr > 0:
        assert found.value == scorer.float_score.value
    else:
        assert found.value < scorer.float_score.value
        assert scorer.float_score.better_than(found)


def test_of_equal_hits_the_nearer_to_float_is_better() -> None:
    near, far = score([1, 0, 1], sqnr=20.0), score([1, 1, 0], sqnr=10.0)
    assert near.better_than(far)
    assert not far.better_than(near)
    assert not near.better_than(near)
    assert score([1, 1, 1], sqnr=-math.inf).better_than(near)


def test_metrics_do_not_mix() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        score([1, 0]).better_than(score([1, 0], "SQNR"))


@pytest.mark.parametrize(
    ("lost", "won", "noise"), [(3, 0, True), (5, 0, False), (20, 10, True), (40, 10, False)]
)
def test_noise_of_hits_is_mcnemars_test(lost: int, won: int, noise: bool) -> None:
    """|b - c| <= 2 sqrt(b + c), nearly, for b hits lost and c won of many."""
    one = np.ones(1000)
    other = np.ones(1000)
    one[:won] = 0
    other[-lost:] = 0
    assert score(list(one)).within_noise(score(list(other))) is noise
    assert (abs(lost - won) <= 2 * math.sqrt(lost + won)) is noise


def test_no_sample_and_cancelled(model: QuantizedModel) -> None:
    data = digits_data("test")
    with pytest.raises(DataError, match="no sample"):
        Scorer(model.graph, data.select(np.zeros(0, np.int64)), batch_size=10)
    scorer = Scorer(model.graph, data, batch_size=10, limit=30)
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        scorer(model, cancel=token)
