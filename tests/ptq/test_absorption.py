"""High-bias absorption: exact where values never fall below what is absorbed, smaller ranges."""

from __future__ import annotations

import numpy as np
import pytest
from chain_models import Net, calibrated, feeds, samples
from scipy import stats

from studio.errors import CancelledError
from studio.graph.additions import additions_of
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, silent
from studio.ptq.absorption import absorption
from studio.ptq.correction_options import AbsorptionOptions, EqualizationOptions
from studio.ptq.equalization import equalization
from studio.runtime.session import float_session
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome


def high_biases(
    activation: str, bias: float, *, pads: bool = False, last: str = "Conv"
) -> ModelGraph:
    """Two layers; all channels between them are `bias` higher than random ones."""
    net = Net(1, spread=0.5).layer("Conv", 6)
    net.constants[net.nodes[-1].input[2]] += np.float32(bias)
    if activation == "Clip":
        bounds = [net.constant("bound", np.float32(value)) for value in (0.0, bias + 1.0)]
        net.add("Clip", *bounds)
    else:
        net.activation(activation)
    if last == "Gemm":
        return net.add("GlobalAveragePool").add("Flatten").matrix("Gemm", 3, 6).graph()
    net.layer(last, 4)
    if not pads:
        pads_of = next(a for a in net.nodes[-1].attribute if a.name == "pads")
        net.nodes[-1].attribute.remove(pads_of)
    return net.graph()


def outputs(graph: ModelGraph, count: int = 32, seed: int = 1) -> np.ndarray:
    return next(iter(float_session(graph).run(feeds(graph, count, seed)).values()))


def absorbed(model: QuantizedModel, **options: object) -> Outcome:
    given = AbsorptionOptions.model_validate(options)
    return absorption(model, samples(model.graph), given, silent, CancelToken())


def close(before: ModelGraph, after: ModelGraph, seed: int = 1) -> None:
    expected = outputs(before, seed=seed)
    atol = 2e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(outputs(after, seed=seed), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("last", ["Conv", "Gemm", "Grouped"])
@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_what_is_never_below_moves_exactly(activation: str, last: str) -> None:
    model = calibrated(high_biases(activation, 9.0, last=last))
    outcome = absorbed(model, exact=True)
    after = outcome.model
    close(model.graph, after.graph)
    assert "6 channels of 1 layers" in outcome.summary
    (row,) = [row for row in outcome.rows if row.before is not None]
    assert row.after is not None
    assert row.after < 0.8 * row.before
    clips = additions_of(after.graph).clips
    assert bool(clips) == (activation == "Clip")
    for _, upper in clips.values():
        assert (upper > 0).all()
        assert (upper < 10).all()


def test_nothing_between_both_layers_is_always_exact() -> None:
    """The mean of either sign moves; for samples never seen too."""
    model = calibrated(high_biases("", -9.0))
    outcome = absorbed(model)
    close(model.graph, outcome.model.graph, seed=7)
    (row,) = [row for row in outcome.rows if row.before is not None]
    assert row.after is not None
    assert row.before is not None
    assert row.after < 0.8 * row.before


def test_three_deviations_cut_off_what_they_say() -> None:
    """Of normally distributed sums 0.135% lie below m - 3 d; the output moves by no more than what
    is cut off there."""
    model = calibrated(high_biases("Relu", 3.0))
    outcome = absorbed(model)
    graph = model.graph
    conv = next(node for node in graph.nodes() if node.op_type == "Conv")
    name = conv.outputs[0].name or ""
    y = float_session(graph, [name]).run(feeds(graph, 32), [name])[name]
    amount = y.mean((0, 2, 3)) - 3 * y.std((0, 2, 3))
    moved = amount > 0
    assert moved.any()
    below = (y < amount.reshape(1, -1, 1, 1))[:, moved].mean()
    assert below < 4 * stats.norm.cdf(-3)
    bias = conv.inputs[2]
    assert bias is not None
    before = graph.constant(bias.name or "")
    found = before - outcome.model.graph.constant(bias.name or "")
    np.testing.assert_allclose(found, np.maximum(amount, 0), rtol=1e-3, atol=1e-3)
    exact, changed = outputs(graph), outputs(outcome.model.graph)
    assert np.abs(exact - changed).mean() < 0.01 * np.abs(exact).mean()


def test_zeros_that_are_padded_with_are_no_values() -> None:
    model = calibrated(high_biases("Relu", 9.0, pads=True))
    outcome = absorbed(model)
    assert outcome.model is model
    assert any("pads with zeros" in row.what for row in outcome.rows)


@pytest.mark.parametrize(
    ("activation", "last", "reason"),
    [
        ("LeakyRelu", "Conv", "does not keep differences"),
        ("Relu", "ConvTranspose", "unequally often"),
    ],
)
def test_others_are_left_with_the_reason(activation: str, last: str, reason: str) -> None:
    model = calibrated(high_biases(activation, 9.0, last=last))
    outcome = absorbed(model)
    assert outcome.model is model
    assert any(reason in row.what for row in outcome.rows)


def test_after_equalization_limits_move_too() -> None:
    model = calibrated(high_biases("Clip", 9.0))
    data = samples(model.graph)
    equal = equalization(model, data, EqualizationOptions(), silent, CancelToken()).model
    outcome = absorbed(equal, exact=True)
    close(model.graph, outcome.model.graph)
    (name,) = additions_of(equal.graph).clips
    before, after = (additions_of(m.graph).clips[name][1] for m in (equal, outcome.model))
    assert (after < before).all()


def test_low_biases_change_nothing() -> None:
    model = calibrated(high_biases("Relu", 0.0))
    outcome = absorbed(model)
    assert outcome.model is model
    assert "nothing is changed" in outcome.summary


def test_cancelled() -> None:
    model = calibrated(high_biases("Relu", 9.0))
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        absorption(model, samples(model.graph), AbsorptionOptions(), silent, token)
