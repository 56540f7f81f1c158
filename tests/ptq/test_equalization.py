"""Cross-layer equalization: float outputs stay, ranges become equal, rounding hurts less."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from chain_models import Net, calibrated, chains, feeds, mobile_net, samples
from hypothesis import HealthCheck, given, settings

sys.path.append(str(Path(__file__).parents[1] / "sim"))
from sim_graphs import conv_net, graph_of

from studio.analysis.evaluate import simulated_session
from studio.errors import CancelledError
from studio.graph.additions import additions_of
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, silent
from studio.ptq.correction_options import EqualizationOptions, Objective
from studio.ptq.equalization import equal_ranges, equalization, linked_layers, scaled
from studio.ptq.links import find_links
from studio.runtime.session import float_session
from studio.sim.quantized_model import QuantizedModel, with_constants


def outputs(graph: ModelGraph, seed: int = 1) -> np.ndarray:
    return next(iter(float_session(graph).run(feeds(graph, 8, seed)).values()))


def same(before: ModelGraph, after: ModelGraph, seed: int = 1) -> None:
    expected = outputs(before, seed)
    largest = max(float(np.abs(expected).max()), 1e-6)
    np.testing.assert_allclose(outputs(after, seed), expected, rtol=0, atol=1e-5 * largest)


def matrices(graph: ModelGraph, links: list) -> dict[str, np.ndarray]:
    layers = linked_layers(links)
    return {name: item.matrix(graph.constant(item.weight)) for name, item in layers.items()}


def sqnr(model: QuantizedModel) -> float:
    expected = outputs(model.graph)
    session = simulated_session(model.graph, model.plan, model.encodings)
    found = next(iter(session.run(feeds(model.graph, 8)).values()))
    return 10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum())


def equalized(model: QuantizedModel, **options: object) -> QuantizedModel:
    given = EqualizationOptions.model_validate(options)
    return equalization(model, samples(model.graph), given, silent, CancelToken()).model


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(graph=chains())
def test_float_outputs_stay_for_any_scales(graph: ModelGraph) -> None:
    links, _ = find_links(graph)
    rng = np.random.default_rng(0)
    scales = [np.exp(rng.uniform(-2, 2, link.channels)) for link in links]
    changed, moved = scaled(graph, links, scales)
    same(graph, changed)
    same(graph, changed, seed=2)  # calibration never saw these
    assert moved or not links
    for link in links:
        name = link.second.weight
        assert not np.array_equal(changed.constant(name), graph.constant(name))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(graph=chains())
def test_powers_of_two_change_no_bit(graph: ModelGraph) -> None:
    """Nothing but float rounding ever differs: where that does not either, outputs are equal."""
    links, _ = find_links(graph)
    rng = np.random.default_rng(0)
    scales = [2.0 ** rng.integers(-6, 7, link.channels) for link in links]
    changed, _ = scaled(graph, links, scales)
    np.testing.assert_array_equal(outputs(changed), outputs(graph))


def test_every_kind_of_layer_is_linked() -> None:
    net = Net(0)
    for kind in ("Conv", "Depthwise", "Conv", "ConvTranspose", "Grouped", "GroupedTranspose"):
        net.layer(kind, 4).activation("PRelu")
    net.between("MaxPool").add("Flatten").matrix("Gemm", 4, 4 * 36).activation("Relu")
    graph = net.matrix("MatMul", 3, 4).graph()
    links, left = find_links(graph)
    assert len(links) == 7
    assert links[5].repeat == 36
    assert list(left.values()) == ["its result leaves the model"]


def test_ranges_are_equal_afterwards() -> None:
    """At the fixed point no pair would be scaled again, in a chain of six layers."""
    graph = mobile_net()
    links, _ = find_links(graph)
    assert len(links) == 6
    scales = equal_ranges(links, matrices(graph, links), CancelToken())
    changed, _ = scaled(graph, links, scales)
    again, _ = find_links(changed)
    for link in again:
        first = link.first.matrix(changed.constant(link.first.weight))
        second = link.second.matrix(changed.constant(link.second.weight))
        gives = np.abs(first).max(axis=(2, 3)).reshape(-1)
        reads = np.abs(second).max(axis=(1, 3)).reshape(-1)
        np.testing.assert_allclose(gives, reads, rtol=5e-3)


def test_a_pair_has_the_published_scales() -> None:
    """s = sqrt(r1 r2) / r2 (eq. 11)."""
    graph = Net(3).layer("Conv", 4).activation("Relu").layer("Conv", 2).graph()
    links, _ = find_links(graph)
    (scale,) = equal_ranges(links, matrices(graph, links), CancelToken())
    first = np.abs(graph.constant(links[0].first.weight)).max(axis=(1, 2, 3))
    second = np.abs(graph.constant(links[0].second.weight)).max(axis=(0, 2, 3))
    np.testing.assert_allclose(scale, np.sqrt(first * second) / second, rtol=1e-6)


def test_a_triple_has_the_published_scales() -> None:
    """Convolution, depthwise, convolution: all three ranges become (r1 r2 r3)^(1/3)."""
    net = Net(4).layer("Conv", 4).activation("Relu").layer("Depthwise", 4).activation("Relu")
    graph = net.layer("Conv", 2).graph()
    links, _ = find_links(graph)
    scales = equal_ranges(links, matrices(graph, links), CancelToken())
    weights = [links[0].first.weight, links[0].second.weight, links[1].second.weight]
    r1, r2 = (np.abs(graph.constant(name)).max(axis=(1, 2, 3)) for name in weights[:2])
    r3 = np.abs(graph.constant(weights[2])).max(axis=(0, 2, 3))
    root = np.cbrt(r1 * r2 * r3)
    np.testing.assert_allclose(scales[0], r1 / root, rtol=5e-3)
    np.testing.assert_allclose(scales[1], root / r3, rtol=5e-3)


def distorted(clip: str) -> tuple[QuantizedModel, QuantizedModel]:
    """A network with channels of like ranges, and one that computes the same with very different
    ones."""
    graph = mobile_net(spread=0.3, clip=clip)
    links, _ = find_links(graph)
    rng = np.random.default_rng(0)
    scales = [np.exp(rng.uniform(-3, 3, link.channels)) for link in links]
    other, _ = scaled(graph, links, scales)
    per_tensor = {"weight_per_channel": False}
    return calibrated(graph, **per_tensor), calibrated(other, **per_tensor)


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("clip", ["Relu", "Clip06"])
def test_ranges_that_differ_are_repaired(clip: str, objective: Objective) -> None:
    even, uneven = distorted(clip)
    assert sqnr(uneven) < sqnr(even) - 10
    after = equalized(uneven, objective=objective)
    same(uneven.graph, after.graph)
    assert sqnr(after) > sqnr(even) - 2
    assert set(after.encodings) >= set(uneven.encodings)
    assert bool(additions_of(after.graph).clips) == (clip != "Relu")


def test_clips_can_be_left() -> None:
    model = calibrated(mobile_net())
    outcome = equalization(
        model, samples(model.graph), EqualizationOptions(clips=False), silent, CancelToken()
    )
    assert not additions_of(outcome.model.graph)
    left = [row for row in outcome.rows if "is left as it is" in row.what]
    assert len(left) == 4
    assert "2 pairs" in outcome.summary


def test_once_more_changes_limits_that_are_there() -> None:
    model = calibrated(mobile_net())
    once = equalized(model)
    name = find_links(once.graph)[0][0].first.weight
    other = once.changed(constants={name: 3 * once.graph.constant(name)})
    twice = equalized(other)
    same(other.graph, twice.graph)
    assert additions_of(twice.graph).clips.keys() == additions_of(once.graph).clips.keys()
    name = next(iter(additions_of(once.graph).clips))
    before, after = (additions_of(m.graph).clips[name][1] for m in (once, twice))
    assert not np.allclose(before, after)


def test_shortcuts_are_left_with_the_reason() -> None:
    model = calibrated_conv_net()
    outcome = equalization(
        model, samples(model.graph), EqualizationOptions(), silent, CancelToken()
    )
    reasons = {row.layer: row.what for row in outcome.rows if row.what.startswith("not linked")}
    assert any("is read by 2 operators" in text for text in reasons.values())
    assert any("joins them with another branch" in text for text in reasons.values())
    same(model.graph, outcome.model.graph)


def calibrated_conv_net() -> QuantizedModel:
    return calibrated(conv_net())


def test_nothing_to_do_changes_nothing() -> None:
    graph = graph_of(
        "(float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) { a = Conv(x, w)  y = Sigmoid(a) }",
        w=(4, 3, 1, 1),
    )
    model = calibrated(graph)
    outcome = equalization(model, samples(graph), EqualizationOptions(), silent, CancelToken())
    assert outcome.model is model
    assert "nothing is changed" in outcome.summary
    assert "Sigmoid" in outcome.rows[0].what


def test_dead_channels_stay() -> None:
    graph = mobile_net()
    links, _ = find_links(graph)
    name = links[0].first.weight
    dead = graph.constant(name).copy()
    dead[2] = 0
    graph = with_constants(graph, {name: dead})
    links, _ = find_links(graph)
    scales = equal_ranges(links, matrices(graph, links), CancelToken())
    assert scales[0][2] == 1
    same(graph, scaled(graph, links, scales)[0])


def test_cancelled() -> None:
    model = calibrated(mobile_net())
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        equalization(model, samples(model.graph), EqualizationOptions(), silent, token)
