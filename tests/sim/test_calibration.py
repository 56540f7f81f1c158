"""Calibration: statistics, encodings, ties, biases."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import onnx_ir as ir
import pytest
from sim_graphs import batches, conv_net, graph_of

from studio.errors import CancelledError, ConfigError, DataError
from studio.graph.model import ModelGraph
from studio.jobs import CancelToken, Progress, TensorRanges, silent
from studio.runtime import budget
from studio.runtime.session import float_session
from studio.sim import calibration
from studio.sim.calibration import collect_statistics
from studio.sim.config import ObserverName, QuantConfig
from studio.sim.encodings import LARGEST_BIAS, compute_encodings, rounded_weights
from studio.sim.placement import place
from studio.sim.plan import DYNAMIC
from studio.sim.probes import add_probes


def run(graph, data, emit=silent, cancel=None, names=None):
    plan = place(graph, QuantConfig())
    total = sum(len(next(iter(batch.values()))) for batch in data)
    return collect_statistics(
        graph, names or plan.observed, data, total, emit=emit, cancel=cancel or CancelToken()
    )


def true_ranges(graph, names, data):
    session = float_session(graph, [n for n in names if n not in {v.name for v in graph.inputs}])
    values = {name: [] for name in names}
    for batch in data:
        out = {**batch, **session.run(batch)}
        for name in names:
            values[name].append(out[name])
    return {
        name: (min(v.min() for v in vs), max(v.max() for v in vs)) for name, vs in values.items()
    }


@pytest.mark.parametrize("memory", [2**30, 3000])
def test_ranges_are_exact_within_any_memory_budget(memory: int, monkeypatch) -> None:
    graph = conv_net()
    data = batches(graph)
    names = place(graph, QuantConfig()).observed
    original = budget.BudgetedReader.__init__
    monkeypatch.setattr(
        budget.BudgetedReader, "__init__", lambda self, s, n: original(self, s, n, memory, memory)
    )
    statistics = run(graph, data)
    expected = true_ranges(graph, names, data)
    for name in names:
        assert (statistics[name].minimum, statistics[name].maximum) == pytest.approx(
            expected[name], rel=1e-5
        )
        assert statistics[name].counts.sum() > 0


def test_events_tell_progress_and_ranges_of_every_batch() -> None:
    graph = conv_net()
    events = []
    run(graph, batches(graph, count=3), emit=events.append)
    progress = [event for event in events if isinstance(event, Progress)]
    ranges = [event for event in events if isinstance(event, TensorRanges)]
    assert [(event.done, event.total) for event in progress] == [(8, 24), (16, 24), (24, 24)]
    assert [event.batch for event in ranges] == [0, 1, 2]
    assert ranges[-1].names == place(graph, QuantConfig()).observed
    widths = [np.subtract(event.maximum, event.minimum) for event in ranges]
    assert (widths[1] >= widths[0]).all()
    assert (widths[2] >= widths[1]).all()


def test_cancel_stops_at_the_next_batch() -> None:
    graph = conv_net()
    cancel = CancelToken()
    seen = []

    def data():
        for batch in batches(graph, count=5):
            seen.append(1)
            if len(seen) == 2:
                cancel.cancel()
            yield batch

    with pytest.raises(CancelledError):
        collect_statistics(graph, ["b"], data(), 40, emit=silent, cancel=cancel)
    assert len(seen) == 2


def test_nan_names_the_tensor() -> None:
    graph = conv_net()
    batch = batches(graph, count=1)[0]
    batch["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="tensor x"):
        run(graph, [batch])


def test_no_batch_is_an_error() -> None:
    with pytest.raises(DataError, match="no sample"):
        run(conv_net(), [])


def test_ties_and_biases_follow() -> None:
    graph = conv_net()
    plan = place(graph, QuantConfig())
    encodings = compute_encodings(graph, plan, run(graph, batches(graph)))
    assert set(encodings) == set(plan.quantized)
    assert encodings["e"] == encodings["d"]
    expected = encodings["j"].scale * encodings["w4"].scale
    np.testing.assert_array_equal(encodings["b4"].scale, expected)
    assert (encodings["b4"].zero_point == 0).all()


def test_bias_that_would_overflow_enlarges_the_weight_scale() -> None:
    graph = graph_of(
        """(float[n, 3] x) => (float[n, 2] y) { y = Gemm<transB = 1>(x, w, b) }""",
        w=(2, 3),
        b=(2,),
    )
    weight = graph.constant("w") * np.array([[1e-7], [1.0]], np.float32)
    graph.value("w").const_value = ir.tensor(weight.astype(np.float32), name="w")
    graph.value("b").const_value = ir.tensor(np.array([900.0, 0.1], np.float32), name="b")
    plan = place(graph, QuantConfig())
    data = [{"x": np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32) * 0.01}]
    encodings = compute_encodings(graph, plan, run(graph, data))
    integers = encodings["b"].quantize(graph.constant("b"))
    assert np.abs(integers).max() <= LARGEST_BIAS
    np.testing.assert_allclose(encodings["b"].dequantize(integers), [900.0, 0.1], rtol=1e-3)


def test_settings_change_encodings_without_data() -> None:
    graph = conv_net()
    statistics = run(graph, batches(graph))
    plans = [place(graph, QuantConfig().with_defaults(act_bits=bits)) for bits in (8, 4)]
    eight, four = (compute_encodings(graph, plan, statistics) for plan in plans)
    assert four["b"].scale > 8 * eight["b"].scale
    back = compute_encodings(graph, plans[0], statistics)
    assert all(back[name] == eight[name] for name in eight)


# --- what the methods need beside the range -------------------------------------------------------


def test_ranges_of_every_batch_are_kept_in_order() -> None:
    graph = conv_net()
    data = batches(graph, count=3)
    statistics = run(graph, data)
    for name in ("x", "b", "y"):
        expected = [true_ranges(graph, [name], [batch])[name] for batch in data]
        np.testing.assert_allclose(statistics[name].batch_ranges, expected, rtol=1e-5, atol=1e-7)


def test_the_two_highest_scores_of_every_sample_are_kept() -> None:
    """Of the model's output and of what its Softmax reads, and of nothing else."""
    graph = conv_net()
    data = batches(graph, count=2)
    statistics = run(graph, data, names=["b", "j", "k", "y"])
    session = float_session(graph, ["k"])
    for name in ("k", "y"):
        scores = np.concatenate([session.run(batch)[name] for batch in data])
        expected = np.sort(scores, axis=1)[:, :-3:-1]
        np.testing.assert_allclose(statistics[name].top_two, expected, rtol=1e-5)
    assert not len(statistics["b"].top_two)
    assert not len(statistics["j"].top_two)


