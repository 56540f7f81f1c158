"""Models of integer operators open as float graphs with the scales of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_models import run
from quantized_models import float_model, model_of, quantized_by_onnxruntime, samples

from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.placement import place
from studio.sim.qdq import Constants, insert_qdq

S, Z, NONE = np.float32(0.05), np.uint8(100), np.int8(0)


def opened(model: onnx.ModelProto, folder: Path) -> ModelGraph:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return open_model(path)


def ops(graph: ModelGraph) -> list[str]:
    return [node.op_type for node in graph.nodes()]


def exported(graph: ModelGraph) -> onnx.ModelProto:
    plan = place(graph, QuantConfig())
    encodings = compute_encodings(graph, plan, {})
    return ir.to_proto(insert_qdq(graph, plan, encodings, constants=Constants.INTEGER))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_a_qoperator_file_of_onnxruntime(
    tmp_path: Path, activations: str, per_channel: bool
) -> None:
    path = quantized_by_onnxruntime(tmp_path, "QOperator", activations, per_channel)
    file = onnx.load(path)
    assert sum(node.op_type.startswith("Q") for node in file.graph.node) > 10
    graph = open_model(path)
    assert ops(graph) == [node.op_type for node in float_model().graph.node]
    assert not graph.warnings
    before, after = run(file, samples())[0], run(exported(graph), samples())[0]
    step = float(graph.found["y"].scale)
    assert np.abs(before - after).max() <= 1.01 * step
    floats = run(float_model(), samples())[0], run(graph.to_proto(), samples())[0]
    assert np.abs(floats[0] - floats[1]).max() < 0.03


ONE = {
    "QLinearConv": (
        """(uint8[1, 2, 5, 5] x) => (uint8[1, 3, 3, 3] y) {
            y = QLinearConv(x, s, z, w, c, k, t, z, b)
        }""",
        {
            "w": np.random.default_rng(0).integers(-127, 127, (3, 2, 3, 3)).astype(np.int8),
            "c": np.array([0.01, 0.02, 0.03], np.float32),
            "k": np.zeros(3, np.int8),
            "b": np.array([100, -200, 0], np.int32),
            "t": np.float32(0.2),
        },
        "Conv",
    ),
    "QLinearMatMul": (
        """(uint8[3, 4] x) => (uint8[3, 2] y) {
            y = QLinearMatMul(x, s, z, w, c, k, t, z)
        }""",
        {
            "w": np.random.default_rng(0).integers(-127, 127, (4, 2)).astype(np.int8),
            "c": np.array([0.01, 0.02], np.float32),
            "k": np.zeros(2, np.int8),
            "t": np.float32(0.2),
        },
        "MatMul",
    ),
    "QGemm": (
        """(uint8[3, 4] x) => (uint8[3, 2] y) {
            y = com.microsoft.QGemm<transB = 1, alpha = 0.5>(x, s, z, w, c, k, b, t, z)
        }""",
        {
            "w": np.random.default_rng(0).integers(-127, 127, (2, 4)).astype(np.int8),
            "c": np.array([0.01, 0.02], np.float32),
            "k": np.zeros(2, np.int8),
            "b": np.array([100, -200], np.int32),
            "t": np.float32(0.2),
        },
        "Gemm",
    ),
    "QLinearAdd": (
        """(uint8[3, 4] x) => (uint8[3, 4] y) {
            y = com.microsoft.QLinearAdd(x, s, z, w, t, z, t, z)
        }""",
        {"w": np.arange(4, dtype=np.uint8) * 60, "t": np.float32(0.09)},
        "Add",
    ),
    "QLinearMul": (
        """(uint8[3, 4] x) => (uint8[3, 4] y) {
            y = com.microsoft.QLinearMul(x, s, z, w, t, z, t, z)
        }""",
        {"w": np.arange(4, dtype=np.uint8) * 60, "t": np.float32(0.09)},
        "Mul",
    ),
    "QLinearConcat": (
        """(uint8[3, 4] x) => (uint8[3, 8] y) {
            y = com.microsoft.QLinearConcat<axis = 1>(t, z, x, s, z, x, u, z)
        }""",
        {"t": np.float32(0.09), "u": np.float32(0.07)},
        "Concat",
    ),
    "QLinearSigmoid": (
        """(uint8[3, 4] x) => (uint8[3, 4] y) {
            y = com.microsoft.QLinearSigmoid(x, s, z, t, n)
        }""",
        {"t": np.float32(1 / 256), "n": np.uint8(0)},
        "Sigmoid",
    ),
    "QLinearLeakyRelu": (
        """(uint8[3, 4] x) => (uint8[3, 4] y) {
            y = com.microsoft.QLinearLeakyRelu<alpha = 0.1>(x, s, z, t, z)
        }""",
        {"t": np.float32(0.09)},
        "LeakyRelu",
    ),
    "QLinearSoftmax": (
        """(uint8[3, 4] x) => (uint8[3, 4] y) {
            y = com.microsoft.QLinearSoftmax<axis = 1, opset = 13>(x, s, z, t, n)
        }""",
        {"t": np.float32(1 / 256), "n": np.uint8(0)},
        "Softmax",
    ),
    "QLinearGlobalAveragePool": (
        """(uint8[1, 2, 4, 4] x) => (uint8[1, 2, 1, 1] y) {
            y = com.microsoft.QLinearGlobalAveragePool<channels_last = 0>(x, s, z, t, z)
        }""",
        {"t": np.float32(0.02)},
        "GlobalAveragePool",
    ),
    "QLinearAveragePool": (
        """(uint8[1, 2, 4, 4] x) => (uint8[1, 2, 2, 2] y) {
            y = com.microsoft.QLinearAveragePool<kernel_shape = [2, 2], strides = [2, 2]>(
                x, s, z, t, z)
        }""",
        {"t": np.float32(0.03)},
        "AveragePool",
    ),
    "QLinearWhere": (
        """(uint8[3, 4] x, bool[3, 4] c) => (uint8[3, 4] y) {
            y = com.microsoft.QLinearWhere(c, x, s, z, w, t, z, t, z)
        }""",
        {"w": np.array([100], np.uint8), "t": np.float32(0.09)},
        "Where",
    ),
}


@pytest.mark.parametrize("op", ONE)
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_each_operator_computes_the_same_integers_to_one_step(
    tmp_path: Path, op: str, opset: int
) -> None:
    """Integer inputs and outputs stay, so that the numbers of the operator itself are compared."""
    text, more, plain = ONE[op]
    model = model_of(text, _used(text, {"s": S, "z": Z, **more}), opset=opset)
    rng = np.random.default_rng(1)
    feeds = {}
    for value in model.graph.input:
        sizes = [side.dim_value for side in value.type.tensor_type.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = rng.integers(0, 256, sizes).astype(kind)
    graph = opened(model, tmp_path)
    assert plain in ops(graph)
    assert not any(name.startswith("QLinear") or name == "QGemm" for name in ops(graph))
    before, after = run(model, feeds)[0], run(graph.to_proto(), feeds)[0]
    assert before.dtype == after.dtype
    assert np.abs(before.astype(int) - after).max() <= 1


def _used(text: str, constants: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    operands = text.partition("=>")[2].replace("(", ",").replace(")", ",").replace("\n", ",")
    names = {name.strip() for name in operands.split(",")}
    return {name: value for name, value in constants.items() if name in names}


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_dynamically_quantized_file_of_onnxruntime(tmp_path: Path, per_channel: bool) -> None:
    path = quantized_by_onnxruntime(tmp_path, "dynamic", per_channel=per_channel)
    file = onnx.load(path)
    assert "ConvInteger" in [node.op_type for node in file.graph.node]
    graph = open_model(path)
    kept = ("Conv", "MatMul", "Gemm")
    found = [op for op in ops(graph) if op in kept]
    assert len(found) == len([n for n in float_model().graph.node if n.op_type in kept])
    assert not {"Cast", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"} & {*ops(graph)}
    ranged = {name for name, record in graph.found.items() if record.dynamic}
    assert set(graph.found) - ranged == {"w1", "w2", "w3", "w4", "w5"}
    assert len(ranged) == sum(node.op_type == "DynamicQuantizeLinear" for node in file.graph.node)
    assert not graph.warnings
    before, after = run(file, samples())[0], run(exported(graph), samples())[0]
    assert np.abs(before - after).max() < 1e-6
    floats = run(float_model(), samples())[0]
    assert np.abs(floats - after).max() < 0.03


def test_a_convolutions_bias_comes_back_into_it(tmp_path: Path) -> None:
    graph = open_model(quantized_by_onnxruntime(tmp_path, "dynamic"))
    convolutions = [node for node in graph.nodes() if node.op_type == "Conv"]
    assert [len(node.inputs) for node in convolutions] == [3, 3, 3]


@pytest.mark.parametrize("signed", [False, True])
def test_onnxruntimes_fused_dynamic_products(tmp_path: Path, signed: bool) -> None:
    kind = np.int8 if signed else np.uint8
    rng = np.random.default_rng(0)
    weight = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, (6, 4)).astype(kind)
    model = model_of(
        """(float[n, 6] x) => (float[n, 4] y) {
            a = com.microsoft.DynamicQuantizeMatMul(x, w, c, k, b)
            q, qs, qz = DynamicQuantizeLinear(a)
            y = com.microsoft.MatMulIntegerToFloat(q, v, qs, s, qz, k0, b)
        }""",
        {
            "w": weight,
            "v": weight[:4],
            "c": np.array([0.01, 0.02, 0.03, 0.04], np.float32),
            "k": np.full(4, 3, kind),
            "k0": kind(5),
            "s": np.float32(0.01),
            "b": np.array([1, 2, 3, 4], np.float32),
        },
    )
    graph = opened(model, tmp_path)
    assert set(ops(graph)) <= {"MatMul", "Gemm", "Add"}
    assert sorted(record.dynamic for record in graph.found.values()) == [False, False, True, True]
    feeds = {"x": rng.standard_normal((3, 6)).astype(np.float32)}
    before, after = run(model, feeds)[0], run(exported(graph), feeds)[0]
    assert np.abs(before - after).max() < 1e-5 * np.abs(before).max()


@pytest.mark.parametrize(
    ("bits", "zero_points"),
    [(b, z) for b in (2, 4, 8) for z in ("none", "packed", "float") if (b, z) != (8, "float")],
)
def test_weights_in_blocks_of_bits(tmp_path: Path, bits: int, zero_points: str) -> None:
    depth, columns, block = 40, 6, 16
    blocks = -(-depth // block)
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "w_Q4": rng.integers(0, 256, (columns, blocks, block * bits // 8)).astype(np.uint8),
        "s": rng.uniform(0.01, 0.1, (columns, blocks)).astype(np.float32),
    }
    operands = "x, w_Q4, s"
    if zero_points == "packed":
        size = -(-blocks * bits // 8)
        constants["k"] = rng.integers(0, 256, (columns, size)).astype(np.uint8)
        operands += ", k"
    if zero_points == "float":
        constants["k"] = rng.uniform(0, 2**bits, (columns, blocks)).astype(np.float32)
        operands += ", k"
    model = model_of(
        f"""(float[n, {depth}] x) => (float[n, {columns}] y) {{
            y = com.microsoft.MatMulNBits<
                K = {depth}, N = {columns}, bits = {bits}, block_size = {block}>({operands})
        }}""",
        constants,
    )
    feeds = {"x": rng.standard_normal((3, depth)).astype(np.float32)}
    graph = opened(model, tmp_path)
    assert ops(graph) == ["MatMul"]
    if zero_points == "float":  # between the integers: no numbers of DequantizeLinear's
        assert not graph.found
        assert any("zero points" in warning for warning in graph.warnings)
    else:
        (record,) = graph.found.values()
        assert (record.bits, record.axis, record.block_size) == (bits, 0, block)
        assert record.signed is (zero_points == "none")
        np.testing.assert_array_equal(record.scale, constants["s"].T)
        assert not graph.warnings
    expected = run(model, feeds)[0]
    np.testing.assert_allclose(run(graph.to_proto(), feeds)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_product_of_blocks_with_a_bias_is_a_gemm(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = model_of(
        """(float[n, 32] x) => (float[n, 6] y) {
            y = com.microsoft.MatMulNBits<K = 32, N = 6, bits = 4, block_size = 16>(
                x, w_Q4, s, , , b)
        }""",
        {
            "w_Q4": rng.integers(0, 256, (6, 2, 8)).astype(np.uint8),
            "s": rng.uniform(0.01, 0.1, (6, 2)).astype(np.float32),
            "b": rng.standard_normal(6).astype(np.float32),
        },
    )
    graph = opened(model, tmp_path)
    assert ops(graph) == ["Gemm"]
    assert list(graph.found) == ["w"]
    feeds = {"x": rng.standard_normal((3, 32)).astype(np.float32)}
    expected = run(model, feeds)[0]
    np.testing.assert_allclose(run(graph.to_proto(), feeds)[0], expected, rtol=1e-5, atol=1e-5)


REFUSED = {
    "channels come last": (
        """(uint8[1, 4, 4, 2] x) => (uint8[1, 1, 1, 2] y) {
            y = com.microsoft.QLinearGlobalAveragePool<channels_last = 1>(x, s, z, s, z)
        }""",
        "QLinearGlobalAveragePool",
    ),
    "scales are computed": (
        """(uint8[3, 4] x, float t) => (uint8[3, 4] y) {
            y = com.microsoft.QLinearSigmoid(x, t, z, s, z)
        }""",
        "QLinearSigmoid",
    ),
    "DynamicQuantizeLinear": (
        """(uint8[3, 4] x, uint8[4, 2] w) => (int32[3, 2] y) {
            y = MatMulInteger(x, w)
        }""",
        "MatMulInteger",
    ),
    "weights are computed": (
        """(float[3, 1, 4] x, int8[1, 4, 8] w, int8[1, 2, 8] r, float[1] t, int8[1] k)
           => (float[3, 1, 1, 2] y) {
            y = com.microsoft.DynamicQuantizeLSTM<hidden_size = 2>(
                x, w, r, , , , , , t, k, t, k)
        }""",
        "DynamicQuantizeLSTM",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_lifted_is_refused_by_name(tmp_path: Path, reason: str) -> None:
    text, op = REFUSED[reason]
    with pytest.raises(ModelError) as caught:
        opened(model_of(text, _used(text, {"s": S, "z": Z})), tmp_path)
    assert op in caught.value.message
    assert f"{op}0" in caught.value.message
    assert reason in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_a_damaged_file_opens_or_is_refused(tmp_path: Path, form: str) -> None:
    """Operands missing or exchanged, constants of other shapes, types and values."""
    path = quantized_by_onnxruntime(tmp_path, form)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(25):
        model = onnx.load(path)
        node = model.graph.node[rng.integers(len(model.graph.node))]
        constant = model.graph.initializer[rng.integers(len(model.graph.initializer))]
        array = onnx.numpy_helper.to_array(constant)
        match rng.integers(4):
            case 0 if node.input:
                node.input[rng.integers(len(node.input))] = rng.choice(["", constant.name])
            case 1 if node.input:
                del node.input[-1]
            case 2:
                array = np.resize(array, [(), (3,), (0,), (2, 2)][rng.integers(4)])
            case _:
                array = array * np.asarray(rng.choice([0, -1])).astype(array.dtype)
        constant.CopyFrom(onnx.numpy_helper.from_array(array, constant.name))
        onnx.save(model, tmp_path / "damaged.onnx")
        try:
            place(open_model(tmp_path / "damaged.onnx"), QuantConfig())
        except ModelError:
            refused += 1
    assert 0 < refused < 25
