"""The `onnxruntime` target says which operators run in integers: asked of onnxruntime itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from sim_graphs import graph_of

from studio import QuantConfig, QuantSim
from studio.sim.qdq import Constants, insert_qdq
from studio.sim.target import load_target

INTEGER_OPS = load_target("onnxruntime").integer_ops or {}
KEEPS_FLOAT = ("ConvTranspose", "Sub", "Div", "Tanh", "HardSigmoid", "PRelu", "ReduceMean", "Clip")

TWO_INPUTS = ("Add", "Mul", "Concat", "Sub", "Div")
WEIGHTS = {"Conv": (8, 8, 3, 3), "ConvTranspose": (8, 8, 3, 3), "MatMul": (8, 6), "Gemm": (8, 6)}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Concat": {"axis": 1},
    "AveragePool": {"kernel_shape": [2, 2]},
    "MaxPool": {"kernel_shape": [2, 2]},
    "Transpose": {"perm": [0, 2, 3, 1]},
    "Split": {"axis": 1},
    "DepthToSpace": {"blocksize": 2},
    "ReduceMax": {"axes": [2, 3]},
    "ReduceMin": {"axes": [2, 3]},
    "ReduceMean": {"axes": [2, 3]},
}
OPERANDS: dict[str, list[np.ndarray | None]] = {
    "Reshape": [np.array([1, -1])],
    "Squeeze": [np.array([0])],
    "Unsqueeze": [np.array([0])],
    "Slice": [np.array([0]), np.array([4]), np.array([1])],
    "Gather": [np.array([0, 1])],
    "GatherElements": [np.zeros((1, 4, 8, 8), np.int64)],
    "Expand": [np.array([2, 8, 8, 8])],
    "Tile": [np.array([1, 1, 2, 2])],
    "Resize": [None, np.array([1, 1, 2, 2], np.float32)],
    "Clip": [np.array(0, np.float32), np.array(6, np.float32)],
    "PRelu": [np.full((8, 1, 1), 0.1, np.float32)],
}


def optimised(op: str, folder: Path, **attributes: Any) -> onnx.ModelProto:
    """What onnxruntime makes of DequantizeLinear -> op -> QuantizeLinear."""
    constants = {"s": np.float32(0.05), "z": np.uint8(128), "ws": np.float32(0.01)}
    nodes, operands = [], []
    shape = (4, 8) if op == "Gemm" else (1, 8, 8, 8)
    count = 2 if op in TWO_INPUTS else 1
    for name in ("a", "b")[:count]:
        nodes.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_d"]))
        operands.append(f"{name}_d")
    if op in WEIGHTS:
        random = np.random.default_rng(0)
        constants["w"] = random.integers(-127, 127, WEIGHTS[op]).astype(np.int8)
        constants["wz"] = np.int8(0)
        nodes.append(helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["w_d"]))
        operands.append("w_d")
    for index, array in enumerate(OPERANDS.get(op, [])):
        operands.append("" if array is None else f"c{index}")
        if array is not None:
            constants[f"c{index}"] = array
    made = ["y0", "y1"] if op == "Split" else ["y0"]
    nodes.append(helper.make_node(op, operands, made, **{**ATTRIBUTES.get(op, {}), **attributes}))
    for name in made:
        nodes.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_d"]))
    graph = helper.make_graph(
        nodes,
        op,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("a", "b")[:count]],
        [helper.make_tensor_value_info(f"{n}_d", TensorProto.FLOAT, None) for n in made],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def runs_in_float(model: onnx.ModelProto) -> bool:
    """True if something other than DequantizeLinear makes a float tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    return any(
        types.get(name) == TensorProto.FLOAT
        for node in graph.node
        if node.op_type != "DequantizeLinear"
        for name in node.output
    )


@pytest.mark.parametrize("op", sorted(INTEGER_OPS))
def test_runs_in_integers(op: str, tmp_path: Path) -> None:
    assert not runs_in_float(optimised(op, tmp_path, **INTEGER_OPS[op]))


@pytest.mark.parametrize("op", KEEPS_FLOAT)
def test_runs_in_float(op: str, tmp_path: Path) -> None:
    assert op not in INTEGER_OPS
    assert runs_in_float(optimised(op, tmp_path))


def test_a_symmetric_relu_runs_in_integers_from_its_lowest_number_alone(tmp_path: Path) -> None:
    """Why the target has `unsigned_symmetric`: behind a Relu the zero point must be the lowest."""
    graph = graph_of(
        "(float[n, 4, 8, 8] x) => (float[n, 4, 8, 8] y) { a = Conv(x, w) y = Relu(a) }",
        w=(4, 4, 1, 1),
    )
    data = [{"x": np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)}]
    for lowest in (None, False):
        config = QuantConfig().with_defaults(act_symmetric=True, act_unsigned_symmetric=lowest)
        sim = QuantSim(graph, config).calibrate(data)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(tmp_path / f"{lowest}.onnx")
        model = insert_qdq(graph, sim.plan, sim.encodings, constants=Constants.INTEGER)
        ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
        ops = [node.op_type for node in onnx.load(tmp_path / f"{lowest}.onnx").graph.node]
        assert ("QLinearConv" in ops) is (lowest is None)


def test_only_one_mode_of_resize_runs_in_integers(tmp_path: Path) -> None:
    assert runs_in_float(optimised("Resize", tmp_path, mode="linear"))
