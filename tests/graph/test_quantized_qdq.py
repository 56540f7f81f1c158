"""Models with QuantizeLinear and DequantizeLinear open as their float graph and what these said."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from graph_models import run
from onnx import TensorProto
from quantized_models import (
    float_model,
    model_of,
    packed,
    quantized_by_onnxruntime,
    samples,
)

from studio.graph.model import ModelGraph
from studio.graph.open import open_model

S, Z, NONE = np.float32(0.05), np.uint8(100), np.int8(0)


def opened(model: onnx.ModelProto, folder: Path) -> ModelGraph:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return open_model(path)


def ops(graph: ModelGraph) -> list[str]:
    return [node.op_type for node in graph.nodes()]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_a_file_of_onnxruntime_opens_as_its_float_graph(
    tmp_path: Path, activations: str, per_channel: bool
) -> None:
    path = quantized_by_onnxruntime(tmp_path, "QDQ", activations, per_channel)
    graph = open_model(path)
    file = onnx.load(path).graph
    assert ops(graph) == [node.op_type for node in float_model().graph.node]
    assert not graph.warnings
    pairs = [node for node in file.node if node.op_type == "QuantizeLinear"]
    assert sum(name not in graph.initializers for name in graph.found) == len(pairs)
    constants = {array.name: onnx.numpy_helper.to_array(array) for array in file.initializer}
    for node in pairs:
        record = graph.found[node.input[0].removesuffix("_QuantizeLinear_Input")]
        assert record.scale == constants[node.input[1]]
        assert record.zero_point == constants[node.input[2]]
        assert record.signed == (activations == "QInt8")
    assert (graph.found["w1"].axis == 0) is per_channel
    assert graph.found["b1"].bits == 32


def test_the_float_graph_computes_what_the_original_computed_up_to_weight_rounding(
    tmp_path: Path,
) -> None:
    graph = open_model(quantized_by_onnxruntime(tmp_path, "QDQ"))
    feeds = samples()
    before, after = run(float_model(), feeds)[0], run(graph.to_proto(), feeds)[0]
    assert 0 < np.abs(before - after).max() < 0.03


STORED = {
    "int8": (TensorProto.INT8, -128, 127),
    "uint8": (TensorProto.UINT8, 0, 255),
    "int16": (TensorProto.INT16, -(2**15), 2**15 - 1),
    "uint16": (TensorProto.UINT16, 0, 2**16 - 1),
    "int4": (TensorProto.INT4, -8, 7),
    "uint4": (TensorProto.UINT4, 0, 15),
}


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("kind", STORED)
def test_integer_weights_become_exactly_what_dequantizelinear_makes(
    tmp_path: Path, kind: str, axis: int | None
) -> None:
    proto_type, low, high = STORED[kind]
    rng = np.random.default_rng(0)
    integers = rng.integers(low, high, (6, 4), endpoint=True)
    count = 1 if axis is None else (6, 4)[axis]
    scale = rng.uniform(0.001, 0.1, count).astype(np.float32)
    zero = rng.integers(low, high, count, endpoint=True)
    if axis is None:
        scale, zero = scale.reshape(()), zero.reshape(())
    attribute = "" if axis is None else f"<axis = {axis}>"
    model = model_of(
        f"""(float[n, 6] x) => (float[n, 4] y, float[6, 4] seen) {{
            w = DequantizeLinear{attribute}(w_quantized, s, z)
            seen = Identity(w)
            y = MatMul(x, w)
        }}""",
        {
            "w_quantized": packed(integers, proto_type),
            "s": scale,
            "z": packed(zero, proto_type),
        },
    )
    expected = run(model, {"x": np.zeros((1, 6), np.float32)})[1]
    graph = opened(model, tmp_path)
    np.testing.assert_array_equal(graph.constant("w"), expected)
    record = graph.found["w"]
    assert (record.bits, record.signed) == (int(kind.lstrip("uint")), kind.startswith("int"))
    assert record.axis == (None if axis is None else axis % 2)
    np.testing.assert_array_equal(record.zero_point, zero)
    np.testing.assert_array_equal(record.scale, scale)


def test_a_scale_of_one_element_is_per_tensor(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 6] x) => (float[n, 4] y) {
            w = DequantizeLinear<axis = 0>(w_quantized, s)
            y = MatMul(x, w)
        }""",
        {"w_quantized": np.ones((6, 4), np.int8), "s": np.array([0.5], np.float32)},
    )
    record = opened(model, tmp_path).found["w"]
    assert record.axis is None
    assert record.scale.shape == ()


