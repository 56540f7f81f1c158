"""Ops of the standard domain whose node tests cover little, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from one_op import assert_equal_to_onnxruntime, one_op

RANDOM = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


IMAGE, WAVE = normal(2, 4, 9, 7), normal(2, 40)
BOXES = np.array([[0, 0, 6, 8], [1.5, 2.2, 4.9, 7.7], [-2, -3, 3, 2], [5, 5, 20, 19]], np.float32)
WHICH = np.array([0, 1, 1, 0])
ROI = {"output_height": 3, "output_width": 2, "spatial_scale": 0.7}
WHOLE = np.concatenate([WHICH[:, None], np.round(BOXES)], 1).astype(np.float32)
KERNEL = normal(6, 2, 3, 3)
DEFORMED = {"group": 2, "pads": [1, 0, 1, 1], "strides": [2, 1], "dilations": [1, 2]}
OFFSETS = normal(2, 36, 5, 4) * 2
HANN = np.hanning(16).astype(np.float32)
PAIRS, SPECTRUM = normal(2, 10, 3, 2), normal(2, 6, 3, 2)
COLUMNS = normal(2, 3 * 2 * 2 * 3, 3 * 2 * 1)
SCORES, LABELS = normal(3, 5, 4), RANDOM.integers(0, 5, (3, 4))

# (op, opset, inputs, attributes)
CASES: list[tuple[str, int, list[np.ndarray | None], dict[str, Any]]] = [
    ("RoiAlign", 10, [IMAGE, BOXES, WHICH], ROI | {"sampling_ratio": 2}),
    ("RoiAlign", 16, [IMAGE, BOXES, WHICH], ROI),
    (
        "RoiAlign",
        16,
        [IMAGE, BOXES, WHICH],
        ROI | {"coordinate_transformation_mode": "output_half_pixel"},
    ),
    ("RoiAlign", 16, [IMAGE, BOXES, WHICH], ROI | {"mode": "max", "sampling_ratio": 3}),
    ("RoiAlign", 16, [IMAGE, BOXES[:0], WHICH[:0]], ROI),
    ("MaxRoiPool", 10, [IMAGE, WHOLE], {"pooled_shape": [3, 2]}),
    ("MaxRoiPool", 10, [IMAGE, WHOLE], {"pooled_shape": [2, 2], "spatial_scale": 0.5}),
    ("DeformConv", 19, [IMAGE, KERNEL, OFFSETS], DEFORMED | {"offset_group": 2}),
    ("DeformConv", 19, [IMAGE, KERNEL, OFFSETS[:, :18], normal(6), normal(2, 9, 5, 4)], DEFORMED),
    ("DFT", 17, [PAIRS], {}),
    ("DFT", 17, [PAIRS[..., :1].copy()], {"onesided": 1, "axis": 2}),
    ("DFT", 20, [PAIRS, np.array(16), np.array(1)], {}),
    ("DFT", 20, [PAIRS[..., :1].copy(), np.array(7), np.array(1)], {"onesided": 1}),
    ("DFT", 20, [PAIRS, None, np.array(1)], {"inverse": 1}),
    ("STFT", 17, [WAVE, np.array(8), HANN], {}),
    ("STFT", 17, [WAVE, np.array(5), HANN, np.array(16)], {"onesided": 0}),
    ("STFT", 17, [WAVE[..., None], np.array(6), None, np.array(12)], {}),
    (
        "MelWeightMatrix",
        17,
        [np.array(8), np.array(64), np.array(8000), np.float32(100), np.float32(3500)],
        {},
    ),
    ("HannWindow", 17, [np.array(12)], {"periodic": 0}),
    (
        "Col2Im",
        18,
        [normal(2, 12, 20), np.array([6, 5]), np.array([2, 2])],
        {"strides": [1, 1], "pads": [0, 0, 0, 0]},
    ),
    ("Col2Im", 18, [COLUMNS, np.array([4, 3, 3]), np.array([2, 2, 3])], {}),
    ("NegativeLogLikelihoodLoss", 13, [SCORES, LABELS, np.abs(normal(5))], {"ignore_index": 2}),
    ("SoftmaxCrossEntropyLoss", 13, [SCORES, LABELS], {"reduction": "sum"}),
    ("GlobalLpPool", 13, [IMAGE], {"p": 3}),
    ("LayerNormalization", 12, [IMAGE, normal(7), normal(7)], {"epsilon": 1e-3}),
    ("SimplifiedLayerNormalization", 17, [IMAGE, normal(7)], {"epsilon": 1e-3}),
]


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "attributes"),
    CASES,
    ids=[f"{op}-{i}" for i, (op, *_) in enumerate(CASES)],
)
def test_equal_to_onnxruntime(
    op: str, opset: int, inputs: list[np.ndarray | None], attributes: dict[str, Any]
) -> None:
    model = one_op(op, inputs, attributes, opset=opset)
    assert_equal_to_onnxruntime(model, inputs, rtol=1e-4, atol=1e-5)
