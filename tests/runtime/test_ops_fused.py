"""The float ops of the domain com.microsoft, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from one_op import assert_equal_to_onnxruntime, by_torch, one_op

from studio.errors import ModelError

DOMAIN = "com.microsoft"
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def cache(length: int, size: int) -> list[np.ndarray]:
    """Cosines and sines of a rotary embedding."""
    angles = np.arange(length)[:, None] * 0.3 ** np.arange(size)
    return [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]


IMAGE, KERNEL, BIAS = normal(2, 4, 6, 5), normal(6, 2, 3, 3), normal(6)
CONV = {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1]}
MATRICES = normal(3, 4, 5), normal(3, 5, 6)
TOKENS = normal(2, 5, 12)
ROWS = [normal(12) for _ in range(4)]
QKV = normal(12, 36), normal(36)
LENGTHS = np.array([3, 5], np.int32)
ENDS_AND_STARTS = np.array([5, 4, 1, 0], np.int32)
RAW = np.array([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]], np.int32)
RAW_3D = (RANDOM.random((2, 5, 5)) > 0.4).astype(np.int32) | np.eye(5, dtype=np.int32)
PAST = normal(2, 2, 3, 4, 4)
SCORES = normal(1, 3, 5, 5)
KEYS = normal(2, 7, 12), normal(2, 7, 12)
IDS = np.array([[1, 2, 3], [4, 0, 2]], np.int32)
GQA = {"num_heads": 4, "kv_num_heads": 2}
QUERY, FEW = normal(2, 5, 64), [normal(2, 5, 32) for _ in range(2)]
FIRST = [np.array([4, 4], np.int32), np.array(5, np.int32)]
STEP = [normal(1, 1, 64), normal(1, 1, 32), normal(1, 1, 32)]
KV_PAST = [normal(1, 2, 6, 16) for _ in range(2)]
KV_TWO = [normal(2, 2, 5, 16) for _ in range(2)]
NEXT = [np.array([6], np.int32), np.array(7, np.int32)]
ROTARY, WIDE_ROTARY = cache(16, 4), cache(16, 8)
BYTES = RANDOM.integers(0, 256, (8, 3, 8), np.uint8)
SCALES, BIAS_8 = np.abs(normal(8, 3)), normal(8)
ROWS_OF_BYTES = RANDOM.integers(0, 256, (6, 16), np.uint8)

# (op, inputs, attributes, outputs wanted)
Case = tuple[str, list[np.ndarray | None], dict[str, Any], list[bool]]
ONE = [True]
CASES: list[Case] = [
    ("FusedConv", [IMAGE, KERNEL, BIAS], CONV | {"activation": "Relu"}, ONE),
    ("FusedConv", [IMAGE, KERNEL], CONV | {"activation": "Tanh"}, ONE),
    ("FusedConv", [IMAGE, KERNEL, BIAS, normal(2, 6, 3, 5)], CONV | {"activation": "Sigmoid"}, ONE),
    (
        "FusedConv",
        [IMAGE, KERNEL, BIAS],
        CONV | {"activation": "LeakyRelu", "activation_params": [0.2]},
        ONE,
    ),
    (
        "FusedConv",
        [IMAGE, KERNEL, BIAS],
        CONV | {"activation": "Clip", "activation_params": [-0.5, 1.5]},
        ONE,
    ),
    (
        "FusedConv",
        [IMAGE, KERNEL, BIAS],
        CONV | {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
        ONE,
    ),
    ("FusedGemm", [normal(3, 4), normal(4, 5), normal(5)], {"activation": "Relu"}, ONE),
    (
        "FusedGemm",
        [normal(4, 3), normal(5, 4), normal(3, 5)],
        {
            "activation": "LeakyRelu",
            "activation_alpha": 0.3,
            "transA": 1,
            "transB": 1,
            "alpha": 0.5,
            "beta": 2.0,
        },
        ONE,
    ),
    ("FusedMatMul", list(MATRICES), {"alpha": 0.7}, ONE),
    ("FusedMatMul", [normal(3, 5, 4), normal(3, 6, 5)], {"transA": 1, "transB": 1}, ONE),
    ("FusedMatMul", [normal(4, 3, 5), normal(3, 5, 6)], {"transBatchA": 1}, ONE),
    (
        "FusedMatMul",
        [normal(5, 3, 4), normal(6, 3, 5)],
        {"transBatchB": 1, "transBatchA": 1, "transA": 1, "transB": 1},
        ONE,
    ),
    ("TransposeMatMul", [normal(3, 5, 4), normal(3, 5, 6)], {"transA": 1}, ONE),
    ("Gelu", [TOKENS], {}, ONE),
    ("BiasGelu", [TOKENS, ROWS[0]], {}, ONE),
    ("FastGelu", [TOKENS, ROWS[0]], {}, ONE),
    ("FastGelu", [TOKENS], {}, ONE),
    ("QuickGelu", [TOKENS], {"alpha": 1.5}, ONE),
    ("Inverse", [normal(2, 4, 4)], {}, ONE),
    ("Trilu", [normal(4, 5), np.array(1)], {"upper": 0}, ONE),
    ("ExpandDims", [TOKENS, np.array(-2, np.int32)], {}, ONE),
    ("Pad", [IMAGE, np.array([0, 0, 1, 2, 0, 0, 3, 0]), np.array([0.5], np.float32)], {}, ONE),
    ("CDist", [normal(4, 3), normal(5, 3)], {"metric": "sqeuclidean"}, ONE),
    ("CDist", [normal(4, 3), normal(5, 3)], {"metric": "euclidean"}, ONE),
    (
        "CropAndResize",
        [
            IMAGE,
            np.array([[0, 0, 1, 1], [0.2, 0.3, 1.4, 0.9], [0.8, 0.6, 0.1, 0.2]], np.float32),
            np.array([1, 0, 1], np.int32),
            np.array([4, 3], np.int32),
        ],
        {"extrapolation_value": 7.0},
        ONE,
    ),
    ("GridSample", [IMAGE, (RANDOM.random((2, 3, 4, 2)) * 2.4 - 1.2).astype(np.float32)], {}, ONE),
    (
        "SkipLayerNormalization",
        [TOKENS, TOKENS[::-1].copy(), *ROWS[:3]],
        {},
        [True, False, False, True],
    ),
    ("SkipLayerNormalization", [TOKENS, TOKENS[:1], ROWS[0]], {"epsilon": 1e-3}, ONE),
    (
        "SkipSimplifiedLayerNormalization",
        [TOKENS, TOKENS[::-1].copy(), ROWS[0], ROWS[1]],
        {},
        [True, False, False, True],
    ),
    (
        "SkipSimplifiedLayerNormalization",
        [TOKENS, TOKENS[::-1].copy(), ROWS[0]],
        {"epsilon": 1e-3},
        ONE,
    ),
    (
        "EmbedLayerNormalization",
        [
            IDS,
            IDS % 2,
            normal(6, 8),
            normal(4, 8),
            normal(2, 8),
            normal(8),
            normal(8),
            np.array([[1, 1, 0], [1, 1, 1]], np.int32),
        ],
        {},
        [True, True, True],
    ),
    (
        "EmbedLayerNormalization",
        [IDS, None, normal(6, 8), normal(4, 8), None, normal(8), normal(8), None, IDS % 3],
        {"epsilon": 1e-3},
        [True, True],
    ),
    ("Attention", [TOKENS, *QKV], {"num_heads": 3}, ONE),
    ("Attention", [TOKENS, *QKV, LENGTHS], {"num_heads": 3}, ONE),
    ("Attention", [TOKENS, *QKV, ENDS_AND_STARTS], {"num_heads": 3}, ONE),
    ("Attention", [TOKENS, *QKV, RAW], {"num_heads": 3, "scale": 0.3}, ONE),
    ("Attention", [TOKENS, *QKV, RAW_3D], {"num_heads": 3}, ONE),
    ("Attention", [TOKENS, *QKV], {"num_heads": 3, "unidirectional": 1}, ONE),
    ("Attention", [TOKENS, *QKV, RAW], {"num_heads": 3, "unidirectional": 1}, ONE),
    ("Attention", [TOKENS, *QKV, None, PAST], {"num_heads": 3, "unidirectional": 1}, [True, True]),
    ("Attention", [TOKENS, *QKV, None, None, SCORES], {"num_heads": 3}, ONE),
    (
        "Attention",
        [TOKENS, normal(12, 30), normal(30)],
        {"num_heads": 3, "qkv_hidden_sizes": [12, 12, 6]},
        ONE,
    ),
    ("MultiHeadAttention", [TOKENS, *KEYS], {"num_heads": 3}, ONE),
    ("MultiHeadAttention", [TOKENS, *KEYS, QKV[1]], {"num_heads": 3, "scale": 0.4}, ONE),
    ("MultiHeadAttention", [TOKENS, *KEYS, None, LENGTHS], {"num_heads": 3}, ONE),
    (
        "MultiHeadAttention",
        [TOKENS, *KEYS, None, (RANDOM.random((2, 7)) > 0.3).astype(np.int32)],
        {"num_heads": 3},
        ONE,
    ),
    ("MultiHeadAttention", [TOKENS, *KEYS, None, None, normal(1, 3, 5, 7)], {"num_heads": 3}, ONE),
    (
        "MultiHeadAttention",
        [TOKENS, TOKENS * 0.5, TOKENS * 2],
        {"num_heads": 3, "unidirectional": 1},
        [True, True, True],
    ),
    (
        "MultiHeadAttention",
        [TOKENS, TOKENS * 0.5, TOKENS * 2, None, None, None, PAST[0], PAST[1]],
        {"num_heads": 3},
        [True, True, True],
    ),
    ("MultiHeadAttention", [TOKENS, normal(2, 3, 7, 4), normal(2, 3, 7, 4)], {"num_heads": 3}, ONE),
    ("RotaryEmbedding", [normal(2, 5, 32), np.arange(10).reshape(2, 5), *ROTARY], {}, ONE),
    ("RotaryEmbedding", [normal(2, 5, 32), np.array([3]), *ROTARY], {"interleaved": 1}, ONE),
    ("RotaryEmbedding", [normal(2, 4, 5, 8), np.arange(10).reshape(2, 5), *ROTARY], {}, ONE),
    (
        "RotaryEmbedding",
        [normal(2, 5, 48), np.array([0]), *ROTARY],
        {"num_heads": 4, "rotary_embedding_dim": 8},
        ONE,
    ),
    ("GroupQueryAttention", [QUERY, *FEW, None, None, *FIRST], GQA, [True, True, True]),
    (
        "GroupQueryAttention",
        [np.concatenate([QUERY, *FEW], -1), None, None, None, None, *FIRST],
        GQA,
        [True, True, True],
    ),
    (
        "GroupQueryAttention",
        [QUERY, *FEW, None, None, *FIRST, *WIDE_ROTARY],
        GQA | {"do_rotary": 1},
        [True, True, True],
    ),
    (
        "GroupQueryAttention",
        [QUERY, *FEW, None, None, *FIRST, *WIDE_ROTARY],
        GQA | {"do_rotary": 1, "rotary_interleaved": 1, "softcap": 2.0, "local_window_size": 2},
        [True, True, True],
    ),
    (
        "GroupQueryAttention",
        [QUERY, *FEW, None, None, *FIRST],
        GQA | {"smooth_softmax": 1, "scale": 0.2},
        [True, True, True],
    ),
    (
        "GroupQueryAttention",
        [*STEP, *KV_PAST, *NEXT, *WIDE_ROTARY],
        GQA | {"do_rotary": 1},
        [True, True, True],
    ),
    (
        "GroupQueryAttention",
        [
            QUERY[:1],
            FEW[0][:1],
            FEW[1][:1],
            *KV_PAST,
            np.array([10], np.int32),
            np.array(11, np.int32),
        ],
        GQA,
        [True, True, True],
    ),
    (
        "MatMulNBits",
        [normal(2, 3, 40), BYTES, SCALES],
        {"K": 40, "N": 8, "bits": 4, "block_size": 16},
        ONE,
    ),
    (
        "MatMulNBits",
        [normal(3, 48), BYTES, SCALES, RANDOM.integers(0, 256, (8, 2), np.uint8)],
        {"K": 48, "N": 8, "bits": 4, "block_size": 16},
        ONE,
    ),
    (
        "MatMulNBits",
        [normal(3, 48), RANDOM.integers(0, 256, (8, 3, 16), np.uint8), SCALES],
        {"K": 48, "N": 8, "bits": 8, "block_size": 16},
        ONE,
    ),
    (
        "MatMulNBits",
        [normal(3, 48), BYTES, SCALES, np.abs(normal(8, 3)) * 8, None, BIAS_8],
        {"K": 48, "N": 8, "bits": 4, "block_size": 16},
        ONE,
    ),
    (
        "MatMulNBits",
        [normal(3, 64), BYTES[:, :2], SCALES[:, :2].copy()],
        {"K": 64, "N": 8, "bits": 2, "block_size": 32},
        ONE,
    ),
    (
        "GatherBlockQuantized",
        [ROWS_OF_BYTES, np.array([[1, -1], [0, 2]]), np.abs(normal(6, 2)), ROWS_OF_BYTES[:, :1]],
        {"block_size": 16, "bits": 4},
        ONE,
    ),
    (
        "GatherBlockQuantized",
        [
            RANDOM.integers(0, 256, (6, 16), np.uint8),
            np.array([[1, 5], [0, 2]]),
            np.abs(normal(6, 2)),
        ],
        {"block_size": 16, "bits": 4},
        ONE,
    ),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "outputs"),
    CASES,
    ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)],
)
def test_equal_to_onnxruntime(
    op: str, inputs: list[np.ndarray | None], attributes: dict[str, Any], outputs: list[bool]
) -> None:
    model = one_op(op, inputs, attributes, outputs, domain=DOMAIN)
    assert_equal_to_onnxruntime(model, inputs, rtol=1e-4, atol=1e-5)


def test_packed_keys_and_queries_equal_the_unpacked() -> None:
    q, k, v = (normal(2, 5, 3, 4) for _ in range(3))
    flat = [x.reshape(2, 5, 12) for x in (q, k, v)]
    heads = {"num_heads": 3}
    (wanted,) = by_torch(one_op("MultiHeadAttention", flat, heads, domain=DOMAIN), flat)
    for inputs in ([flat[0], np.stack([k, v], 3)], [np.stack([q, k, v], 3)]):
        model = one_op("MultiHeadAttention", inputs, heads, domain=DOMAIN)
        np.testing.assert_allclose(by_torch(model, inputs)[0], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "named"),
    [
        ("Attention", [TOKENS, *QKV], {"num_heads": 3, "do_rotary": 1}, "rotary"),
        ("GroupQueryAttention", [QUERY, *FEW, None, None, *FIRST], GQA | {"qk_output": 1}, "qk"),
        (
            "GroupQueryAttention",
            [QUERY, *FEW, *KV_TWO, np.array([9, 8], np.int32), np.array(10, np.int32)],
            GQA,
            "different lengths",
        ),
        ("RotaryEmbedding", [TOKENS, IDS, *ROTARY], {"is_packed_batching": 1}, "packed"),
    ],
)
def test_forms_that_are_not_computed_are_refused_by_name(
    op: str, inputs: list[np.ndarray | None], attributes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError, match=f"{op} .*{named}"):
        by_torch(one_op(op, inputs, attributes, domain=DOMAIN), inputs)


def test_group_norm_equals_pytorch() -> None:
    x, skip, added = normal(2, 4, 5, 6), normal(2, 6), normal(6)
    scale, bias, attributes = normal(6), normal(6), {"groups": 3, "activation": 1}
    total = x + skip[:, None, None] + added
    y = torch.nn.functional.group_norm(
        torch.from_numpy(total).movedim(-1, 1), 3, torch.from_numpy(scale), torch.from_numpy(bias)
    )
    wanted = torch.nn.functional.silu(y).movedim(1, -1).numpy()
    alone, inputs = [total, scale, bias], [x, scale, bias, skip, added]
    (result,) = by_torch(one_op("GroupNorm", alone, attributes, domain=DOMAIN), alone)
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)
    model = one_op("SkipGroupNorm", inputs, attributes, [True, True], domain=DOMAIN)
    result, summed = by_torch(model, inputs)
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(summed, total, rtol=1e-6)


def test_channels_last_convolution_equals_the_standard_one() -> None:
    last = [np.moveaxis(IMAGE, 1, -1).copy(), np.moveaxis(KERNEL, 1, -1).copy(), BIAS]
    (wanted,) = by_torch(one_op("Conv", [IMAGE, KERNEL, BIAS], CONV), [IMAGE, KERNEL, BIAS])
    (result,) = by_torch(one_op("NhwcConv", last, CONV, domain=DOMAIN), last)
    np.testing.assert_allclose(np.moveaxis(result, -1, 1), wanted, rtol=1e-5, atol=1e-6)
    fused = [*last, np.moveaxis(wanted, 1, -1).copy()]
    model = one_op("NhwcFusedConv", fused, CONV | {"activation": "Relu"}, domain=DOMAIN)
    doubled = np.maximum(2 * wanted, 0)
    np.testing.assert_allclose(
        np.moveaxis(by_torch(model, fused)[0], -1, 1), doubled, rtol=1e-5, atol=1e-6
    )


def test_split_gelu_equals_pytorch() -> None:
    x, bias = normal(2, 3, 8), normal(8)
    value, gate = torch.from_numpy(x + bias).chunk(2, -1)
    wanted = value * torch.nn.functional.gelu(gate)
    (result,) = by_torch(one_op("BiasSplitGelu", [x, bias], {}, domain=DOMAIN), [x, bias])
    np.testing.assert_allclose(result, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_bias_add_is_a_sum() -> None:
    inputs = [normal(2, 3, 8), normal(8), normal(2, 3, 8)]
    (result,) = by_torch(one_op("BiasAdd", inputs, {}, domain=DOMAIN), inputs)
    np.testing.assert_allclose(result, sum(inputs), rtol=1e-6, atol=1e-6)
