"""Small graphs for the tests of placement and simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from studio.graph.model import ModelGraph, ModelSource
from studio.graph.prepare import prepare


def graph_of(text: str, *, opset: int = 17, seed: int = 0, **shapes: tuple[int, ...]) -> ModelGraph:
    """A prepared graph from ONNX text `(inputs) => (outputs) {nodes}`, with random initializers of
    the given shapes."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {text}')
    rng = np.random.default_rng(seed)
    for name, shape in shapes.items():
        array = (rng.standard_normal(shape) * 0.5).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto)
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}{index}"
    return prepare(ModelGraph(ir.from_proto(proto), ModelSource(Path("test.onnx"))))


def conv_net(seed: int = 0) -> ModelGraph:
    """Conv+Relu, depthwise Conv+Clip, MaxPool, residual Add+Relu, pooling, Gemm, Softmax."""
    return graph_of(
        """(float[n, 3, 8, 8] x) => (float[n, 5] y) {
            low = Constant<value_float = 0.0>()
            high = Constant<value_float = 6.0>()
            a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
            b = Relu(a)
            c = Conv<pads = [1, 1, 1, 1], group = 4>(b, w2, b2)
            d = Clip(c, low, high)
            e = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d)
            f = Conv(e, w3)
            g = Add(f, e)
            h = Relu(g)
            i = GlobalAveragePool(h)
            j = Flatten(i)
            k = Gemm<transB = 1>(j, w4, b4)
            y = Softmax<axis = 1>(k)
        }""",
        seed=seed,
        w1=(4, 3, 3, 3),
        b1=(4,),
        w2=(4, 1, 3, 3),
        b2=(4,),
        w3=(4, 4, 1, 1),
        w4=(5, 4),
        b4=(5,),
    )


def batches(graph: ModelGraph, count: int = 4, size: int = 8, seed: int = 1):
    """Normally distributed inputs."""
    rng = np.random.default_rng(seed)
    value = graph.inputs[0]
    shape = [size, *(int(side) for side in list(value.shape)[1:])]
    return [{value.name: rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]
