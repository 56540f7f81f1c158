"""What techniques add to a graph: the same names and numbers, told again, placed without loss."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "sim"))
from sim_graphs import batches, conv_net, graph_of

from studio.analysis.evaluate import simulated_session
from studio.analysis.forecast import Runs, forecast
from studio.exporting.files import save_onnx
from studio.exporting.graphs import quantized_model as quantized_file
from studio.exporting.kernels import layer_kernels
from studio.exporting.options import DEFAULTS, export_form
from studio.graph.additions import Additions, additions_of, with_additions
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, silent
from studio.runtime.executor import Executor
from studio.runtime.session import Optimizations, Session, float_session
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.quantized_model import QuantizedModel, quantized_model
from studio.sim.target import load_target, target_names

LOWER = np.zeros((4, 1, 1), np.float32)
UPPER = np.array([0.2, 0.5, 6.0, 1.0], np.float32).reshape(4, 1, 1)


def clip_of(graph: ModelGraph) -> str:
    return next(node.name or "" for node in graph.nodes() if node.op_type == "Clip")


def limited(graph: ModelGraph, lower: np.ndarray = LOWER) -> ModelGraph:
    return with_additions(graph, Additions(clips={clip_of(graph): (lower, UPPER)}))


def calibrated(graph: ModelGraph, config: QuantConfig) -> QuantizedModel:
    tensors = place(graph, config).observed
    found = collect_statistics(
        graph, tensors, batches(graph), 32, emit=silent, cancel=CancelToken()
    )
    return quantized_model(graph, config, found, {})


def run(graph: ModelGraph, names: list[str]) -> dict[str, np.ndarray]:
    return float_session(graph, names).run(batches(graph)[0], names)


@pytest.mark.parametrize("lower", [LOWER, LOWER - 0.1, np.full_like(LOWER, -np.inf)])
def test_limits_are_a_clip_for_each_channel(lower: np.ndarray) -> None:
    graph = conv_net()
    after = limited(graph, lower)
    c, before = (run(graph, ["c", "d"])[name] for name in ("c", "d"))
    d = run(after, ["d"])["d"]
    np.testing.assert_array_equal(d, np.clip(c, lower, UPPER))
    assert (d != before).any()
    executed = Executor(after).run(batches(after)[0], ["d"])["d"].numpy()
    np.testing.assert_allclose(executed, d, atol=1e-5)
    np.testing.assert_array_equal(run(graph, ["d"])["d"], before)  # the old graph is as it was


def test_what_was_added_is_told_again() -> None:
    graph = conv_net()
    convolution = next(node.name or "" for node in graph.nodes() if len(node.inputs) == 2)
    gemm = next(node.name or "" for node in graph.nodes() if node.op_type == "Gemm")
    given = Additions(
        {clip_of(graph): (LOWER - 1, UPPER)},
        frozenset([convolution]),
        {gemm: np.arange(1, 5, dtype=np.float32), convolution: np.full(4, 0.5, np.float32)},
    )
    after = with_additions(graph, given)
    found = additions_of(after)
    assert not additions_of(graph)
    assert found.biases == given.biases
    assert found.scales.keys() == given.scales.keys()
    for name, scale in given.scales.items():
        np.testing.assert_array_equal(found.scales[name], scale)
    for name, limits in given.clips.items():
        np.testing.assert_array_equal(found.clips[name], limits)
    again = with_additions(graph, found)
    assert [node.name for node in again.nodes()] == [node.name for node in after.nodes()]
    assert set(again.initializers) == set(after.initializers)
    np.testing.assert_array_equal(run(again, ["y"])["y"], run(after, ["y"])["y"])
    added = next(node for node in after.nodes() if node.name == convolution)
    assert added.inputs[2] is not None
    np.testing.assert_array_equal(after.constant(added.inputs[2].name or ""), np.zeros(4))


def test_scaled_inputs() -> None:
    graph = conv_net()
    gemm = next(node for node in graph.nodes() if node.op_type == "Gemm")
    scale = np.array([1, 2, 3, 4], np.float32)
    after = with_additions(graph, Additions(scales={gemm.name or "": scale}))
    found = run(graph, ["j", "k"])
    weight = graph.constant(gemm.inputs[1].name or "")  # type: ignore[union-attr]
    expected = found["k"] + found["j"] * (scale - 1) @ weight.T
    np.testing.assert_allclose(run(after, ["k"])["k"], expected, rtol=1e-4, atol=1e-5)


def test_only_what_fits_is_added() -> None:
    graph = conv_net()
    with pytest.raises(KeyError):
        with_additions(graph, Additions(biases=frozenset(["nowhere"])))
    name = next(node.name or "" for node in graph.nodes() if node.op_type == "Conv")
    with pytest.raises(ValueError, match="is a Conv"):
        with_additions(graph, Additions(clips={name: (LOWER, UPPER)}))
    infinite = np.full_like(LOWER, np.inf)
    with pytest.raises(ValueError, match="are none"):
        with_additions(graph, Additions(clips={clip_of(graph): (-infinite, infinite)}))


@pytest.mark.parametrize("target", target_names())
def test_no_rounding_between_a_layer_and_its_limits_costs_anything(target: str) -> None:
    """What the layer gives has the encoding of the limited result, or none."""
    graph = limited(conv_net())
    plan = place(graph, QuantConfig(target=target))
    relu = next(node for node in graph.nodes() if node.name == clip_of(conv_net()))
    row, output = plan.tensors[relu.outputs[0].name or ""], plan.tensors["d"]
    assert relu.op_type == "Relu"
    assert row.spec is None or (row.tied_to, row.spec) == ("d", output.spec)
    limit = plan.tensors[f"{relu.name}.upper_limit"]
    assert limit.spec is None or limit.tied_to == "d"


def test_the_limits_have_the_settings_of_their_layer() -> None:
    graph = limited(conv_net())
    limited_by = graph.node(clip_of(conv_net())).outputs[0].name
    plain = place(graph, QuantConfig())
    name = next(layer.name for layer in plain.layers if limited_by in layer.outputs)
    config = QuantConfig().with_layers([name], act_bits=5)
    plan = place(graph, config)
    assert plan.tensors["d"].spec.grid.bits == 5  # type: ignore[union-attr]
    assert not any("matches no layer" in warning for warning in plan.warnings)
    limits = next(layer for layer in plan.layers if layer.outputs == ("d",))
    assert not limits.editable_act
    off = place(graph, QuantConfig().with_layers([name], act_enabled=False))
    assert off.tensors["d"].spec is None


def test_rounding_twice_is_rounding_once() -> None:
    """The simulation with limits behind the rounded Relu gives the rounded clipped values."""
    model = calibrated(limited(conv_net()), QuantConfig())
    session = simulated_session(model.graph, model.plan, model.encodings)
    assert session.run(batches(model.graph)[0])["y"].shape == (8, 5)
    encoding = model.encodings["d"]
    x = np.random.default_rng(0).uniform(0, 8, (2, 4, 3, 3)).astype(np.float32)
    twice = encoding.quantize_dequantize(np.minimum(encoding.quantize_dequantize(x), UPPER))
    np.testing.assert_array_equal(twice, encoding.quantize_dequantize(np.minimum(x, UPPER)))


def test_the_layer_stays_in_integers(tmp_path: Path) -> None:
    model = calibrated(limited(conv_net()), QuantConfig())
    target = load_target("onnxruntime")
    path, optimized = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    form = export_form(DEFAULTS, target.export)
    save_onnx(quantized_file(model.graph, model.plan, model.encodings, form), path)
    session = Session(path, optimizations=Optimizations.KERNELS, optimized_path=optimized)
    session.run(batches(model.graph)[0])
    kernels = layer_kernels(model.graph, model.plan, optimized)
    expected = forecast(model.graph, model.plan, target, model.encodings)
    for row in expected.layers:
        assert row.runs in (kernels[row.layer].runs, Runs.ABSORBED), row
    convolutions = [layer for layer in model.plan.layers if layer.ops[0] == "Conv"]
    assert len(convolutions) == 3
    assert {kernels[layer.name].kernel for layer in convolutions} == {"QLinearConv"}


def test_a_clip_behind_a_matrix() -> None:
    graph = graph_of(
        """(float[n, 3] x) => (float[n, 4] y) {
            low = Constant<value_float = 0.0>()
            high = Constant<value_float = 6.0>()
            a = Gemm(x, w)
            y = Clip(a, low, high)
        }""",
        w=(3, 4),
    )
    upper = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    after = with_additions(
        graph,
        Additions({clip_of(graph): (np.zeros_like(upper), upper)}, frozenset(["Gemm2"])),
    )
    feed = {"x": np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)}
    y = float_session(after).run(feed)["y"]
    expected = np.clip(feed["x"] @ graph.constant("w"), 0, upper)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert after.outputs[0].name == "y"
