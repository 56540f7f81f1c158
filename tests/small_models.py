"""Small ONNX models and data that tests of several packages quantize."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Shape = list[int | str | None]


def build(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]],
    constants: dict[str, np.ndarray],
    opset: int = 17,
) -> Path:
    """Write a model of `nodes`; inputs and outputs are name -> (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    domains = {node.domain for node in nodes} - {""}
    imports += [helper.make_opsetid(domain, 1) for domain in domains]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def numbers(seed: int, *shape: int) -> np.ndarray:
    """Normally distributed float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def conv_net(path: Path, batch: int | str = "N") -> Path:
    """Class scores (batch, 5) of images (batch, 3, 6, 6): Conv, Relu, Conv, Flatten, Gemm."""
    return build(
        path,
        [
            helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
            helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2"),
            helper.make_node("Flatten", ["c2"], ["flat"], "flatten"),
            helper.make_node("Gemm", ["flat", "w3", "b3"], ["scores"], "fc", transB=1),
        ],
        {"x": (FLOAT, [batch, 3, 6, 6])},
        {"scores": (FLOAT, [batch, 5])},
        {
            "w1": numbers(1, 4, 3, 3, 3),
            "b1": numbers(2, 4),
            "w2": numbers(3, 2, 4, 3, 3),
            "w3": numbers(4, 5, 32),
            "b3": numbers(5, 5),
        },
    )


def open_sizes(path: Path) -> Path:
    """y (h, M) of images (N, 3, h, w) of any size: Conv, then a Reshape by sizes computed."""
    return build(
        path,
        [
            helper.make_node("Conv", ["x", "w1"], ["c"], "conv"),
            helper.make_node("Shape", ["x"], ["s"], "shape"),
            helper.make_node("Gather", ["s", "second"], ["side_size"], "side"),
            helper.make_node("Concat", ["side_size", "rest"], ["both"], "sizes", axis=0),
            helper.make_node("Reshape", ["c", "both"], ["y"], "reshape"),
        ],
        {"x": (FLOAT, ["N", 3, "h", "w"])},
        {"y": (FLOAT, ["h", "M"])},
        {"w1": numbers(9, 4, 3, 1, 1), "second": np.array([2]), "rest": np.array([-1])},
    )


def linear(path: Path) -> Path:
    """scores (N, 3) = x (N, 4) @ w + b, as one Gemm."""
    return build(
        path,
        [helper.make_node("Gemm", ["x", "w", "b"], ["scores"], "fc")],
        {"x": (FLOAT, ["N", 4])},
        {"scores": (FLOAT, ["N", 3])},
        {"w": numbers(6, 4, 3), "b": numbers(7, 3)},
    )


def two_by_two(path: Path) -> Path:
    """Two inputs (N, 4), two outputs: `total` (N, 4) and `product` (N, 2)."""
    return build(
        path,
        [
            helper.make_node("Add", ["left", "right"], ["total"], "add"),
            helper.make_node("Mul", ["left", "right"], ["mixed"], "mul"),
            helper.make_node("MatMul", ["mixed", "w"], ["product"], "matmul"),
        ],
        {"left": (FLOAT, ["N", 4]), "right": (FLOAT, ["N", 4])},
        {"total": (FLOAT, ["N", 4]), "product": (FLOAT, ["N", 2])},
        {"w": numbers(8, 4, 2)},
    )


def transformer(path: Path, batch: int | str = "N") -> Path:
    """One attention block on 6 tokens out of 11: class scores (batch, 4) of int64 tokens."""
    width = 8
    constants = {
        "table": numbers(10, 11, width),
        "gain": np.ones(width, np.float32),
        "shift": np.zeros(width, np.float32),
        "wq": numbers(11, width, width),
        "wk": numbers(12, width, width),
        "wv": numbers(13, width, width),
        "head": numbers(14, width, 4),
        "root": np.array(width**0.5, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["embedded"], "embedding"),
        helper.make_node(
            "LayerNormalization", ["embedded", "gain", "shift"], ["normed"], "norm", axis=-1
        ),
        *(
            helper.make_node("MatMul", ["normed", f"w{part}"], [part], f"to_{part}")
            for part in "qkv"
        ),
        helper.make_node("Transpose", ["k"], ["kt"], "transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["similar"], "similarity"),
        helper.make_node("Div", ["similar", "root"], ["scaled"], "scale"),
        helper.make_node("Softmax", ["scaled"], ["weights"], "softmax", axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["mixed"], "attend"),
        helper.make_node("Add", ["mixed", "embedded"], ["residual"], "residual"),
        helper.make_node("ReduceMean", ["residual"], ["mean"], "pool", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["scores"], "classifier"),
    ]
    return build(
        path,
        nodes,
        {"tokens": (INT64, [batch, 6])},
        {"scores": (FLOAT, [batch, 4])},
        constants,
    )


def pixel_map(path: Path) -> Path:
    """A (N, 2, 6, 6) map, which is no class score, of images (N, 3, 6, 6)."""
    return build(
        path,
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", ["c"], ["map"], "sigmoid"),
        ],
        {"x": (FLOAT, ["N", 3, 6, 6])},
        {"map": (FLOAT, ["N", 2, 6, 6])},
        {"w": numbers(15, 2, 3, 3, 3)},
    )


def identity(path: Path) -> Path:
    """A model that returns its input (N, 4)."""
    return build(
        path,
        [helper.make_node("Identity", ["x"], ["y"], "same")],
        {"x": (FLOAT, ["N", 4])},
        {"y": (FLOAT, ["N", 4])},
        {},
    )


def integer_only(path: Path) -> Path:
    """Nothing to quantize: y = tokens + 1 in int64."""
    return build(
        path,
        [helper.make_node("Add", ["tokens", "one"], ["y"], "add")],
        {"tokens": (INT64, ["N", 6])},
        {"y": (INT64, ["N", 6])},
        {"one": np.array(1, np.int64)},
    )


def custom_op(path: Path) -> Path:
    """A model with an operator nobody knows."""
    return build(
        path,
        [
            helper.make_node("Relu", ["x"], ["r"], "relu"),
            helper.make_node("Warp", ["r"], ["y"], "strange_layer", domain="com.example"),
        ],
        {"x": (FLOAT, ["N", 4])},
        {"y": (FLOAT, ["N", 4])},
        {},
    )


def images(
    path: Path, count: int = 20, classes: int = 5, shape: tuple[int, ...] = (3, 6, 6)
) -> Path:
    """A .npz with `x` (count, *shape) and `labels`."""
    labels = np.arange(count) % classes
    np.savez(path, x=numbers(20, count, *shape), labels=labels)
    return path
