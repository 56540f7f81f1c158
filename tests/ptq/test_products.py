"""A weight's matrix times the rows that the layer reads is what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from product_models import calibrated, first_product, layer_model

from studio.ptq.products import product_of
from studio.runtime.session import float_session

LAYERS = {
    "conv": ("Conv", (2, 6, 9, 8), (4, 6, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    "grouped": ("Conv", (2, 6, 9, 8), (4, 3, 3, 2), {"group": 2, "dilations": [2, 1]}),
    "depthwise": ("Conv", (2, 6, 7, 7), (6, 1, 3, 3), {"group": 6, "auto_pad": "SAME_UPPER"}),
    "along time": ("Conv", (2, 3, 11), (5, 3, 4), {"auto_pad": "SAME_LOWER", "strides": [2]}),
    "in space": ("Conv", (1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {"pads": [0, 1, 0, 1, 0, 1]}),
    "transposed": (
        "ConvTranspose",
        (2, 4, 5, 6),
        (4, 3, 3, 3),
        {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
    ),
    "transposed, grouped": ("ConvTranspose", (2, 4, 7), (4, 3, 3), {"group": 2, "strides": [2]}),
    "gemm": ("Gemm", (6, 5), (7, 5), {"transB": 1}),
    "gemm by input": ("Gemm", (6, 5), (5, 7), {}),
    "matmul": ("MatMul", (2, 6, 5), (5, 4), {}),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_times_the_matrix_are_the_output(kind: str, tmp_path: Path) -> None:
    op, x_shape, w_shape, attributes = LAYERS[kind]
    model, feed = layer_model(tmp_path, op, x_shape, w_shape, attributes)
    product = first_product(model)
    weight = torch.tensor(model.graph.constant(product.weight))
    expected = torch.tensor(next(iter(float_session(model.graph).run(feed).values())))
    every = expected.numel()
    rows = product.rows(torch.tensor(feed["x"]), every, 0)
    found = torch.einsum("rgi,goi->rgo", rows, product.matrix(weight)).flatten(1)
    if op in ("Gemm", "MatMul"):
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
        expected = expected.reshape(-1, expected.shape[-1])[order]
    else:
        outputs = expected.flatten(2)
        places = len(outputs) * outputs.shape[2]
        order = torch.randperm(places, generator=torch.Generator().manual_seed(0))
        expected = outputs.transpose(1, 2).reshape(places, -1)[order]
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_matrix_goes_back_to_the_weight(kind: str, tmp_path: Path) -> None:
    op, x_shape, w_shape, attributes = LAYERS[kind]
    product = first_product(layer_model(tmp_path, op, x_shape, w_shape, attributes)[0])
    weight = torch.arange(float(np.prod(w_shape))).reshape(w_shape)
    torch.testing.assert_close(product.restored(product.matrix(weight), weight), weight)


@pytest.mark.parametrize("block", [0, 2])
def test_each_factor_has_the_scale_that_the_encoding_spreads(block: int, tmp_path: Path) -> None:
    model, _ = layer_model(
        tmp_path, "MatMul", (3, 5), (5, 4), {}, target="custom", weight_block_size=block
    )
    product = first_product(model)
    scales = torch.tensor(product.encoding.scale).reshape(-1)[product.owner()]
    spread = np.broadcast_to(product.encoding.spread(product.encoding.scale, (5, 4)), (5, 4))
    torch.testing.assert_close(scales[0], torch.tensor(spread.T.copy()))


def test_what_is_left_says_why(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Add", ["a", "y"], ["b"], "add"),
        helper.make_node("MatMul", ["b", "w"], ["z"], "again"),
    ]
    weights = {"w": np.eye(4, dtype=np.float32)}
    model, _ = calibrated(tmp_path, nodes, {"x": (3, 4), "y": (3, 4)}, {"z": (3, 4)}, weights)
    found = {layer.name: product_of(model, layer) for layer in model.plan.layers}
    assert found["again"] == "shares its weight with first"
    assert found["add"] == ""
    assert found["x"] == ""