def test_every_observer_follows_from_the_same_statistics() -> None:
    graph = conv_net()
    statistics = run(graph, batches(graph))
    scales = set()
    for observer in get_args(ObserverName):
        config = QuantConfig().with_defaults(
            act_observer=observer, weight_observer=observer, act_percentile=99.0
        )
        plan = place(graph, config)
        encodings = compute_encodings(graph, plan, statistics)
        assert set(encodings) == set(plan.quantized)
        scales.add((observer, float(encodings["x"].scale)))
    assert len({scale for _, scale in scales}) >= 5


# --- weights in place -----------------------------------------------------------------------------


def test_calibrating_with_rounded_weights_ranges_what_they_make() -> None:
    graph = conv_net()
    plan = place(graph, QuantConfig().with_defaults(weight_bits=3))
    data = batches(graph, count=1)
    rounded = rounded_weights(graph, plan)
    assert set(rounded) == {"w1", "w2", "w3", "w4"}
    before = graph.constant("w1").copy()
    plain, other = (
        collect_statistics(
            graph, ["g"], data, 8, weights=weights, emit=silent, cancel=CancelToken()
        )["g"]
        for weights in (None, rounded)
    )
    np.testing.assert_array_equal(graph.constant("w1"), before)
    replaced = graph.copy()
    for name, array in rounded.items():
        replaced.value(name).const_value = ir.tensor(array, name=name)
    low, high = true_ranges(replaced, ["g"], data)["g"]
    assert (other.minimum, other.maximum) == pytest.approx((low, high), rel=1e-5)
    assert abs(other.maximum - plain.maximum) > 1e-3 * plain.maximum


