"""Random chains of layers with channels of very different ranges, and samples for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from studio.data.arrays import ArrayData
from studio.data.dataset import InputSpec
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.prepare import prepare
from studio.jobs.events import CancelToken, silent
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.quantized_model import QuantizedModel, quantized_model
from studio.techniques.technique import Samples

SIDE = 6
ACTIVATIONS = ("Relu", "PRelu", "LeakyRelu", "Clip06", "Clip-12", "")
BETWEEN = ("MaxPool", "AveragePool", "Pad", "Resize", "", "", "")
LAYERS = ("Conv", "Grouped", "Depthwise", "ConvTranspose", "GroupedTranspose")


class Net:
    """An ONNX graph that grows at its end; `channels` at present."""

    def __init__(self, seed: int, spread: float = 2.0, rank: int = 2) -> None:
        self.rng = np.random.default_rng(seed)
        self.spread = spread
        self.rank = rank
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.value, self.channels, self.side = "x", 3, SIDE

    def constant(self, name: str, array: object) -> str:
        name = f"{name}{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def add(self, op: str, *constants: str, **attributes: object) -> Net:
        made = f"t{len(self.nodes)}"
        inputs = [self.value, *constants]
        self.nodes.append(helper.make_node(op, inputs, [made], f"{op}_{made}", **attributes))
        self.value = made
        return self

    def numbers(self, *shape: int, axis: int = 0) -> np.ndarray:
        """Random numbers whose channels along `axis` differ in size by powers of e."""
        sizes = np.exp(self.rng.uniform(-self.spread, self.spread, shape[axis]))
        along = [1] * len(shape)
        along[axis] = -1
        array = self.rng.standard_normal(shape) * sizes.reshape(along)
        return (array / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def layer(self, kind: str, outputs: int, bias: bool = True) -> Net:
        kernel = [3] * self.rank
        groups = {"Conv": 1, "ConvTranspose": 1, "Depthwise": self.channels}.get(kind, 2)
        if kind == "Depthwise":
            outputs = self.channels
        if self.channels % groups or outputs % groups:
            groups = 1
        transposed = kind in ("ConvTranspose", "GroupedTranspose")
        if transposed:
            shape = (self.channels, outputs // groups, *kernel)
        else:
            shape = (outputs, self.channels // groups, *kernel)
        operands = [self.constant("w", self.numbers(*shape))]
        if bias:
            operands.append(self.constant("b", self.numbers(outputs)))
        self.channels = outputs
        return self.add(
            "ConvTranspose" if transposed else "Conv",
            *operands,
            pads=[1, 1] * self.rank,
            group=groups,
        )

    def activation(self, kind: str) -> Net:
        if kind == "PRelu":
            shape = (self.channels, *[1] * self.rank)
            slope = self.rng.uniform(0, 0.5, shape).astype(np.float32)
            return self.add("PRelu", self.constant("slope", slope))
        if kind.startswith("Clip"):
            low, high = {"Clip06": (0.0, 0.7), "Clip-12": (-0.3, 0.5)}[kind]
            bounds = [self.constant("bound", np.float32(bound)) for bound in (low, high)]
            return self.add("Clip", *bounds)
        return self.add(kind) if kind else self

    def between(self, kind: str) -> Net:
        if kind.endswith("Pool"):
            return self.add(kind, kernel_shape=[3] * self.rank, pads=[1, 1] * self.rank)
        if kind == "Pad":
            pads = [0, 0, *[1] * self.rank, 0, 0, *[0] * self.rank]
            self.side += 1
            return self.add("Pad", self.constant("pads", np.array(pads, np.int64)))
        if kind == "Resize":
            scales = np.array([1, 1, *[2] * self.rank], np.float32)
            self.side *= 2
            return self.add(
                "Resize", self.constant("roi", np.zeros(0, np.float32)),
                self.constant("scales", scales), mode="nearest",
            )  # fmt: skip
        return self

    def matrix(self, kind: str, outputs: int, inputs: int) -> Net:
        self.channels = outputs
        if kind == "Gemm":
            operands = [self.numbers(outputs, inputs), self.numbers(outputs)]
            names = [self.constant("w", array) for array in operands]
            return self.add("Gemm", *names, transB=1)
        self.add("MatMul", self.constant("w", self.numbers(inputs, outputs, axis=1)))
        return self.add("Add", self.constant("b", self.numbers(outputs)))

    def graph(self) -> ModelGraph:
        return prepare(ModelGraph(ir.from_proto(self.model()), ModelSource(Path("chain.onnx"))))

    def model(self) -> onnx.ModelProto:
        inputs = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input_shape)
        output = helper.make_empty_tensor_value_info(self.value)
        output.type.tensor_type.elem_type = TensorProto.FLOAT
        constants = [numpy_helper.from_array(a, n) for n, a in self.constants.items()]
        proto = helper.make_graph(self.nodes, "chain", [inputs], [output], constants)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(proto, opset_imports=opset, ir_version=9)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model)
        return model

    @property
    def input_shape(self) -> list[int | str]:
        return ["n", 3, *[SIDE] * self.rank]


@st.composite
def chains(draw: st.DrawFn) -> ModelGraph:
    """Convolutions of all kinds, what may stand between them, and matrices at the end."""
    net = Net(draw(st.integers(0, 2**16)), rank=draw(st.sampled_from([1, 2, 2, 2])))
    for _ in range(draw(st.integers(1, 4))):
        outputs = draw(st.sampled_from([2, 4, 6]))
        net.layer(draw(st.sampled_from(LAYERS)), outputs, draw(st.booleans()))
        net.activation(draw(st.sampled_from(ACTIVATIONS)))
        net.between(draw(st.sampled_from(BETWEEN)))
    if draw(st.booleans()):
        net.add("GlobalAveragePool")
        net.side = 1
    if draw(st.booleans()):
        net.add("Flatten")
        inputs = net.channels * net.side**net.rank
        net.matrix(draw(st.sampled_from(["Gemm", "MatMul"])), 4, inputs)
        net.activation(draw(st.sampled_from(["Relu", "Clip06", "LeakyRelu"])))
        net.matrix(draw(st.sampled_from(["Gemm", "MatMul"])), 3, 4)
    return net.graph()


def mobile_net(seed: int = 0, spread: float = 2.0, clip: str = "Clip06") -> ModelGraph:
    """Two inverted bottlenecks without shortcuts, and a classifier of five."""
    return bottlenecks(seed, spread, clip).graph()


def bottlenecks(seed: int, spread: float, clip: str) -> Net:
    net = Net(seed, spread)
    for _ in range(2):
        net.layer("Conv", 8).activation(clip)
        net.layer("Depthwise", 8).activation(clip)
        net.layer("Conv", 4)
    return net.add("GlobalAveragePool").add("Flatten").matrix("Gemm", 5, 4)


def feeds(graph: ModelGraph, count: int = 32, seed: int = 1) -> dict[str, np.ndarray]:
    value = graph.inputs[0]
    assert value.shape is not None
    shape = [count, *(int(size) for size in list(value.shape)[1:])]  # type: ignore[arg-type]
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return {value.name or "": array}


def samples(graph: ModelGraph, count: int = 32) -> Samples:
    arrays = feeds(graph, count)
    specs = [InputSpec(n, (None, *a.shape[1:]), a.dtype) for n, a in arrays.items()]
    data = ArrayData("random", arrays, None, specs)
    return Samples(data, data, data)


def calibrated(graph: ModelGraph, **settings: object) -> QuantizedModel:
    config = QuantConfig().with_defaults(**settings)
    tensors = place(graph, config).observed
    found = collect_statistics(
        graph, tensors, [feeds(graph)], 32, emit=silent, cancel=CancelToken()
    )
    return quantized_model(graph, config, found, {})
