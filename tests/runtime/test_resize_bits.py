"""Bilinear interpolation equals onnxruntime's bit for bit: quantized values make ties common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import studio
from studio.runtime.executor import Executor
from studio.runtime.session import Optimizations, Session


@pytest.mark.parametrize("mode", ["half_pixel", "pytorch_half_pixel", "align_corners"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (8, 8), (17, 33), (16, 32)])
def test_the_same_bits(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode=mode
    )
    node.name = "resize"
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, *size])],
        [numpy_helper.from_array(np.array([2, 3, *size]), "sizes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "resize.onnx"
    path.write_bytes(model.SerializeToString())

    prepared = studio.open_model(path)
    steps = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16)) - 100
    x = (steps * np.float32(0.0371)).astype(np.float32)
    with torch.inference_mode():
        ours = Executor(prepared).run({"x": x}, ["y"])["y"].numpy()
    theirs = Session(path, optimizations=Optimizations.NONE).run({"x": x}, ["y"])["y"]
    assert np.array_equal(ours, theirs)
