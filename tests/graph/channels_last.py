"""Graphs as converters from TensorFlow write them: channels last, a Transpose at every layer."""

from __future__ import annotations

import numpy as np
import onnx
from graph_models import make_model, node

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


class ChannelsLast:
    """Builds a graph over `x` [N, height, width, channels], one method an operator."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.count = 0

    def floats(self, *shape: int) -> str:
        return self.constant(self.random.uniform(-1, 1, shape).astype(np.float32))

    def constant(self, array: np.ndarray) -> str:
        name = f"const_{len(self.weights)}"
        self.weights[name] = array
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        self.count += 1
        output = f"{kind.lower()}_{self.count}"
        self.nodes.append(node(kind, list(inputs), [output], name=f"n_{output}", **attributes))
        return output

    def first(self, value: str, kind: str, *inputs: str, **attributes: object) -> str:
        """An operator that wants channels first, between two Transposes."""
        turned = self.op("Transpose", value, perm=TO_FIRST)
        return self.op("Transpose", self.op(kind, turned, *inputs, **attributes), perm=TO_LAST)

    def conv(self, value: str, inputs: int, outputs: int, kernel: int = 1, **attributes: object):
        """Conv, and its bias added to the channels-last result."""
        group = int(attributes.get("group", 1))
        weight = self.floats(outputs, inputs // group, kernel, kernel)
        pads = {"pads": [kernel // 2] * 4} if "auto_pad" not in attributes else {}
        result = self.first(value, "Conv", weight, **{**pads, **attributes})
        return self.op("Add", result, self.floats(outputs))

    def relu6(self, value: str) -> str:
        low, high = self.constant(np.float32(0)), self.constant(np.float32(6))
        return self.op("Clip", value, low, high)

    def model(self, output: str, x: tuple[int | str, ...]) -> onnx.ModelProto:
        self.nodes.append(node("Identity", [output], ["y"]))
        return make_model(self.nodes, self.weights, x=x)


def mobile_net() -> onnx.ModelProto:
    """Normalisation, Pad and stem, inverted residuals with squeeze and excitation, classifier."""
    net = ChannelsLast()
    x = net.op("Mul", "x", net.constant(np.float32(1 / 127.5)))
    x = net.op("Sub", x, net.constant(np.ones(3, np.float32)))
    x = net.op("Pad", x, net.constant(np.array([0, 0, 0, 0, 0, 1, 1, 0])))
    x = net.relu6(net.conv(x, 3, 8, 3, strides=[2, 2], pads=[0, 0, 0, 0]))
    for _ in range(2):
        wide = net.relu6(net.conv(x, 8, 16))
        deep = net.relu6(net.conv(wide, 16, 16, 3, group=16))
        mean = net.op("ReduceMean", deep, axes=[1, 2], keepdims=1)
        gate = net.op("Relu", net.conv(mean, 16, 4))
        gate = net.op("Sigmoid", net.conv(gate, 4, 16))
        x = net.op("Add", net.conv(net.op("Mul", deep, gate), 16, 8), x)
    parts = net.op("Concat", x, net.op("Relu", x), axis=3)
    scale, shift = net.floats(16), net.floats(16)
    x = net.op("Relu", net.op("Add", net.op("Mul", parts, scale), shift))
    x = net.conv(x, 16, 12, strides=[2, 2], auto_pad="SAME_UPPER")
    x = net.first(x, "MaxPool", kernel_shape=[2, 2], strides=[1, 1])
    x = net.op("ReduceMean", x, axes=[1, 2], keepdims=0)
    x = net.op("Reshape", x, net.constant(np.array([-1, 12])))
    x = net.op("Add", net.op("MatMul", x, net.floats(12, 5)), net.floats(5))
    return net.model(net.op("Softmax", x, axis=-1), ("N", 16, 16, 3))
