"""The torch simulation: what is rounded for whom, how often, and when."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sim_graphs import graph_of

from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.fake_quantize import FakeQuantizer
from studio.quant.grid import FloatGrid, Grid
from studio.sim.plan import DYNAMIC, Plan, QuantSpec, Role, TensorPlan
from studio.sim.simulator import simulating_executor

U8 = Grid(8, signed=False, symmetric=False)
S4 = Grid(4, signed=True, symmetric=True)


@pytest.fixture
def graph() -> ModelGraph:
    """y = x @ w + x."""
    return graph_of(
        "(float[n, 8] x) => (float[n, 8] y) { h = MatMul(x, w) y = Add(h, x) }", w=(8, 8)
    )


def plan_of(rows: Mapping[str, tuple[Role, QuantSpec]], **read_by: frozenset[str]) -> Plan:
    tensors = {
        name: TensorPlan(name, role, "layer", spec, "", read_by=read_by.get(name))
        for name, (role, spec) in rows.items()
    }
    return Plan("test", (), tensors)


def x_of(size: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((size, 8)).astype(np.float32)


def run(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding], x: np.ndarray
) -> np.ndarray:
    executor = simulating_executor(graph, plan, encodings)
    with torch.inference_mode():
        return executor.run({"x": x})["y"].numpy()


def test_some_nodes_read_the_rounded_tensor_and_others_do_not(graph: ModelGraph) -> None:
    coarse = Grid(3, signed=False, symmetric=False)
    encodings = {"x": encoding_from_range(-2.0, 2.0, coarse)}
    rows = {"x": (Role.INPUT, QuantSpec(coarse, None, "minmax"))}
    x, w = x_of(), graph.constant("w")
    rounded = encodings["x"].quantize_dequantize(x)
    matmul, add = (node.name or "" for node in graph.nodes())
    for nodes, expected in (
        (None, rounded @ w + rounded),
        (frozenset([matmul]), rounded @ w + x),
        (frozenset([add]), x @ w + rounded),
    ):
        plan = plan_of(rows, **({"x": nodes} if nodes else {}))
        np.testing.assert_allclose(run(graph, plan, encodings, x), expected, atol=1e-5)


def test_dynamic_tensors_are_ranged_anew_every_time(graph: ModelGraph) -> None:
    plan = plan_of({"x": (Role.INPUT, QuantSpec(U8, None, DYNAMIC))})
    w = graph.constant("w")
    for factor in (1.0, 100.0):
        x = x_of() * np.float32(factor)
        rounded = encoding_from_range(x.min(), x.max(), U8).quantize_dequantize(x)
        expected = rounded @ w + rounded
        np.testing.assert_allclose(run(graph, plan, {}, x), expected, rtol=1e-5, atol=1e-5 * factor)


@pytest.mark.parametrize("grid", [S4, FloatGrid("float4e2m1", True)], ids=str)
@pytest.mark.parametrize("size", [4, 3])
def test_weights_in_blocks(graph: ModelGraph, grid: Grid | FloatGrid, size: int) -> None:
    w = graph.constant("w")
    starts = np.arange(0, 8, size)
    low, high = np.minimum.reduceat(w, starts, 0), np.maximum.reduceat(w, starts, 0)
    encodings = {"w": encoding_from_range(low, high, grid, 0, size)}
    plan = plan_of({"w": (Role.WEIGHT, QuantSpec(grid, 0, "minmax", block_size=size))})
    x = x_of()
    expected = x @ encodings["w"].quantize_dequantize(w) + x
    np.testing.assert_allclose(run(graph, plan, encodings, x), expected, atol=1e-5)


def test_weights_are_rounded_once_unless_they_are_trained(
    graph: ModelGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = FakeQuantizer.__call__
    monkeypatch.setattr(
        FakeQuantizer, "__call__", lambda self, x: calls.append(1) or original(self, x)
    )
    plan = plan_of({"w": (Role.WEIGHT, QuantSpec(S4, 1, "minmax"))})
    peak = np.abs(graph.constant("w")).max(axis=0)
    executor = simulating_executor(graph, plan, {"w": encoding_from_range(-peak, peak, S4, 1)})
    x = {"x": x_of()}
    with torch.inference_mode():
        for _ in range(3):
            executor.run(x)
    assert len(calls) == 1
    weight = executor.parameters["w"].requires_grad_()
    for count in (2, 3):
        executor.run(x)["y"].sum().backward()
        assert len(calls) == count
    # d sum(x @ w) / dw = the sums of x; every weight lies on the grid, and two passes add up.
    expected = np.broadcast_to(2 * x["x"].sum(0)[:, None], (8, 8))
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-5)
