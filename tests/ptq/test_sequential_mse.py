"""Sequential MSE: the ranges found are the best of the candidates, by brute force."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "qat"))
from product_models import Feed, calibrated, first_product, layer_model, samples_of
from qat_models import digits_model, digits_samples

from studio.errors import CancelledError
from studio.jobs.events import CancelToken, silent
from studio.ptq.gram import gram_of
from studio.ptq.options import Inputs, SequentialMseOptions
from studio.ptq.sequential_mse import candidates, sequential_mse
from studio.ptq.walk import Walk
from studio.qat.options import Ranges
from studio.qat.simulation import TrainedSimulation
from studio.qat.train import measure
from studio.quant.encoding import Encoding
from studio.sim.quantized_model import QuantizedModel
from studio.sim.simulator import simulating_executor
from studio.techniques.technique import Outcome

FEW = SequentialMseOptions(candidates=8, inputs=Inputs.QUANTIZED)


def correlated(count: int, width: int) -> Feed:
    """Inputs of few directions, some of them large."""
    rng = np.random.default_rng(3)
    mixed = rng.standard_normal((count, width)) @ rng.standard_normal((width, width)) ** 3
    return {"x": mixed.astype(np.float32)}


def run(model: QuantizedModel, feed: Feed, options: SequentialMseOptions = FEW) -> Outcome:
    return sequential_mse(model, samples_of(feed), options, silent, CancelToken())


def errors(model: QuantizedModel, feed: Feed, encoding: Encoding) -> np.ndarray:
    """Squared error of each output of y = x @ w, read as the simulation rounds x."""
    weight = model.graph.constant("w").astype(np.float64)
    rounded = encoding.quantize_dequantize(model.graph.constant("w")).astype(np.float64)
    x = feed["x"]
    if "x" in model.encodings:
        x = model.encodings["x"].quantize_dequantize(x)
    return np.square(x.astype(np.float64) @ (rounded - weight)).sum(0)


@pytest.mark.parametrize("symmetric", [True, False])
def test_each_channel_gets_the_best_candidate(symmetric: bool, tmp_path: Path) -> None:
    feed = correlated(64, 6)
    model, _ = layer_model(
        tmp_path,
        "MatMul",
        (64, 6),
        (6, 5),
        {},
        feed,
        target="custom",
        weight_bits=3,
        weight_symmetric=symmetric,
    )
    before = model.encodings["w"]
    found = run(model, feed).model.encodings["w"]
    tried = candidates(before, torch.tensor(model.graph.constant("w")), FEW.candidates)
    assert tried.count == 9
    every = np.stack(
        [
            errors(model, feed, replace(before, scale=scale, zero_point=zero))
            for scale, zero in zip(tried.scale, tried.zero_point, strict=True)
        ]
    )
    np.testing.assert_allclose(errors(model, feed, found), every.min(0), rtol=1e-4)
    assert (every.min(0) < 0.9 * every[0]).any()


def test_a_tensor_gets_the_best_candidate(tmp_path: Path) -> None:
    feed = correlated(64, 6)
    settings = {"target": "custom", "weight_bits": 3, "weight_per_channel": False}
    model, _ = layer_model(tmp_path, "MatMul", (64, 6), (6, 5), {}, feed, **settings)
    before = model.encodings["w"]
    found = run(model, feed).model.encodings["w"]
    assert found.scale.shape == ()
    tried = candidates(before, torch.tensor(model.graph.constant("w")), FEW.candidates)
    every = [
        errors(model, feed, replace(before, scale=scale.reshape(()))).sum() for scale in tried.scale
    ]
    assert errors(model, feed, found).sum() == pytest.approx(min(every), rel=1e-4)


@pytest.mark.parametrize("lpbq", [False, True])
def test_no_block_alone_could_be_chosen_better(lpbq: bool, tmp_path: Path) -> None:
    feed = correlated(64, 8)
    settings = {"target": "custom", "weight_bits": 3, "weight_block_size": 4, "weight_lpbq": lpbq}
    model, _ = layer_model(tmp_path, "MatMul", (64, 8), (8, 5), {}, feed, **settings)
    before = model.encodings["w"]
    found = run(model, feed).model.encodings["w"]
    least = errors(model, feed, found)
    assert least.sum() < errors(model, feed, before).sum()
    tried = candidates(before, torch.tensor(model.graph.constant("w")), FEW.candidates)
    assert tried.count == 9  # of LPBQ: 3 bits, 8 integers
    last = 1  # the other block was chosen with the one before it in view
    for scale in tried.scale:
        other = found.scale.copy()
        other[last] = scale.reshape(found.scale.shape)[last]
        changed = replace(found, scale=other, integer_scale=None)
        assert (errors(model, feed, changed) > least * (1 - 1e-3)).all()
    if lpbq:
        assert found.integer_scale is not None
        np.testing.assert_array_equal(found.channel_scale, before.channel_scale)
        np.testing.assert_array_equal(
            found.scale, found.channel_scale * found.integer_scale.astype(np.float32)
        )


@pytest.mark.parametrize("inputs", list(Inputs))
@pytest.mark.parametrize("group", [1, 4])
def test_the_error_is_that_of_the_layer(inputs: Inputs, group: int, tmp_path: Path) -> None:
    """A convolution behind a rounded one, against torch."""
    from onnx import helper

    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w"], ["y"], "second", group=group, pads=[1, 1, 1, 1]),
    ]
    constants = {
        "v": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "w": rng.standard_normal((4, 4 // group, 3, 3)).astype(np.float32),
    }
    model, feed = calibrated(
        tmp_path, nodes, {"x": (6, 3, 8, 8)}, {"y": (6, 4, 6, 6)}, constants, weight_bits=4
    )
    walk = Walk(model, samples_of(feed), 6, CancelToken())
    layer = model.plan.layers[-1]
    for other in model.plan.layers[:-1]:
        walk.advance(other, {})
    product = replace_first(model, "w")
    assert product.layer is layer
    gram = gram_of(walk, product, inputs, 10**6)
    wanted = torch.tensor(constants["w"])
    matrix = torch.tensor(model.encodings["w"].quantize_dequantize(constants["w"]))
    simulated = simulating_executor(model.graph, model.plan, model.encodings)
    from studio.runtime.executor import Executor

    own = {"quantized": simulated, "float": Executor(model.graph), "both": simulated}[inputs]
    other_engine = simulated if inputs is Inputs.QUANTIZED else Executor(model.graph)
    x, x_wanted = (engine.run(feed, ["r"])["r"].double() for engine in (own, other_engine))
    conv = torch.nn.functional.conv2d
    made = conv(x, matrix.double(), padding=1, groups=group)
    right = conv(x_wanted, wanted.double(), padding=1, groups=group)
    count = 6 * 6 * 6
    found = gram.loss(product.matrix(matrix), product.matrix(wanted)) * count
    expected = (made - right).square().sum((0, 2, 3))
    torch.testing.assert_close(found.reshape(-1), expected, rtol=1e-3, atol=1e-6)
    signal = gram.signal(product.matrix(wanted)) * count
    torch.testing.assert_close(
        signal.reshape(-1), right.square().sum((0, 2, 3)), rtol=1e-4, atol=1e-6
    )


def replace_first(model: QuantizedModel, weight: str):  # type: ignore[no-untyped-def]
    from studio.ptq.products import Product, product_of

    found = (product_of(model, layer) for layer in model.plan.layers)
    return next(item for item in found if isinstance(item, Product) and item.weight == weight)


def test_two_bit_weights_are_repaired() -> None:
    before = digits_model(2, 8)
    options = SequentialMseOptions(samples=200)
    outcome = sequential_mse(before, digits_samples(), options, silent, CancelToken())

    def top1(model: QuantizedModel) -> float:
        simulation = TrainedSimulation(model, Ranges.FIXED, torch.device("cpu"))
        return measure(simulation, model, digits_samples().validation, 60)[1]

    assert top1(before) < 40
    assert top1(outcome.model) > 60
    assert all(row.after >= row.before for row in outcome.rows)  # type: ignore[operator]
    assert outcome.model.graph is before.graph
    for name, encoding in outcome.model.given.items():
        assert outcome.model.encodings[name] == encoding


def test_weights_without_a_range_are_left(tmp_path: Path) -> None:
    model, feed = layer_model(
        tmp_path, "MatMul", (8, 6), (6, 5), {}, target="custom", weight_format="float16"
    )
    outcome = run(model, feed)
    assert outcome.summary == "no weight has a range to choose"
    assert [row.what for row in outcome.rows] == ["MatMul; left: float16 has no range"]
    assert outcome.model.encodings == model.encodings


def test_cancelled(tmp_path: Path) -> None:
    model, feed = layer_model(tmp_path, "MatMul", (8, 6), (6, 5), {})
    token = CancelToken()
    with pytest.raises(CancelledError):
        sequential_mse(model, samples_of(feed), FEW, lambda _: token.cancel(), token)


def test_first_product_is_the_layer(tmp_path: Path) -> None:
    model, _ = layer_model(tmp_path, "MatMul", (8, 6), (6, 5), {})
    assert first_product(model).layer.name == "layer"
