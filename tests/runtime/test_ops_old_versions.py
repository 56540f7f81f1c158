"""Ops as older opsets define them (attributes that became inputs), against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from one_op import assert_equal_to_onnxruntime, one_op
from onnx import TensorProto

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.standard_normal((2, 3, 5, 6)).astype(np.float32)
ONES = RANDOM.standard_normal((2, 1, 3, 1)).astype(np.float32)
CHANNELS = [RANDOM.random(3).astype(np.float32) + 0.5 for _ in range(4)]

# (op, opset, inputs, attributes, number of outputs)
CASES: list[tuple[str, int, list[np.ndarray], dict[str, Any], int]] = [
    ("Squeeze", 11, [ONES], {"axes": [1, -1]}, 1),
    ("Squeeze", 12, [ONES], {}, 1),
    ("Unsqueeze", 11, [IMAGE], {"axes": [0, -1]}, 1),
    ("ReduceSum", 11, [IMAGE], {"axes": [1, -1], "keepdims": 0}, 1),
    ("ReduceMean", 13, [IMAGE], {"axes": [2, 3]}, 1),
    ("ReduceMax", 7, [IMAGE], {}, 1),
    ("ReduceL2", 11, [IMAGE], {"axes": [-1], "keepdims": 1}, 1),
    ("Slice", 9, [IMAGE], {"starts": [1, -4], "ends": [2**31, -1], "axes": [1, 3]}, 1),
    ("Slice", 7, [IMAGE], {"starts": [0, 1], "ends": [1, 3]}, 1),
    ("Pad", 10, [IMAGE], {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 0.5}, 1),
    ("Pad", 7, [IMAGE], {"pads": [0, 0, 2, 1, 0, 0, 1, 3], "mode": "reflect"}, 1),
    ("Pad", 7, [IMAGE], {"pads": [0, 0, 2, 1, 0, 0, 1, 3], "mode": "edge"}, 1),
    ("Pad", 10, [IMAGE], {"pads": [0, 0, -1, 2, 0, 0, 1, -2]}, 1),
    ("Clip", 10, [IMAGE], {"min": -0.5, "max": 0.7}, 1),
    ("Clip", 7, [IMAGE], {"min": 0.0}, 1),
    ("Clip", 12, [IMAGE, np.float32(-0.1), np.float32(0.1)], {}, 1),
    ("Dropout", 7, [IMAGE], {"ratio": 0.7}, 1),
    ("Dropout", 10, [IMAGE], {}, 1),
    ("Split", 11, [IMAGE], {"axis": 3, "split": [1, 2, 3]}, 3),
    ("Split", 11, [IMAGE], {"axis": 3}, 2),
    ("TopK", 9, [IMAGE], {"k": 2, "axis": 2}, 2),
    ("TopK", 10, [IMAGE, np.array([3])], {"axis": -1}, 2),
    ("Softmax", 11, [IMAGE], {}, 1),
    ("Softmax", 12, [IMAGE], {"axis": 2}, 1),
    ("Softmax", 12, [IMAGE], {"axis": -1}, 1),
    ("LogSoftmax", 7, [IMAGE], {"axis": 0}, 1),
    ("Hardmax", 11, [IMAGE], {"axis": 2}, 1),
    ("Upsample", 7, [IMAGE], {"scales": [1.0, 1.0, 2.0, 3.0]}, 1),
    ("Upsample", 9, [IMAGE, np.float32([1, 1, 2, 2])], {"mode": "linear"}, 1),
    ("Upsample", 9, [IMAGE, np.float32([1, 1, 1.5, 2])], {}, 1),
    ("Resize", 10, [IMAGE, np.float32([1, 1, 2, 1.5])], {}, 1),
    ("Resize", 10, [IMAGE, np.float32([1, 1, 0.5, 0.6])], {"mode": "linear"}, 1),
    ("BatchNormalization", 7, [IMAGE, *CHANNELS], {"epsilon": 1e-3}, 1),
    ("BatchNormalization", 9, [IMAGE, *CHANNELS], {}, 1),
    ("BatchNormalization", 15, [IMAGE, *CHANNELS], {}, 1),
    ("AveragePool", 7, [IMAGE], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]}, 1),
    ("AveragePool", 10, [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 1),
    ("MaxPool", 7, [IMAGE], {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER"}, 1),
    ("MaxPool", 8, [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 1]}, 2),
    ("Gemm", 7, [IMAGE[0, 0], IMAGE[0, 1].T.copy(), np.float32([2])], {"beta": 0.5}, 1),
    ("Flatten", 9, [IMAGE], {"axis": 2}, 1),
    ("Cast", 7, [IMAGE], {"to": TensorProto.INT32}, 1),
    ("Scatter", 9, [IMAGE, np.zeros((1, 3, 5, 6), np.int64), IMAGE[:1] * 2], {"axis": 0}, 1),
    ("OneHot", 9, [np.array([1, -2, 7]), np.array(4), np.float32([-1, 1])], {"axis": 0}, 1),
    ("ArgMax", 11, [IMAGE], {"axis": 1, "keepdims": 0}, 1),
    ("DepthToSpace", 7, [np.tile(IMAGE, (1, 4, 1, 1))], {"blocksize": 2}, 1),
]


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "attributes", "count"),
    CASES,
    ids=[f"{op}-{opset}-{i}" for i, (op, opset, *_) in enumerate(CASES)],
)
def test_equal_to_onnxruntime(
    op: str, opset: int, inputs: list[np.ndarray], attributes: dict[str, Any], count: int
) -> None:
    model = one_op(op, inputs, attributes, [True] * count, opset=opset)
    assert_equal_to_onnxruntime(model, inputs)