def test_float_weights_between_a_pair_stay_what_they_are(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    scale = np.linspace(0.01, 0.02, 4, dtype=np.float32)
    model = model_of(
        """(float[n, 6] x) => (float[n, 4] y) {
            q = QuantizeLinear<axis = 1>(w, s, z)
            d = DequantizeLinear<axis = 1>(q, s, z)
            y = MatMul(x, d)
        }""",
        {"w": weights, "s": scale, "z": np.zeros(4, np.int8)},
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["MatMul"]
    np.testing.assert_array_equal(graph.constant("w"), weights)
    assert graph.found["w"].axis == 1


def test_a_transpose_behind_a_weight_is_done_at_once(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 4] x) => (float[n, 6] y) {
            w = DequantizeLinear<axis = 0>(w_quantized, s, z)
            t = Transpose<perm = [1, 0]>(w)
            y = MatMul(x, t)
        }""",
        {
            "w_quantized": np.arange(24, dtype=np.int8).reshape(6, 4),
            "s": np.linspace(0.1, 0.2, 6, dtype=np.float32),
            "z": np.zeros(6, np.int8),
        },
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["MatMul"]
    (record,) = graph.found.values()
    assert record.axis == 1


def test_a_bias_beyond_float32_keeps_its_integers(tmp_path: Path) -> None:
    integers = np.array([2**30 + 1, -(2**29) - 3, 5, 0], np.int32)
    model = model_of(
        """(float[n, 6] x) => (float[n, 4] y) {
            b = DequantizeLinear(b_quantized, s)
            y = Gemm(x, w, b)
        }""",
        {
            "b_quantized": integers,
            "s": np.float32(1e-9),
            "w": np.ones((6, 4), np.float32),
        },
    )
    record = opened(model, tmp_path).found["b"]
    assert record.integers is not None
    np.testing.assert_array_equal(record.integers, integers)


def test_readers_of_the_unrounded_tensor_keep_it(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 4] x) => (float[n, 4] y) {
            a = Relu(x)
            q = QuantizeLinear(a, s, z)
            d = DequantizeLinear(q, s, z)
            m = Neg(d)
            y = Add(m, a)
        }""",
        {"s": S, "z": Z},
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["Relu", "Identity", "Neg", "Add"]
    branch = graph.node("Neg3").inputs[0]
    assert branch is not None
    assert branch.name in graph.found
    assert "a" not in graph.found


def test_equal_pairs_for_each_reader_are_one_encoding(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 4] x) => (float[n, 4] y) {
            a = Relu(x)
            q = QuantizeLinear(a, s, z)
            d = DequantizeLinear(q, s, z)
            r = QuantizeLinear(a, s, z)
            e = DequantizeLinear(r, s, z)
            y = Add(d, e)
        }""",
        {"s": S, "z": Z},
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["Relu", "Add"]
    assert list(graph.found) == ["a"]


def test_bits_of_a_clip_between_the_pair(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 4] x) => (float[n, 4] y) {
            a = Relu(x)
            q = QuantizeLinear(a, s, z)
            c = Clip(q, low, high)
            d = DequantizeLinear(c, s, z)
            y = Neg(d)
        }""",
        {"s": S, "z": np.uint8(3), "low": np.uint8(0), "high": np.uint8(15)},
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["Relu", "Neg"]
    assert (graph.found["a"].bits, graph.found["a"].storage_bits) == (4, 8)


def test_integers_that_are_only_moved_are_rounded_around_the_move(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 3, 8, 8] x) => (float[n, 48] y) {
            q = QuantizeLinear(x, s, z)
            p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(q)
            f = Flatten(p)
            d = DequantizeLinear(f, s, z)
            y = Neg(d)
        }""",
        {"s": S, "z": Z},
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["MaxPool", "Flatten", "Neg"]
    assert len(graph.found) == 3


def test_a_table_of_integers_is_dequantized_before_the_gather(tmp_path: Path) -> None:
    model = model_of(
        """(int64[n] i) => (float[n, 4] y) {
            g = Gather(table_quantized, i)
            d = DequantizeLinear(g, s, z)
            y = Neg(d)
        }""",
        {"table_quantized": np.arange(40, dtype=np.uint8).reshape(10, 4), "s": S, "z": Z},
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["Gather", "Neg"]
    assert list(graph.found) == ["table"]


def test_16_bit_pairs_of_onnxruntimes_own_domain(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 4] x) => (float[n, 4] y) {
            q = com.microsoft.QuantizeLinear(x, s, z)
            d = com.microsoft.DequantizeLinear(q, s, z)
            y = Neg(d)
        }""",
        {"s": S, "z": np.uint16(30000)},
        opset=17,
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["Neg"]
    assert (graph.found["x"].bits, graph.found["x"].signed) == (16, False)


