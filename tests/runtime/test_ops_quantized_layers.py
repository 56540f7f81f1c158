"""The quantized ops of the domain com.microsoft, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from one_op import assert_equal_to_onnxruntime, by_onnxruntime, by_torch, one_op

DOMAIN = "com.microsoft"
RANDOM = np.random.default_rng(1)


def integers(dtype: type, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return RANDOM.integers(info.min, info.max + 1, shape).astype(dtype)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def scale(value: float) -> np.ndarray:
    return np.array(value, np.float32)


U, S = np.uint8, np.int8
X, MORE = integers(U, 2, 3, 4, 5), integers(U, 2, 3, 4, 5)
LAST = np.moveaxis(X, 1, -1).copy()
# Scales without a common measure, so that no result lies halfway between two steps.
XQ = [scale(0.02131), U(120)]
YQ = [scale(0.03173), U(110)]
A, B = integers(U, 4, 6), integers(S, 6, 5)
COLUMNS = RANDOM.random(5).astype(np.float32) * 0.05 + 0.01
BIAS = integers(np.int16, 5).astype(np.int32)
KERNEL = integers(S, 4, 3, 2, 2)
LENGTHS = np.array([3, 5], np.int32)
SIGNED = integers(S, 3, 4)
TOKENS, PROJECTION = integers(U, 2, 5, 12), integers(S, 12, 36)

# (op, inputs, attributes)
STEPS: list[tuple[str, list[np.ndarray | None], dict[str, Any]]] = [
    ("QLinearAdd", [X, *XQ, MORE, *YQ, scale(0.04297), U(100)], {}),
    ("QLinearAdd", [X, *XQ, MORE[:1, :, :1], *YQ, scale(0.04297), U(100)], {}),
    ("QLinearMul", [X, *XQ, MORE, *YQ, scale(0.05113), U(130)], {}),
    (
        "QLinearAdd",
        [integers(S, 3, 4), scale(0.1), S(3), integers(S, 4), scale(0.2), S(-5), scale(0.25), S(1)],
        {},
    ),
    ("QLinearSigmoid", [X, *XQ, scale(1 / 256), U(0)], {}),
    ("QLinearLeakyRelu", [X, *XQ, *YQ], {"alpha": 0.2}),
    ("QLinearSoftmax", [X, *XQ, scale(1 / 256), U(0)], {"axis": -1, "opset": 13}),
    ("QLinearSoftmax", [X, *XQ, scale(1 / 256), U(0)], {"axis": 2, "opset": 11}),
    (
        "QLinearAveragePool",
        [X, *XQ, *YQ],
        {"kernel_shape": [2, 2], "pads": [1, 0, 1, 1], "strides": [1, 2]},
    ),
    ("QLinearAveragePool", [LAST, *XQ, *YQ], {"kernel_shape": [2, 3], "channels_last": 1}),
    ("QLinearGlobalAveragePool", [X, *XQ, *YQ], {"channels_last": 0}),
    ("QLinearGlobalAveragePool", [LAST, *XQ, *YQ], {"channels_last": 1}),
    ("QLinearConcat", [*YQ, X, *XQ, MORE, scale(0.05), U(90)], {"axis": 1}),
    ("QLinearWhere", [X > 100, X, *XQ, MORE, *YQ, scale(0.04297), U(100)], {}),
    ("QGemm", [A, *XQ, B, scale(0.04), S(3), None, scale(1.5), U(100)], {}),
    (
        "QGemm",
        [
            A,
            *XQ,
            B.T.copy(),
            COLUMNS,
            np.zeros(5, S),
            integers(np.int16, 5).astype(np.int32),
            scale(1.5),
            U(100),
        ],
        {"transB": 1},
    ),
    (
        "QLinearConv",
        [
            LAST,
            *XQ,
            integers(S, 4, 3, 2, 2),
            COLUMNS[:4],
            np.zeros(4, S),
            scale(2.0),
            U(100),
            integers(np.int16, 4).astype(np.int32),
        ],
        {"channels_last": 1, "pads": [1, 0, 0, 1]},
    ),
]
REALS: list[tuple[str, list[np.ndarray | None], dict[str, Any]]] = [
    ("QGemm", [A, *XQ, B, scale(0.04), S(3)], {"alpha": 0.5}),
    ("MatMulIntegerToFloat", [A, B, scale(0.02), COLUMNS, U(120), integers(S, 5), COLUMNS], {}),
    ("MatMulIntegerToFloat", [A, B, scale(0.02), scale(0.03)], {}),
    (
        "DynamicQuantizeMatMul",
        [RANDOM.standard_normal((4, 6)).astype(np.float32), B, COLUMNS, integers(S, 5), COLUMNS],
        {},
    ),
    (
        "QAttention",
        [
            TOKENS,
            PROJECTION,
            RANDOM.standard_normal(36).astype(np.float32),
            scale(0.01),
            scale(0.02),
            np.array([3, 5], np.int32),
            U(120),
            S(4),
        ],
        {"num_heads": 3},
    ),
    (
        "QuantizeLinear",
        [RANDOM.standard_normal((3, 4)).astype(np.float32) * 9, scale(0.001), np.uint16(30000)],
        {},
    ),
    ("DequantizeLinear", [integers(np.uint16, 3, 4), scale(0.001), np.uint16(30000)], {}),
    (
        "DequantizeLinear",
        [integers(np.int16, 3, 4), COLUMNS[:4], np.zeros(4, np.int16)],
        {"axis": 1},
    ),
]


def named(cases: list) -> list[str]:
    return [f"{case[0]}-{i}" for i, case in enumerate(cases)]


@pytest.mark.parametrize(("op", "inputs", "attributes"), STEPS, ids=named(STEPS))
def test_steps_equal_to_onnxruntime(
    op: str, inputs: list[np.ndarray | None], attributes: dict[str, Any]
) -> None:
    model = one_op(op, inputs, attributes, domain=DOMAIN)
    (result,), (wanted,) = by_torch(model, inputs), by_onnxruntime(model, inputs)
    assert result.dtype == wanted.dtype
    assert len(np.unique(wanted)) > 4  # not all saturated
    np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize(("op", "inputs", "attributes"), REALS, ids=named(REALS))
def test_values_equal_to_onnxruntime(
    op: str, inputs: list[np.ndarray | None], attributes: dict[str, Any]
) -> None:
    model = one_op(op, inputs, attributes, domain=DOMAIN)
    assert_equal_to_onnxruntime(model, inputs, rtol=1e-4, atol=1e-5)
