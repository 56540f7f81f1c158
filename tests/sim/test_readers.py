"""Tensors that some nodes read rounded, and tensors ranged at inference: the simulation in torch
and the one in onnxruntime against the formulas."""

from __future__ import annotations

import numpy as np
import pytest
from block_graphs import resnet, transformer
from sim_graphs import batches, graph_of

from studio import QuantConfig, QuantSim
from studio.quant.encoding import Encoding
from studio.sim.simulator import simulating_executor


def rounded(x: np.ndarray, encoding: Encoding) -> np.ndarray:
    """QuantizeLinear, then DequantizeLinear, written out (per tensor or along an axis)."""
    shape = [1] * x.ndim
    if encoding.axis is not None:
        shape[encoding.axis] = -1
    scale, zero = encoding.scale.reshape(shape), encoding.zero_point.reshape(shape)
    steps = np.clip(np.rint(x / scale) + zero, encoding.grid.qmin, encoding.grid.qmax)
    return ((steps - zero) * scale).astype(np.float32)


def dynamic(x: np.ndarray) -> np.ndarray:
    """ONNX DynamicQuantizeLinear, then DequantizeLinear."""
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = np.float32((high - low) / np.float32(255))
    zero = np.rint(np.clip(-low / scale, 0, 255))
    return ((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)


def simulated(sim: QuantSim, x: np.ndarray, *names: str) -> list[np.ndarray]:
    executor = simulating_executor(sim.graph, sim.plan, sim.encodings)
    values = executor.run({"x": x}, names)
    return [values[name].numpy() for name in names]


RESIDUAL = """(float[n, 4, 8, 8] x) => (float[n, 4, 8, 8] y) {
    t = Relu(x)
    a = Conv(t, w)
    s = Add(a, t)
    y = Mul(s, t)
}"""


def test_a_tensor_rounded_for_some_of_its_readers() -> None:
    """The convolution and the shortcut read `t` rounded, the product reads it as it is."""
    graph = graph_of(RESIDUAL, w=(4, 4, 1, 1))
    sim = QuantSim(graph, QuantConfig(target="tensorrt"))
    data = batches(graph)
    sim.calibrate(data)
    names = {node.op_type: node.name for node in graph.nodes()}
    assert sim.plan.tensors["t"].read_by == {names["Conv"], names["Add"]}
    x = data[0]["x"]
    t = np.maximum(x, 0)
    tq = rounded(t, sim.encodings["t"])
    weight = rounded(graph.constant("w"), sim.encodings["w"])[:, :, 0, 0]
    a = np.einsum("oc,nchw->nohw", weight, tq)
    expected = (a + tq) * t
    actual, kept = simulated(sim, x, "y", "t")
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    np.testing.assert_array_equal(kept, t)
    np.testing.assert_allclose(np.asarray(sim(data[0])), expected, atol=1e-5)


def test_dynamic_products_with_a_residual_reader() -> None:
    graph = graph_of(
        """(float[n, 6, 8] x) => (float[n, 6, 8] y) {
            t = Neg(x)
            m = MatMul(t, w)
            y = Add(m, t)
        }""",
        w=(8, 8),
    )
    sim = QuantSim(graph, QuantConfig(target="onnxruntime-dynamic"))
    assert sim.plan.tensors["t"].dynamic
    rng = np.random.default_rng(3)
    sim.calibrate([{"x": rng.standard_normal((2, 6, 8)).astype(np.float32)}])
    assert "t" not in sim.encodings
    for size in (0.1, 1.0, 3.0):  # each range anew
        x = (size * rng.standard_normal((2, 6, 8))).astype(np.float32)
        t = -x
        weight = rounded(graph.constant("w"), sim.encodings["w"])
        expected = dynamic(t) @ weight + t
        (actual,) = simulated(sim, x, "y")
        np.testing.assert_allclose(actual, expected, atol=2e-5)
        np.testing.assert_allclose(np.asarray(sim({"x": x})), expected, atol=2e-5)


@pytest.mark.parametrize("target", ["onnxruntime-dynamic", "tensorrt", "weight-only"])
@pytest.mark.parametrize("make", [resnet, transformer])
def test_both_engines_simulate_alike(target: str, make) -> None:  # type: ignore[no-untyped-def]
    graph = make()
    sim = QuantSim(graph, QuantConfig(target=target))
    shape = [2, *(int(side) for side in list(graph.inputs[0].shape)[1:])]
    data = [{"x": np.random.default_rng(4).standard_normal(shape).astype(np.float32)}]
    sim.calibrate(data)
    (actual,) = simulated(sim, data[0]["x"], "y")
    np.testing.assert_allclose(actual, np.asarray(sim(data[0])), atol=1e-4)


def test_an_unquantized_reader_of_a_model_input() -> None:
    graph = graph_of(
        """(float[n, 4, 8, 8] x) => (float[n, 4, 8, 8] y) {
            a = Conv(x, w)
            y = Mul(a, x)
        }""",
        w=(4, 4, 1, 1),
    )
    sim = QuantSim(graph, QuantConfig(target="tensorrt"))
    data = batches(graph)
    sim.calibrate(data)
    x = data[0]["x"]
    weight = rounded(graph.constant("w"), sim.encodings["w"])[:, :, 0, 0]
    expected = np.einsum("oc,nchw->nohw", weight, rounded(x, sim.encodings["x"])) * x
    np.testing.assert_allclose(simulated(sim, x, "y")[0], expected, atol=1e-5)