LEFT = {
    "the model's output is integers": (
        """(float[n, 4] x) => (uint8[n, 4] y) {
            a = Relu(x)
            y = QuantizeLinear(a, s, z)
        }""",
        {},
        ["Relu", "QuantizeLinear"],
    ),
    "the model is fed integers": (
        """(uint8[n, 4] x) => (float[n, 4] y) {
            a = DequantizeLinear(x, s, z)
            y = Relu(a)
        }""",
        {},
        ["DequantizeLinear", "Relu"],
    ),
    "another scale than that of the QuantizeLinear before it": (
        """(float[n, 4] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, s, z)
            a = DequantizeLinear(q, t, z)
            y = Relu(a)
        }""",
        {"t": np.float32(0.07)},
        ["QuantizeLinear", "DequantizeLinear", "Relu"],
    ),
    "its scale or zero point is computed while the model runs": (
        """(float[n, 4] x, float t) => (float[n, 4] y) {
            q = QuantizeLinear(x, t, z)
            a = DequantizeLinear(q, t, z)
            y = Relu(a)
        }""",
        {},
        ["QuantizeLinear", "DequantizeLinear", "Relu"],
    ),
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_is_no_pair_stays_and_is_named(tmp_path: Path, reason: str) -> None:
    text, more, expected = LEFT[reason]
    used = {"s": S, "z": Z, **more}
    graph = opened(
        model_of(
            text, {name: used[name] for name in used if f" {name})" in text or f" {name}," in text}
        ),
        tmp_path,
    )
    assert ops(graph) == expected
    assert not graph.found
    assert any(reason in warning and "Linear" in warning for warning in graph.warnings)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
def test_8_bit_floats_are_numbers_of_their_format(tmp_path: Path, kind: str) -> None:
    stored = np.linspace(-2, 2, 24, dtype=np.float32).reshape(6, 4).astype(getattr(ml_dtypes, kind))
    graph = opened(float8_model(stored, kind), tmp_path)
    assert ops(graph) == ["MatMul"]
    np.testing.assert_array_equal(graph.constant("w"), stored.astype(np.float32) * 0.3)
    record = graph.found["w"]
    assert record.float_format == kind.replace("_", "")
    assert (record.bits, record.axis, record.scale) == (8, None, np.float32(0.3))
    assert not graph.warnings


def test_infinite_8_bit_floats_become_float_with_a_word_about_it(tmp_path: Path) -> None:
    stored = np.full((6, 4), np.inf, ml_dtypes.float8_e5m2)
    graph = opened(float8_model(stored, "float8_e5m2"), tmp_path)
    assert np.isinf(graph.constant("w")).all()
    assert not graph.found
    assert any("not what rounding gives" in warning for warning in graph.warnings)


def float8_model(stored: np.ndarray, kind: str) -> onnx.ModelProto:
    proto_type = TensorProto.DataType.Value(kind.replace("_", "").upper())
    tensor = onnx.helper.make_tensor("", proto_type, (6, 4), stored.tobytes(), raw=True)
    return model_of(
        """(float[n, 6] x) => (float[n, 4] y) {
            w = DequantizeLinear(w_quantized, s)
            y = MatMul(x, w)
        }""",
        {"w_quantized": tensor, "s": np.float32(0.3)},
    )


@pytest.mark.parametrize("turned", [False, True])
def test_weights_in_blocks(tmp_path: Path, turned: bool) -> None:
    """Blocks of 4 along a side of 10, with or without a Transpose behind them."""
    rng = np.random.default_rng(0)
    integers = rng.integers(-8, 7, (10, 4))
    zero_points = rng.integers(-8, 7, (3, 4))
    scale = rng.uniform(0.1, 0.2, (3, 4)).astype(np.float32)
    model = model_of(
        f"""(float[n, {4 if turned else 10}] x) => (float[n, k] y, float[k, l] seen) {{
            w = DequantizeLinear<axis = -2, block_size = 4>(w_quantized, s, z)
            v = {"Transpose<perm = [1, 0]>" if turned else "Identity"}(w)
            seen = Neg(v)
            y = MatMul(x, v)
        }}""",
        {
            "w_quantized": packed(integers, TensorProto.INT4),
            "s": scale,
            "z": packed(zero_points, TensorProto.INT4),
        },
    )
    expected = run(model, {"x": np.zeros((1, 4 if turned else 10), np.float32)})[1]
    graph = opened(model, tmp_path)
    ((name, record),) = graph.found.items()
    np.testing.assert_array_equal(-graph.constant(name), expected)
    assert (record.axis, record.block_size, record.bits) == (1 if turned else 0, 4, 4)
    np.testing.assert_array_equal(record.scale, scale.T if turned else scale)
    np.testing.assert_array_equal(record.zero_point, zero_points.T if turned else zero_points)
    assert not graph.warnings


@pytest.mark.parametrize("kind", ["int4", "uint4", "int8"])
def test_scales_below_zero_count_the_integers_from_above(tmp_path: Path, kind: str) -> None:
    """As onnxruntime's quantizer of 4-bit blocks writes them, with 0 for blocks of zeros."""
    proto_type, low, high = STORED[kind]
    rng = np.random.default_rng(0)
    scale = rng.uniform(-0.2, 0.2, (3, 4)).astype(np.float32)
    scale[1, 2] = 0
    zero_point = rng.integers(low, high, (3, 4), endpoint=True)
    model = model_of(
        """(float[n, 10] x) => (float[n, 4] y, float[10, 4] seen) {
            w = DequantizeLinear<axis = 0, block_size = 4>(w_quantized, s, z)
            seen = Identity(w)
            y = MatMul(x, w)
        }""",
        {
            "w_quantized": packed(rng.integers(low, high, (10, 4), endpoint=True), proto_type),
            "s": scale,
            "z": packed(zero_point, proto_type),
        },
    )
    expected = run(model, {"x": np.zeros((1, 10), np.float32)})[1]
    graph = opened(model, tmp_path)
    record = graph.found["w"]
    np.testing.assert_array_equal(graph.constant("w"), expected)
    assert (record.scale > 0).all()
    assert ((record.zero_point >= low) & (record.zero_point <= high)).all()
    assert record.integers is None  # rounding gives them again


def test_scales_that_fit_no_blocks_are_named(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 10] x) => (float[n, 4] y) {
            w = DequantizeLinear<axis = 0, block_size = 4>(w_quantized, s)
            y = MatMul(x, w)
        }""",
        {"w_quantized": np.ones((10, 4), np.int8), "s": np.ones((5, 4), np.float32)},
    )
    graph = opened(model, tmp_path)
    assert not graph.found
    assert any("[5, 4] do not fit" in warning for warning in graph.warnings)


def test_a_strict_grid_from_the_clip_between_the_pair(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 4] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, s, z)
            c = Clip(q, low, high)
            d = DequantizeLinear(c, s, z)
            y = Neg(d)
        }""",
        {"s": S, "z": NONE, "low": np.int8(-127), "high": np.int8(127)},
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["Neg"]
    assert (graph.found["x"].bits, graph.found["x"].strict) == (8, True)


