"""GPTQ against a slow reference in float64: Optimal Brain Surgeon's update, column by column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from product_models import Feed, first_product, layer_model, samples_of

from studio.errors import CancelledError
from studio.jobs.events import CancelToken, silent
from studio.ptq import gptq as module
from studio.ptq.gptq import Steps, gptq, inverse_factor, round_columns
from studio.ptq.gram import damped
from studio.ptq.options import GptqOptions, Inputs
from studio.sim.quantized_model import QuantizedModel

GRIDS: dict[str, dict[str, Any]] = {
    "channel": {},
    "asymmetric": {"weight_symmetric": False},
    "tensor": {"weight_per_channel": False},
    "block": {"weight_block_size": 4},
    "lpbq": {"weight_block_size": 4, "weight_lpbq": True},
    "power of two": {"weight_power_of_two": True},
    "float8": {"weight_format": "float8e4m3fn"},
}


def correlated(count: int, width: int, seed: int = 3) -> Feed:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((count, width)) @ rng.standard_normal((width, width))
    return {"x": mixed.astype(np.float32)}


def reference(
    weight: np.ndarray, hessian: np.ndarray, model: QuantizedModel, order: np.ndarray
) -> np.ndarray:
    """(outputs, inputs): each input rounded in turn, the rest moved by -e H^-1_j: / H^-1_jj, and
    the input taken out of H^-1 (Frantar et al., eq. 2 and 3)."""
    encoding = model.encodings["w"]
    free, inverse = weight.astype(np.float64).copy(), np.linalg.inv(hessian)
    made = np.zeros_like(free)
    left = list(range(len(order)))
    for column in order:
        at = left.index(column)
        whole = np.zeros_like(free)
        whole[:, column] = free[:, column]
        rounded = encoding.quantize_dequantize(whole.T.astype(np.float32)).T[:, column]
        made[:, column] = rounded
        error = (free[:, column] - rounded) / inverse[at, at]
        free[:, left] -= np.outer(error, inverse[at])
        inverse = inverse - np.outer(inverse[:, at], inverse[at]) / inverse[at, at]
        inverse = np.delete(np.delete(inverse, at, 0), at, 1)
        left.remove(column)
    return made


@pytest.mark.parametrize("by_activation", [False, True])
@pytest.mark.parametrize("kind", GRIDS)
def test_as_the_reference(
    kind: str, by_activation: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COLUMNS", 5)
    feed = correlated(80, 12)
    settings = {"target": "custom", "weight_bits": 3, **GRIDS[kind]}
    model, _ = layer_model(tmp_path, "MatMul", (80, 12), (12, 6), {}, feed, **settings)
    product = first_product(model)
    weight = torch.tensor(model.graph.constant("w"))
    x = feed["x"].astype(np.float64)
    own = torch.tensor(x.T @ x)[None]
    factor = inverse_factor(own, 0.01, by_activation)
    found = round_columns(product.matrix(weight), factor, Steps.of(product), CancelToken())
    expected = reference(
        weight.numpy().T, damped(own, 0.01)[0].numpy(), model, factor.order[0].numpy()
    )
    if by_activation:
        squares = own[0].diagonal().numpy()[factor.order[0].numpy()]
        assert (np.diff(squares) <= 0).all() and len(set(factor.order[0].tolist())) == 12
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", list(Inputs))
@pytest.mark.parametrize("kind", GRIDS)
def test_better_than_nearest_and_on_the_grid(kind: str, inputs: Inputs, tmp_path: Path) -> None:
    feed = correlated(200, 12)
    settings = {"target": "custom", "weight_bits": 3, **GRIDS[kind]}
    model, _ = layer_model(tmp_path, "MatMul", (200, 12), (12, 6), {}, feed, **settings)
    options = GptqOptions(samples=200, inputs=inputs)
    outcome = gptq(model, samples_of(feed), options, silent, CancelToken())
    encoding, weight = outcome.model.encodings["w"], outcome.model.graph.constant("w")
    assert encoding == model.encodings["w"]
    np.testing.assert_array_equal(encoding.quantize_dequantize(weight), weight)
    old = model.graph.constant("w")
    x = feed["x"].astype(np.float64)
    exact = x @ old.astype(np.float64)
    if inputs is not Inputs.FLOAT:
        x = model.encodings["x"].quantize_dequantize(feed["x"]).astype(np.float64)
    if inputs is Inputs.QUANTIZED:
        exact = x @ old.astype(np.float64)
    nearest = np.square(x @ encoding.quantize_dequantize(old) - exact).sum(0)
    after = np.square(x @ weight - exact).sum(0)
    assert (after <= nearest * (1 + 1e-6)).all()
    assert after.sum() < 0.8 * nearest.sum()
    (row,) = outcome.rows
    assert row.before == pytest.approx(
        10 * np.log10(np.square(exact).sum() / nearest.sum()), abs=0.01
    )
    assert row.after == pytest.approx(10 * np.log10(np.square(exact).sum() / after.sum()), abs=0.01)


@pytest.mark.parametrize(
    ("op", "x_shape", "w_shape", "attributes"),
    [
        ("Conv", (8, 6, 9, 9), (4, 6, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("Conv", (8, 6, 9, 9), (6, 1, 3, 3), {"group": 6}),
        ("Conv", (8, 6, 20), (4, 3, 3), {"group": 2}),
        ("ConvTranspose", (8, 4, 6, 6), (4, 3, 3, 3), {"strides": [2, 2]}),
        ("Gemm", (60, 8), (5, 8), {"transB": 1}),
    ],
)
def test_layers_of_all_kinds(
    op: str, x_shape: Any, w_shape: Any, attributes: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape)
    x = (x + 0.9 * np.roll(x, 1, -1) + 0.9 * np.roll(x, 1, 1)).astype(np.float32)
    model, feed = layer_model(
        tmp_path, op, x_shape, w_shape, attributes, {"x": x}, target="custom", weight_bits=3
    )
    outcome = gptq(
        model, samples_of(feed), GptqOptions(inputs=Inputs.QUANTIZED), silent, CancelToken()
    )
    (row,) = outcome.rows
    assert row.after is not None and row.before is not None
    assert row.after > row.before + 0.3
    weight = outcome.model.graph.constant("w")
    np.testing.assert_array_equal(outcome.model.encodings["w"].quantize_dequantize(weight), weight)
    # measured by another engine: the network's output came nearer by as much
    from studio.runtime.session import float_session

    exact = next(iter(float_session(model.graph).run(feed).values()))
    noise = []
    for other in (model, outcome.model):
        rounded = other.encodings["w"].quantize_dequantize(other.graph.constant("w"))
        rough = {"x": model.encodings["x"].quantize_dequantize(x)}
        run = float_session(other.changed(constants={"w": rounded}).graph).run(rough)
        same = float_session(model.graph).run(rough)
        noise.append(np.square(next(iter(run.values())) - next(iter(same.values()))).sum())
    gained = 10 * np.log10(noise[0] / noise[1])
    assert gained == pytest.approx(row.after - row.before, abs=0.02)
    assert exact.shape == next(iter(same.values())).shape


def test_inputs_that_are_never_there_do_no_harm(tmp_path: Path) -> None:
    feed = correlated(40, 8)
    feed["x"][:, [2, 5]] = 0
    model, _ = layer_model(tmp_path, "MatMul", (40, 8), (8, 3), {}, feed, weight_bits=4)
    outcome = gptq(model, samples_of(feed), GptqOptions(), silent, CancelToken())
    encoding, old = model.encodings["w"], model.graph.constant("w")
    np.testing.assert_array_equal(
        outcome.model.graph.constant("w")[[2, 5]], encoding.quantize_dequantize(old)[[2, 5]]
    )
    assert np.isfinite(outcome.model.graph.constant("w")).all()


def test_nothing_is_read(tmp_path: Path) -> None:
    feed = {"x": np.zeros((8, 6), np.float32)}
    model, _ = layer_model(tmp_path, "MatMul", (8, 6), (6, 5), {}, feed, weight_bits=4)
    outcome = gptq(model, samples_of(feed), GptqOptions(), silent, CancelToken())
    encoding, old = model.encodings["w"], model.graph.constant("w")
    np.testing.assert_array_equal(
        outcome.model.graph.constant("w"), encoding.quantize_dequantize(old)
    )


def test_cancelled(tmp_path: Path) -> None:
    model, feed = layer_model(tmp_path, "MatMul", (8, 6), (6, 5), {})
    token = CancelToken()
    with pytest.raises(CancelledError):
        gptq(model, samples_of(feed), GptqOptions(), lambda _: token.cancel(), token)
