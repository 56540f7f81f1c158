"""AutoQuant on the digits example: it stops when it may, and never makes worse."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "qat"))
from qat_models import digits_model, digits_samples

from studio.analysis.score import Scorer
from studio.errors import CancelledError, DataError
from studio.jobs.events import CancelToken, Event, Progress, silent
from studio.ptq import technique as declared
from studio.ptq.autoquant import autoquant
from studio.ptq.options import AutoQuantOptions, Trial
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Options, Outcome, Samples, Technique


@pytest.fixture(scope="module")
def samples() -> Samples:
    return digits_samples()


@pytest.fixture(scope="module")
def coarse() -> QuantizedModel:
    return digits_model(2, 4)


@pytest.fixture(scope="module")
def judge(coarse: QuantizedModel) -> Scorer:
    return Scorer(coarse.graph, digits_samples().validation, batch_size=60)


def run(model: QuantizedModel, samples: Samples, **options: object) -> Outcome:
    tried = options.pop("techniques", list(Trial))
    without = [trial for trial in Trial if trial not in tried]  # type: ignore[operator]
    chosen = AutoQuantOptions.model_validate({**options, "without": without})
    return autoquant(model, samples, chosen, silent, CancelToken())


def bits(model: QuantizedModel, weight: int) -> QuantizedModel:
    return model.changed(config=model.config.with_defaults(weight_bits=weight, act_bits=8))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Replaces the techniques by functions of the model; gives the list of those that were run."""

    def replace_them(**functions: Callable[[QuantizedModel], QuantizedModel]) -> list[str]:
        seen: list[str] = []

        def technique(name: str) -> Technique:
            def apply(model: QuantizedModel, *_: Any) -> Outcome:
                seen.append(name)
                return Outcome(functions[name](model), f"what {name} did")

            return Technique(name, name.title(), "", Options, lambda: apply)

        monkeypatch.setattr(declared, "TECHNIQUES", tuple(map(technique, functions)))
        return seen

    return replace_them


def test_nothing_is_done_where_nothing_is_wrong(samples: Samples, known) -> None:
    seen = known(equalization=lambda model: bits(model, 2))
    model = digits_model(8, 8)
    outcome = run(model, samples, allowed_drop=1.0)
    assert outcome.model is model
    assert seen == []
    assert "good enough as it is" in outcome.summary


def test_it_stops_as_soon_as_the_target_is_met(
    coarse: QuantizedModel, samples: Samples, known
) -> None:
    seen = known(
        equalization=lambda model: model,
        bias_correction=lambda model: bits(model, 8),
        sequential_mse=lambda model: bits(model, 8),
        adaround=lambda model: bits(model, 8),
    )
    outcome = run(coarse, samples, allowed_drop=1.0)
    assert seen == ["equalization", "bias_correction"]
    assert outcome.model.config.defaults.weight_bits == 8
    assert outcome.chart is not None
    assert outcome.chart.points[-1].chosen
    assert outcome.chart.points[-1].y >= outcome.chart.target  # type: ignore[operator]
    titles = [row.layer for row in outcome.rows]
    assert titles[:2] == ["Weights alone", "Activations alone"]
    assert titles[-1] == "Bias_Correction"


def test_what_makes_worse_is_not_kept(
    coarse: QuantizedModel, samples: Samples, judge: Scorer, known
) -> None:
    """Also what comes later starts from the best."""
    bases: list[QuantizedModel] = []

    def destroy(model: QuantizedModel) -> QuantizedModel:
        bases.append(model)
        defaults = {"weight_bits": 2, "act_bits": 2}
        return model.changed(config=model.config.with_defaults(**defaults))

    seen = known(
        equalization=destroy, bias_correction=destroy, sequential_mse=destroy, adaround=destroy
    )
    trials = ["equalization", "bias_correction", "sequential_mse", "adaround"]
    outcome = run(coarse, samples, allowed_drop=0.0, techniques=trials)
    assert seen == trials, "AdaRound is not run twice on the same model"
    assert outcome.model is coarse
    assert all(base is coarse for base in bases)
    assert "nothing was better" in outcome.summary
    assert all("left" in row.what for row in outcome.rows[2:])
    assert outcome.chart is not None
    assert [point.aside for point in outcome.chart.points] == [False, *[True] * 4]
    assert outcome.chart.points[0].chosen


def test_observers_and_bits_bring_it_back(
    coarse: QuantizedModel, samples: Samples, judge: Scorer
) -> None:
    """What really is there, but for the slow ones."""
    trials = ["observers", "mixed_precision"]
    outcome = run(coarse, samples, allowed_drop=1.0, techniques=trials)
    assert outcome.chart is not None
    assert outcome.chart.target == pytest.approx(judge.float_score.value - 1.0)
    score = judge(outcome.model)
    assert score.value >= outcome.chart.target
    chosen = next(point for point in outcome.chart.points if point.chosen)
    assert chosen.y == pytest.approx(score.value)
    assert judge(coarse).value < 40
    steps = {row.layer: row for row in outcome.rows}
    assert "for weights" in steps["Observers"].what
    assert steps["Weights alone"].after < steps["Activations alone"].after  # type: ignore[operator]
    assert "on 360 samples" in outcome.summary


def test_activations_that_alone_miss_it_get_bits_first(samples: Samples, known) -> None:
    seen = known(adaround=lambda model: model)
    model = digits_model(8, 2)
    outcome = run(model, samples, allowed_drop=1.0, techniques=["mixed_precision", "adaround"])
    assert seen == []
    assert {layer.act_bits for layer in outcome.model.config.layers.values()} >= {8}
    assert [row.layer for row in outcome.rows][2:] == ["Mixed precision"]


def test_the_time_is_kept_and_the_best_so_far_is_what_there_is(
    coarse: QuantizedModel, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, skipped = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + skipped[0])

    def endless(model: Any, given: Any, options: Any, emit: Any, cancel: CancelToken) -> Outcome:
        while True:  # a minute each time
            skipped[0] += 60.0
            cancel.check()

    forever = replace(declared.ADAROUND, load=lambda: endless)
    monkeypatch.setattr(declared, "TECHNIQUES", (forever,))
    trials = ["observers", "adaround"]
    outcome = run(coarse, samples, allowed_drop=0.0, minutes=20, techniques=trials)
    assert 15 * 60 < skipped[0] <= 20 * 60
    assert "the 20 minutes were over" in outcome.summary
    assert outcome.model is not coarse
    assert [row.layer for row in outcome.rows][2:] == ["Observers"]


def test_a_technique_that_cannot_be_applied_is_a_row(
    coarse: QuantizedModel, samples: Samples, known
) -> None:
    def refuse(model: QuantizedModel) -> QuantizedModel:
        raise DataError("There is nothing to equalize here.")

    seen = known(equalization=refuse, sequential_mse=lambda model: bits(model, 8))
    outcome = run(coarse, samples, allowed_drop=1.0)
    assert seen == ["equalization", "sequential_mse"]
    rows = {row.layer: row.what for row in outcome.rows}
    assert rows["Equalization"] == "cannot be applied: There is nothing to equalize here."


def test_cancelled(coarse: QuantizedModel, samples: Samples) -> None:
    token = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "AutoQuant":
            token.cancel()

    with pytest.raises(CancelledError):
        autoquant(coarse, samples, AutoQuantOptions(), emit, token)
