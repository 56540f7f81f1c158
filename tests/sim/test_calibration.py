"""Calibration: statistics, encodings, ties, biases."""

from __future__ import annotations

import numpy as np
import pytest
from sim_graphs import batches, conv_net, graph_of

from studio.errors import CancelledError, DataError
from studio.jobs import CancelToken, Progress, TensorRanges, silent
from studio.runtime import budget
from studio.runtime.session import float_session
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import LARGEST_BIAS, compute_encodings
from studio.sim.placement import place


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
    import onnx_ir as ir

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
