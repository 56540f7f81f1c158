"""A model that came quantized goes out as it came: same pairs, scales, integers and results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto
from quantized_models import (
    float_model,
    model_of,
    packed,
    quantized_by_onnxruntime,
    samples,
)
from sim_graphs import conv_net, graph_of

from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.quant.grid import Grid
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.found import AS_IN_FILE, LEFT_FLOAT
from studio.sim.placement import place
from studio.sim.plan import Plan, Role
from studio.sim.qdq import Constants, insert_qdq
from studio.sim.simulator import simulating_executor

S, Z = np.float32(0.05), np.uint8(100)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs in onnxruntime without its optimisations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def exported(
    graph: ModelGraph, config: QuantConfig | None = None, constants: Constants = Constants.INTEGER
) -> onnx.ModelProto:
    plan = place(graph, config or QuantConfig())
    encodings = compute_encodings(graph, plan, {})
    return ir.to_proto(insert_qdq(graph, plan, encodings, constants=constants))


def reopened(model: onnx.ModelProto, folder: Path) -> ModelGraph:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return open_model(path)


def pairs(model: onnx.ModelProto) -> Counter[tuple[object, ...]]:
    """Every Q and DQ node without its names: scale, zero point, their type, axis, and the integers
    of a constant."""
    constants = {array.name: array for array in model.graph.initializer}

    def content(name: str) -> tuple[object, ...]:
        if name not in constants:
            return ()
        array = onnx.numpy_helper.to_array(constants[name])
        return (constants[name].data_type, array.reshape(-1).tolist())

    found: Counter[tuple[object, ...]] = Counter()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = onnx.numpy_helper.to_array(constants[node.input[1]])
            zero = content(node.input[2]) if len(node.input) > 2 else ()
            if zero and not any(zero[1]) and zero[0] == TensorProto.INT32:
                zero = ()  # a bias has none, or an explicit one of 0
            axis = [a.i for a in node.attribute if a.name == "axis"] if scale.size > 1 else []
            found[
                repr((node.op_type, scale.reshape(-1).tolist(), zero, axis, content(node.input[0])))
            ] += 1
    return found


def feeds_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    feeds = {}
    for value in model.graph.input:
        sizes = [side.dim_value or 3 for side in value.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = (rng.standard_normal(sizes) * 3).astype(dtype)
    return feeds


def assert_unchanged(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> None:
    assert [o.name for o in before.graph.output] == [o.name for o in after.graph.output]
    for expected, actual in zip(run(before, feeds), run(after, feeds), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_a_file_of_onnxruntime_goes_out_as_it_came(
    tmp_path: Path, activations: str, per_channel: bool
) -> None:
    path = quantized_by_onnxruntime(tmp_path, "QDQ", activations, per_channel)
    before = onnx.load(path)
    graph = open_model(path)
    after = exported(graph)
    assert pairs(after) == pairs(before)
    assert_unchanged(before, after, samples())
    assert_unchanged(before, exported(graph, constants=Constants.FLOAT), samples())


@pytest.mark.parametrize("bits", [(8, 8), (4, 4), (4, 8), (8, 16), (6, 12), (16, 16)])
@pytest.mark.parametrize("target", ["onnxruntime", "qualcomm-htp"])
def test_our_own_export_goes_out_as_it_was(
    tmp_path: Path, target: str, bits: tuple[int, int]
) -> None:
    graph = conv_net()
    config = QuantConfig(target=target).with_defaults(weight_bits=bits[0], act_bits=bits[1])
    plan = place(graph, config)
    encodings = compute_encodings(graph, plan, statistics_of(graph, plan))
    first = ir.to_proto(insert_qdq(graph, plan, encodings, constants=Constants.INTEGER))
    again = reopened(first, tmp_path)
    assert not again.warnings
    assert [node.op_type for node in again.nodes()] == [node.op_type for node in graph.nodes()]
    second = exported(again, QuantConfig(target=target))
    assert_same_file(second, first)
    new = place(again, QuantConfig())
    for name in plan.quantized:
        assert new.tensors[name].spec is not None
        assert new.tensors[name].spec.grid.bits == plan.tensors[name].spec.grid.bits
    assert compute_encodings(again, new, {}).keys() == encodings.keys()


def test_ties_to_a_later_tensor_come_out_of_the_file(tmp_path: Path) -> None:
    graph = graph_of(
        """(float[n, 3, 8, 8] x) => (float[n, 8, 8, 8] y) {
            a = Conv<pads = [1, 1, 1, 1]>(x, w)
            b = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a)
            c = Concat<axis = 1>(b, a)
            y = Relu(c)
        }""",
        w=(4, 3, 3, 3),
    )
    config = QuantConfig(target="qualcomm-default")
    plan = place(graph, config)
    assert {row.tied_to for row in plan.tensors.values()} == {None, "y"}
    encodings = compute_encodings(graph, plan, statistics_of(graph, plan))
    first = ir.to_proto(insert_qdq(graph, plan, encodings, constants=Constants.INTEGER))
    again = reopened(first, tmp_path)
    new = place(again, config)
    for name in ("a", "b", "c", "y"):
        assert new.tensors[name].from_file
    assert compute_encodings(again, new, {})["a"] == encodings["y"]


def statistics_of(graph: ModelGraph, plan: Plan):  # type: ignore[no-untyped-def]
    from studio.jobs.events import CancelToken, silent
    from studio.sim.calibration import collect_statistics

    batch = {"x": np.random.default_rng(2).standard_normal((4, 3, 8, 8)).astype(np.float32)}
    return collect_statistics(graph, plan.observed, [batch], 4, emit=silent, cancel=CancelToken())


def assert_same_file(actual: onnx.ModelProto, expected: onnx.ModelProto) -> None:
    """The same nodes with the same inputs, outputs and attributes, and the same constants."""

    def nodes(model: onnx.ModelProto) -> set[str]:
        return {
            repr((n.op_type, n.name, [*n.input], [*n.output], sorted(map(str, n.attribute))))
            for n in model.graph.node
        }

    def constants(model: onnx.ModelProto) -> dict[str, bytes]:
        arrays = ((a.name, onnx.numpy_helper.to_array(a)) for a in model.graph.initializer)
        return {name: str(array.dtype).encode() + array.tobytes() for name, array in arrays}

    assert nodes(actual) == nodes(expected)
    assert constants(actual) == constants(expected)


FILES = {
    "some readers see the rounded tensor": (
        """(float[n, 4] x) => (float[n, 4] y) {
            a = Relu(x)
            q = QuantizeLinear(a, s, z)
            d = DequantizeLinear(q, s, z)
            m = Neg(d)
            y = Add(m, a)
        }""",
        {},
    ),
    "two scales for two readers": (
        """(float[n, 4] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            r = QuantizeLinear(x, t, z)
            e = DequantizeLinear(r, t, z)
            y = Add(d, e)
        }""",
        {"t": np.float32(0.09)},
    ),
    "rounded twice": (
        """(float[n, 4] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            r = QuantizeLinear(d, t, z)
            e = DequantizeLinear(r, t, z)
            m = Neg(e)
            y = Add(d, m)
        }""",
        {"t": np.float32(0.09)},
    ),
    "the rounded tensor is an output, the input itself": (
        """(float[n, 4] x) => (float[n, 4] y, float[n, 4] z2) {
            q = QuantizeLinear(x, s, z)
            y = DequantizeLinear(q, s, z)
            z2 = Neg(y)
        }""",
        {},
    ),
    "both the rounded and the unrounded tensor are outputs": (
        """(float[n, 4] x) => (float[n, 4] a, float[n, 4] y) {
            a = Neg(x)
            q = QuantizeLinear(a, s, z)
            y = DequantizeLinear(q, s, z)
        }""",
        {},
    ),
    "activations per channel": (
        """(float[n, 4, 3] x) => (float[n, 4, 3] y) {
            a = Neg(x)
            q = QuantizeLinear<axis = 1>(a, c, k)
            d = DequantizeLinear<axis = 1>(q, c, k)
            y = Abs(d)
        }""",
        {
            "c": np.linspace(0.02, 0.2, 4, dtype=np.float32),
            "k": np.array([100, 0, 255, 128], np.uint8),
        },
    ),
    "integers of fewer bits than their type": (
        """(float[n, 4] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, t, k)
            c = Clip(q, low, high)
            d = DequantizeLinear(c, t, k)
            y = Neg(d)
        }""",
        {"t": np.float32(0.6), "k": np.int8(-3), "low": np.int8(-8), "high": np.int8(7)},
    ),
    "a narrow range": (
        """(float[n, 4] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, t, k)
            c = Clip(q, low, high)
            d = DequantizeLinear(c, t, k)
            y = Neg(d)
        }""",
        {"t": np.float32(0.01), "k": np.int8(0), "low": np.int8(-127), "high": np.int8(127)},
    ),
    "4-bit activations": (
        """(float[n, 4] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, t, k)
            d = DequantizeLinear(q, t, k)
            y = Neg(d)
        }""",
        {"t": np.float32(0.6), "k": packed(np.array(7), TensorProto.UINT4)},
    ),
    "16-bit activations, 4-bit weights": (
        """(float[n, 6] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, t, k)
            d = DequantizeLinear(q, t, k)
            w = DequantizeLinear<axis = 1>(w_quantized, c, l)
            y = MatMul(d, w)
        }""",
        {
            "t": np.float32(0.0001),
            "k": np.uint16(30000),
            "w_quantized": packed(np.arange(24).reshape(6, 4) % 16 - 8, TensorProto.INT4),
            "c": np.linspace(0.02, 0.2, 4, dtype=np.float32),
            "l": packed(np.zeros(4, int), TensorProto.INT4),
        },
    ),
    "a bias beyond float32's whole numbers": (
        """(float[n, 6] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            w = DequantizeLinear(w_quantized, s, l)
            b = DequantizeLinear(b_quantized, t)
            y = Gemm(d, w, b)
        }""",
        {
            "w_quantized": np.arange(24, dtype=np.int8).reshape(6, 4),
            "l": np.int8(0),
            "b_quantized": np.array([2**30 + 1, -(2**29) - 3, 5, 0], np.int32),
            "t": np.float32(0.05) * np.float32(0.05),
        },
    ),
    "a bias at a scale of its own": (
        """(float[n, 6] x) => (float[n, 4] y) {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            w = DequantizeLinear(w_quantized, s, l)
            b = DequantizeLinear(b_quantized, t)
            y = Gemm(d, w, b)
        }""",
        {
            "w_quantized": np.arange(24, dtype=np.int8).reshape(6, 4),
            "l": np.int8(0),
            "b_quantized": np.array([1000, -500, 5, 0], np.int32),
            "t": np.float32(0.0031),
        },
    ),
    "a scale so small that the weights are below float32": (
        """(float[n, 6] x) => (float[n, 4] y) {
            w = DequantizeLinear(w_quantized, t, l)
            y = MatMul(x, w)
        }""",
        {
            "w_quantized": np.arange(24, dtype=np.int8).reshape(6, 4),
            "t": np.float32(1e-45),
            "l": np.int8(0),
        },
    ),
    "integers at the output": (
        """(float[n, 4] x) => (float[n, 4] y, uint8[n, 4] q) {
            a = Neg(x)
            q = QuantizeLinear(a, s, z)
            d = DequantizeLinear(q, s, z)
            y = Abs(d)
        }""",
        {},
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_whatever_is_in_the_file_goes_out_as_it_came(tmp_path: Path, case: str) -> None:
    text, more = FILES[case]
    constants = {"s": S, "z": Z, **more}
    used = {
        k: v
        for k, v in constants.items()
        if f" {k})" in text or f" {k}," in text or f"({k}," in text
    }
    before = model_of(text, used)
    graph = reopened(before, tmp_path)
    after = exported(graph)
    assert_unchanged(before, after, feeds_of(before))
    if "output" not in case:  # an output needs a node of its own
        assert Counter(n.op_type for n in after.graph.node) == Counter(
            n.op_type for n in before.graph.node
        )


def test_onnxruntimes_16_bit_pairs_become_those_of_the_standard(tmp_path: Path) -> None:
    before = model_of(
        """(float[n, 4] x) => (float[n, 4] y) {
            q = com.microsoft.QuantizeLinear(x, s, k)
            d = com.microsoft.DequantizeLinear(q, s, k)
            y = Neg(d)
        }""",
        {"s": np.float32(0.0001), "k": np.uint16(30000)},
        opset=17,
    )
    after = exported(reopened(before, tmp_path))
    assert_unchanged(before, after, feeds_of(before))
    assert {node.domain for node in after.graph.node} == {""}


# --- the plan ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return open_model(quantized_by_onnxruntime(tmp_path_factory.mktemp("model"), "QDQ"))


def test_every_tensor_says_that_the_file_decided(quantized: ModelGraph) -> None:
    plan = place(quantized, QuantConfig())
    for name, row in plan.tensors.items():
        if name in quantized.found:
            assert row.from_file
            assert row.reason == AS_IN_FILE
        else:
            assert row.spec is None
    assert not plan.observed
    assert compute_encodings(quantized, plan, {}).keys() == set(plan.quantized)


def test_what_the_file_leaves_float_stays_float(tmp_path: Path) -> None:
    model = model_of(
        """(float[n, 6] x) => (float[n, 4] y) {
            w = DequantizeLinear(w_quantized, s, l)
            y = MatMul(x, w)
        }""",
        {"w_quantized": np.ones((6, 4), np.int8), "s": S, "l": np.int8(0)},
    )
    plan = place(reopened(model, tmp_path), QuantConfig())
    assert plan.tensors["x"].reason == LEFT_FLOAT
    assert plan.tensors["y"].reason == LEFT_FLOAT
    layer = plan.layer("MatMul1")
    assert layer.settings.act_enabled is False
    assert layer.settings.weight_bits == 8
    assert layer.settings.weight_per_channel is False
    assert not layer.changed


def test_a_setting_takes_the_tensors_of_its_kind_from_the_file(quantized: ModelGraph) -> None:
    plan = place(quantized, QuantConfig().with_layers(["Conv4"], weight_bits=4))
    before = place(quantized, QuantConfig())
    different = {n for n in plan.tensors if plan.tensors[n] != before.tensors[n]}
    conv = plan.layer("Conv4")
    assert different == {conv.weights[0], conv.bias}
    row = plan.tensors[conv.weights[0]]
    assert row.spec is not None
    assert row.spec.grid == Grid(4, signed=True, symmetric=True)
    bias = plan.tensors[conv.bias or ""]
    assert bias.role is Role.BIAS
    assert bias.bias_of is not None


def test_what_is_set_as_a_default_holds_for_all_layers(quantized: ModelGraph) -> None:
    plan = place(quantized, QuantConfig().with_defaults(act_bits=16))
    for row in plan.tensors.values():
        if row.role in (Role.INPUT, Role.ACTIVATION):
            assert not row.from_file
        if row.role is Role.WEIGHT:
            assert row.from_file


def test_a_tensor_that_follows_an_edited_one_follows_it(quantized: ModelGraph) -> None:
    plan = place(quantized, QuantConfig())
    pool = plan.tensors["g"]
    assert pool.tied_to == "f"
    edited = place(quantized, QuantConfig().with_layers([plan.tensors["f"].layer], act_bits=6))
    assert edited.tensors["g"].tied_to == "f"
    assert edited.tensors["g"].spec is not None
    assert edited.tensors["g"].spec.grid.bits == 6


def test_without_the_files_encodings_the_model_is_placed_like_a_float_one(
    quantized: ModelGraph, tmp_path: Path
) -> None:
    plan = place(quantized, QuantConfig(source_encodings=False))
    floating = reopened(float_model(), tmp_path)
    expected = place(floating, QuantConfig())
    assert {n for n, row in plan.tensors.items() if row.spec} == {
        n for n, row in expected.tensors.items() if row.spec
    }
    assert not any(row.from_file for row in plan.tensors.values())


def test_torch_simulates_what_the_file_computes(quantized: ModelGraph, tmp_path: Path) -> None:
    plan = place(quantized, QuantConfig())
    executor = simulating_executor(quantized, plan, compute_encodings(quantized, plan, {}))
    feeds = samples()
    actual = executor.run(feeds, ["y"])["y"].numpy()
    expected = run(exported(quantized), feeds)[0]
    step = float(quantized.found["y"].scale)
    assert np.abs(actual - expected).max() <= 2 * step