# --- probes ---------------------------------------------------------------------------------------


def large_net() -> ModelGraph:
    """Activations that are large for what is counted of them: behind Relu, Clip and neither."""
    return graph_of(
        """(float[n, 3, 96, 96] x) => (float[n, 8, 96, 96] y) {
            low = Constant<value_float = 0.0>()
            high = Constant<value_float = 1.5>()
            below = Constant<value_float = -1.0>()
            a = Conv<pads = [1, 1, 1, 1]>(x, w1)
            b = Relu(a)
            c = Conv<pads = [1, 1, 1, 1]>(b, w2)
            d = Clip(c, low, high)
            e = Conv<pads = [1, 1, 1, 1]>(d, w3)
            f = Clip(e, below, high)
            y = Conv<pads = [1, 1, 1, 1]>(f, w4)
        }""",
        w1=(8, 3, 3, 3),
        w2=(8, 8, 3, 3),
        w3=(8, 8, 3, 3),
        w4=(8, 8, 3, 3),
    )


def large_batches(count: int = 3, size: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((size, 3, 96, 96)).astype(np.float32)} for _ in range(count)]


def test_probes_stand_where_the_lower_end_is_known() -> None:
    graph = large_net()
    shapes = dict.fromkeys("bdfy", (1, 8, 96, 96))
    probed, probes = add_probes(graph, shapes, 1000)
    assert set(probes) == {"b", "d"}
    names = [name for probe in probes.values() for name in (probe.highest, probe.pixels)]
    values = float_session(probed, [*names, "b", "d"]).run(large_batches(1)[0])
    for name, probe in probes.items():
        whole = values[name]
        np.testing.assert_array_equal(values[probe.highest][..., 0, 0], whole.max(axis=(2, 3)))
        stride = int((8 * 96 * 96 / 1000) ** 0.5)
        np.testing.assert_array_equal(values[probe.pixels], whole[:, :, ::stride, ::stride])
        assert probe.skip == 1


def test_small_tensors_have_no_probes() -> None:
    graph = large_net()
    assert add_probes(graph, {"b": (1, 8, 96, 96)}, 8 * 96 * 96) == (graph, {})


def test_statistics_through_probes_equal_those_of_everything(monkeypatch) -> None:
    graph, data = large_net(), large_batches()
    names = ["b", "d", "f", "y"]
    monkeypatch.setattr(calibration, "COUNTED_PER_SAMPLE", (512, 1000))
    made = []

    def spy(*given):
        made.append(add_probes(*given))
        return made[-1]

    monkeypatch.setattr(calibration, "add_probes", spy)
    found = run(graph, data, names=names)
    assert len(made) == 1
    assert set(made[0][1]) == {"b", "d"}
    monkeypatch.setattr(calibration, "add_probes", lambda graph, *rest: (graph, {}))
    expected = run(graph, data, names=names)
    for name in names:
        assert found[name].minimum == pytest.approx(expected[name].minimum, abs=1e-6)
        assert found[name].maximum == pytest.approx(expected[name].maximum, rel=1e-6)
        np.testing.assert_allclose(
            found[name].batch_ranges, expected[name].batch_ranges, rtol=1e-5, atol=1e-6
        )
        shares = [np.cumsum(one[name].counts) / one[name].counts.sum() for one in (found, expected)]
        at = np.linspace(0, found[name].maximum, 40)
        curves = [
            np.interp(at, one[name].edges[1:], share)
            for one, share in zip((found, expected), shares, strict=True)
        ]
        np.testing.assert_allclose(*curves, atol=0.02)


