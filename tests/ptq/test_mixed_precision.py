"""Mixed precision on the digits example: budgets, the curve, and what it says."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "qat"))
from qat_models import digits_data, digits_model, digits_samples

from studio.analysis.cost import layer_costs
from studio.analysis.score import Scorer
from studio.analysis.variants import quantizing
from studio.errors import CancelledError, ConfigError
from studio.jobs.events import CancelToken, Event, Progress, silent
from studio.ptq import mixed_precision as module
from studio.ptq.bit_search import BitSearch
from studio.ptq.mixed_precision import mixed_precision
from studio.ptq.options import MixedPrecisionOptions
from studio.sim.overrides import with_settings
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Samples, Technique

FEW = {"candidates": ("w2a8", "w4a8", "w8a8"), "points": 4, "refinements": 1, "evaluation": 180}


@pytest.fixture(scope="module")
def before() -> QuantizedModel:
    return digits_model(8, 8)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return digits_samples()


def run(model: QuantizedModel, samples: Samples, **options: object) -> Outcome:
    chosen = MixedPrecisionOptions.model_validate({**FEW, **options})
    return mixed_precision(model, samples, chosen, silent, CancelToken())


def size_of(model: QuantizedModel) -> int:
    return sum(cost.quantized_bytes for cost in layer_costs(model.graph, model.plan, {}))


def uniform(model: QuantizedModel, bits: int) -> QuantizedModel:
    return model.changed(config=model.config.with_defaults(weight_bits=bits))


def test_the_budget_holds_and_uniform_settings_are_no_better(
    before: QuantizedModel, samples: Samples
) -> None:
    outcome = run(before, samples, share=0.45)
    assert size_of(outcome.model) <= 0.45 * size_of(before)
    assert outcome.chart is not None
    points = outcome.chart.points
    assert {point.label for point in points} >= {"W2A8", "W8A8"}
    line = [point for point in points if not point.aside]
    assert [p.x for p in line] == sorted({p.x for p in line})
    assert [p.y for p in line] == sorted(p.y for p in line)
    chosen = next(point for point in points if point.chosen)
    smallest = next(point for point in points if point.label == "W2A8")
    assert chosen.x == pytest.approx(size_of(outcome.model) / 1e3)
    assert chosen.y > smallest.y + 20
    for label in ("W4A8", "W8A8"):
        other = next((point for point in points if point.label == label), None)
        if other is not None and other.x <= chosen.x:
            assert other.y <= chosen.y
    changed = {row.layer for row in outcome.rows if "→" in row.what}
    assert changed == set(outcome.model.config.layers)
    assert all(row.after >= row.before for row in outcome.rows if row.before and row.after)


def test_a_point_is_what_its_settings_give(before: QuantizedModel, samples: Samples) -> None:
    outcome = run(before, samples, share=0.5)
    assert outcome.chart is not None
    scorer = Scorer(before.graph, samples.validation, batch_size=60, limit=180)
    for point in outcome.chart.points:
        assert point.settings is not None
        config = with_settings(before.graph, before.config, point.settings)
        model = before.changed(config=config)
        assert size_of(model) / 1e3 == pytest.approx(point.x)
        assert scorer(model).value == pytest.approx(point.y)
        if point.chosen:
            assert model.config == outcome.model.config


def test_an_allowed_drop_gives_the_cheapest_that_is_good_enough(
    before: QuantizedModel, samples: Samples
) -> None:
    three = ("w3a8", "w4a8", "w8a8")
    outcome = run(before, samples, candidates=three, aim="drop", allowed_drop=3.0)
    assert outcome.chart is not None
    assert outcome.chart.target is not None
    good = [p for p in outcome.chart.points if p.y >= outcome.chart.target]
    chosen = next(point for point in outcome.chart.points if point.chosen)
    assert chosen in good
    assert chosen.x == min(point.x for point in good)
    assert chosen.x < size_of(uniform(before, 4)) / 1e3
    easy = run(before, samples, candidates=("w4a8", "w8a8"), aim="drop", allowed_drop=3.0)
    assert easy.chart is not None
    assert [point.label for point in easy.chart.points] == ["W4A8"], "nothing cheaper: no more"
    hopeless = run(before, samples, candidates=("w2a8", "w3a8"), aim="drop", allowed_drop=0.0)
    assert "no choice reaches" in hopeless.summary


def test_what_cannot_be_is_said(before: QuantizedModel, samples: Samples) -> None:
    with pytest.raises(ConfigError, match="No choice is cheap enough"):
        run(before, samples, share=0.1)
    with pytest.raises(ConfigError, match="megabytes is a size"):
        run(before, samples, megabytes=1.0, cost="bit_operations")
    off = before.changed(config=before.config.with_defaults(weight_enabled=False))
    with pytest.raises(ConfigError, match="come to the same"):
        run(off, samples)
    other = before.changed(config=before.config.with_target("qualcomm-htp"))
    with pytest.raises(ConfigError, match="there is nothing to choose"):
        run(other, samples, candidates=("w8a8", "w8a5"))


def test_bit_operations_without_labels(before: QuantizedModel, samples: Samples) -> None:
    class Unlabelled:
        def __init__(self, data):
            self._data = data

        def __getattr__(self, name):
            return getattr(self._data, name)

        def __len__(self):
            return len(self._data)

        def subset(self, count):
            return Unlabelled(self._data.subset(count))

        def batches(self, *args, **options):
            for batch in self._data.batches(*args, **options):
                yield replace(batch, labels=None)

    outcome = run(
        before,
        replace(samples, validation=Unlabelled(samples.validation)),
        candidates=("w4a4", "w8a8"),
        cost="bit_operations",
        aim="drop",
        wanted_sqnr=18.0,
    )
    assert outcome.chart is not None
    assert (outcome.chart.y, outcome.chart.target) == ("SQNR of the outputs, dB", 18.0)
    labels = {point.label: point for point in outcome.chart.points}
    # Every product has both operands at 4 bits, or both at 8.
    assert labels["W8A8"].x == pytest.approx(4 * labels["W4A4"].x)
    chosen = next(point for point in outcome.chart.points if point.chosen)
    assert 18.0 <= chosen.y <= labels["W8A8"].y
    assert chosen.x < labels["W8A8"].x


def test_losses_are_those_of_the_layer_alone(before: QuantizedModel, samples: Samples) -> None:
    options = MixedPrecisionOptions.model_validate({**FEW, "candidates": ("w3a8", "w8a8")})
    search = BitSearch(before, samples, options, silent, CancelToken())
    near = Scorer(before.graph, samples.calibration, batch_size=50, limit=64, labels=False)
    coarse = uniform(before, 3)
    for index in search.groups.free:
        (name,) = search.groups.groups[index].layers
        rounded = coarse.plan.layer(name).weights[0]
        alone = replace(coarse, plan=quantizing(coarse.plan, {rounded}))
        noise = 10 ** (-near(alone).sqnr_db / 10)
        assert search.problem.loss[index, 0] == pytest.approx(noise, rel=1e-3)


def test_swaps_never_cost_more_and_are_kept_if_nearer(
    before: QuantizedModel, samples: Samples
) -> None:
    plain = run(before, samples, refinements=0, share=0.45)
    better = run(before, samples, refinements=6, share=0.45)
    assert size_of(better.model) <= 0.45 * size_of(before)
    near = Scorer(before.graph, digits_data("calibration"), batch_size=50, limit=64, labels=False)
    assert near(better.model).value >= near(plain.model).value


def test_earlier_rounding_that_is_lost_is_said(before: QuantizedModel, samples: Samples) -> None:
    weights = [layer.weights[0] for layer in before.plan.layers if layer.weights]
    fitted = before.changed(encodings={name: before.encodings[name] for name in weights})
    outcome = run(fitted, samples, candidates=("w4a8", "w8a8"), share=0.6)
    kept = sum(outcome.model.encodings[name] == before.encodings[name] for name in weights)
    assert 0 < kept < len(weights)
    assert f"for {len(weights) - kept} tensors no longer fits" in outcome.summary.replace(
        "1 tensor ", "1 tensors "
    )


def test_rounding_again_is_kept_if_it_helps(
    before: QuantizedModel, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.ptq import technique

    def repair(model, given, options, emit, cancel):
        return Outcome(uniform(model.changed(config=before.config), 8), "repaired")

    def destroy(model, given, options, emit, cancel):
        return Outcome(uniform(model.changed(config=before.config), 2), "destroyed")

    def known(load) -> tuple[Technique, ...]:
        return (replace(technique.ADAROUND, load=lambda: load),)

    monkeypatch.setattr(technique, "TECHNIQUES", known(repair))
    outcome = run(before, samples, share=0.45, reround="adaround")
    assert "rounded again by AdaRound" in outcome.summary
    assert outcome.model.config == uniform(before, 8).config
    assert outcome.chart is not None
    assert outcome.chart.points[-1].label == module.REROUNDED
    monkeypatch.setattr(technique, "TECHNIQUES", known(destroy))
    outcome = run(before, samples, share=0.45, reround="adaround")
    assert "left out" in outcome.summary
    assert size_of(outcome.model) <= 0.45 * size_of(before)


def test_cancelled(before: QuantizedModel, samples: Samples) -> None:
    token = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "Measuring choices":
            token.cancel()

    options = MixedPrecisionOptions.model_validate(FEW)
    with pytest.raises(CancelledError):
        mixed_precision(before, samples, options, emit, token)
