"""Sequences, optional values, random numbers and conversions between types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from one_op import by_torch, one_op
from onnx import TensorProto

from studio.graph.model import ModelGraph, ModelSource
from studio.runtime.executor import Executor

SEQUENCES = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[6, 4] x, int64 at)
=> (float[m, n] joined, float[k, 4] middle, int64 count, float[p, q, r] stacked, bool there)
{
    maybe = Optional (x)
    there = OptionalHasElement (maybe)

    parts = SplitToSequence <axis = 0> (x, at)
    turned = SequenceInsert (parts, x, at)
    shorter = SequenceErase (turned, at)
    more = SequenceConstruct (x, x)
    first = Constant <value_int = 0> ()
    middle = SequenceAt (shorter, first)
    count = SequenceLength (turned)
    joined = ConcatFromSequence <axis = 0> (turned)
    stacked = ConcatFromSequence <axis = 1, new_axis = 1> (more)
}
"""


def graph_of(model: onnx.ModelProto) -> ModelGraph:
    graph = ir.from_proto(model)
    for i, node in enumerate(graph.graph):
        node.name = node.name or f"node_{i}"
    return ModelGraph(graph, ModelSource(Path("model.onnx")))


@pytest.mark.parametrize("at", [1, 2])
def test_sequences_equal_onnxruntime(at: int) -> None:
    model = onnx.parser.parse_model(SEQUENCES)
    feeds = {"x": np.random.default_rng(0).random((6, 4), np.float32), "at": np.array(at)}
    wanted = ort.InferenceSession(model.SerializeToString()).run(None, feeds)
    results = Executor(graph_of(model)).run(feeds)
    for result, expected in zip(results.values(), wanted, strict=True):
        np.testing.assert_array_equal(result.numpy(), expected)


def test_random_numbers_have_their_distribution() -> None:
    shape = {"shape": [200, 100], "seed": 3.0}
    (normal,) = by_torch(one_op("RandomNormal", [], shape | {"mean": 2.0, "scale": 0.5}), [])
    (uniform,) = by_torch(one_op("RandomUniform", [], shape | {"low": -1.0, "high": 3.0}), [])
    assert normal.shape == uniform.shape == (200, 100)
    assert abs(normal.mean() - 2) < 0.02 and abs(normal.std() - 0.5) < 0.02
    assert uniform.min() >= -1 and uniform.max() <= 3 and abs(uniform.mean() - 1) < 0.05
    chance = np.full((200, 100), 0.3, np.float32)
    (tossed,) = by_torch(one_op("Bernoulli", [chance], {"dtype": TensorProto.INT32}), [chance])
    assert tossed.dtype == np.int32 and abs(tossed.mean() - 0.3) < 0.02
    odds = np.log(np.array([[0.2, 0.8]], np.float32))
    model = one_op("Multinomial", [odds], {"sample_size": 9000, "seed": 1.0})
    (drawn,) = by_torch(model, [odds])
    assert drawn.shape == (1, 9000) and drawn.dtype == np.int32 and abs(drawn.mean() - 0.8) < 0.02


def test_a_seed_repeats_the_numbers() -> None:
    like = np.zeros((3, 4), np.float32)
    for op in ("RandomNormalLike", "RandomUniformLike"):
        seeded, free = (
            [by_torch(one_op(op, [like], attributes), [like])[0] for _ in range(2)]
            for attributes in ({"seed": 7.0}, {})
        )
        assert seeded[0].shape == (3, 4)
        np.testing.assert_array_equal(*seeded)
        assert not np.array_equal(*free)


@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_powers_of_two_equal_the_reference(mode: str) -> None:
    from onnx.numpy_helper import to_float8e8m0

    x = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    x = (x * 2.0 ** np.arange(-140, 120)[:, None]).astype(np.float32).ravel()
    x = np.append(x, [0, 1, 2, 3, 6, -6, np.inf, np.nan, np.finfo(np.float32).max]).astype(
        np.float32
    )
    model = one_op("Cast", [x], {"to": TensorProto.FLOAT8E8M0, "round_mode": mode}, opset=24)
    graph = graph_of(model)
    (result,) = Executor(graph).run({"x0": x}).values()
    np.testing.assert_array_equal(
        result.view(torch.uint8).numpy(), to_float8e8m0(x, True, mode).view(np.uint8)
    )


def test_four_bit_floats_equal_ml_dtypes() -> None:
    import ml_dtypes

    x = np.append(np.linspace(-8, 8, 1601), [np.inf, -np.inf]).astype(np.float32)
    model = one_op("Cast", [x], {"to": TensorProto.FLOAT4E2M1}, opset=23)
    (result,) = Executor(graph_of(model)).run({"x0": x}).values()
    wanted = x.astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    np.testing.assert_array_equal(result.float().numpy(), wanted)


@pytest.mark.parametrize("name", ["INT4", "UINT4", "INT2", "UINT2"])
def test_narrow_integers_keep_the_lowest_bits(name: str) -> None:
    import ml_dtypes

    x = np.arange(-300, 300, dtype=np.int32)
    model = one_op("Cast", [x], {"to": TensorProto.DataType.Value(name)}, opset=25)
    (result,) = Executor(graph_of(model)).run({"x0": x}).values()
    wanted = x.astype(getattr(ml_dtypes, name.lower())).astype(np.int32)
    np.testing.assert_array_equal(result.int().numpy(), wanted)