def test_a_value_that_is_not_finite_is_found_behind_a_probe(monkeypatch) -> None:
    graph, data = large_net(), large_batches()
    monkeypatch.setattr(calibration, "COUNTED_PER_SAMPLE", (512, 1000))
    weight = graph.constant("w1").copy()
    weight[:] = np.abs(weight)
    graph.value("w1").const_value = ir.tensor(weight, name="w1")
    data[2]["x"][1, :, 40:44, 41:45] = 3e38
    with pytest.raises(DataError, match=r"tensor b, made by \S+ \(Relu\), takes infinite values"):
        run(graph, data, names=["b", "d", "y"])


# --- what cannot be quantized ---------------------------------------------------------------------


def test_infinity_names_the_layer_and_says_what_to_do() -> None:
    graph = graph_of(
        """(float[n, 4] x) => (float[n, 4] y) { a = Log(x)  y = Exp(a) }""",
    )
    with pytest.raises(DataError, match=r"tensor a, made by \S+ \(Log\), takes infinite") as caught:
        run(graph, [{"x": np.zeros((2, 4), np.float32)}], names=["a"])
    assert "mask" in caught.value.hint


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_a_weight_that_is_not_finite_is_named(value: float, kind: str) -> None:
    graph = conv_net()
    weight = graph.constant("w2").copy()
    weight[1, 0, 0, 0] = value
    graph.value("w2").const_value = ir.tensor(weight, name="w2")
    plan = place(graph, QuantConfig())
    layer = plan.tensors["w2"].layer
    with pytest.raises(ConfigError, match=rf"w2 of the layer {layer} .* 1 {kind} values of 36"):
        compute_encodings(graph, plan, {})


# --- biases ---------------------------------------------------------------------------------------


def test_room_for_a_bias_keeps_a_power_of_two() -> None:
    graph = graph_of(
        """(float[n, 3] x) => (float[n, 2] y) { y = Gemm<transB = 1>(x, w, b) }""",
        w=(2, 3),
        b=(2,),
    )
    weight = graph.constant("w") * np.array([[1e-7], [1.0]], np.float32)
    graph.value("w").const_value = ir.tensor(weight.astype(np.float32), name="w")
    graph.value("b").const_value = ir.tensor(np.array([900.0, 0.1], np.float32), name="b")
    plan = place(graph, QuantConfig().with_defaults(weight_power_of_two=True))
    data = [{"x": np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32) * 0.01}]
    encodings = compute_encodings(graph, plan, run(graph, data))
    assert (np.frexp(encodings["w"].scale)[0] == 0.5).all()
    assert np.abs(encodings["b"].quantize(graph.constant("b"))).max() <= LARGEST_BIAS


def test_dynamic_activations_have_no_encoding_and_their_bias_stays_float() -> None:
    graph = graph_of(
        """(float[n, 3] x) => (float[n, 2] y) { y = Gemm<transB = 1>(x, w, b) }""",
        w=(2, 3),
        b=(2,),
    )
    plan = place(graph, QuantConfig())
    dynamic = replace(plan.tensors["x"], spec=replace(plan.tensors["x"].spec, observer=DYNAMIC))
    plan = replace(plan, tensors={**plan.tensors, "x": dynamic})
    encodings = compute_encodings(graph, plan, {})
    assert set(encodings) == {"w"}


def test_the_bias_behind_blocks_takes_the_largest_scale() -> None:
    graph = graph_of(
        """(float[n, 8] x) => (float[n, 2] y) { y = Gemm<transB = 1>(x, w, b) }""",
        w=(2, 8),
        b=(2,),
    )
    plan = place(graph, QuantConfig())
    spec = replace(plan.tensors["w"].spec, axis=1, block_size=4)
    plan = replace(plan, tensors={**plan.tensors, "w": replace(plan.tensors["w"], spec=spec)})
    data = [{"x": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)}]
    encodings = compute_encodings(graph, plan, run(graph, data))
    assert encodings["w"].scale.shape == (2, 2)
    expected = encodings["x"].scale * encodings["w"].scale.max(axis=1)
    np.testing.assert_array_equal(encodings["b"].scale, expected)