def test_ranges_taken_at_every_inference(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 4] x) => (float[n, 4] y) {
            a = Relu(x)
            q, s, z = DynamicQuantizeLinear(a)
            d = DequantizeLinear(q, s, z)
            m = Neg(d)
            y = Add(m, a)
        }""",
        {},
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["Relu", "Identity", "Neg", "Add"]
    ((name, record),) = graph.found.items()
    assert graph.node("Neg3").inputs[0].name == name
    assert record.dynamic


def test_a_float_model_has_nothing_found(tmp_path: Path) -> None:
    graph = opened(float_model(), tmp_path)
    assert not graph.found
    assert not graph.warnings


def test_batch_norm_behind_a_quantized_convolution_is_not_folded(tmp_path: Path) -> None:
    """The file rounds the convolution's result before it."""
    model = model_of(
        """(float[n, 2, 4, 4] x) => (float[n, 2, 4, 4] y) {
            w = DequantizeLinear(w_quantized, s, zw)
            a = Conv(x, w)
            q = QuantizeLinear(a, s, z)
            d = DequantizeLinear(q, s, z)
            y = BatchNormalization(d, one, one, one, one)
        }""",
        {
            "w_quantized": np.ones((2, 2, 1, 1), np.int8),
            "s": S,
            "z": Z,
            "zw": np.int8(0),
            "one": np.ones(2, np.float32),
        },
    )
    graph = opened(model, tmp_path)
    assert ops(graph)[0] == "Conv"
    assert "a" in graph.found
    assert len(ops(graph)) > 1
