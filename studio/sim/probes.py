"""Reading large activations without fetching them.

Fetching every activation of a convolutional network costs more than running it: engines keep them
in a layout of their own, which has to be turned around, and in caches, which they then leave. The
highest value of each channel and every n-th pixel are small, and pooling makes both in the engine's
own layout. That is enough where an activation function has set the lower end of the range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from studio.graph.model import ModelGraph

_WORTH = 4
"""A tensor is read through a probe if it has this many times the elements that are counted."""


@dataclass(frozen=True)
class Probe:
    """Names of the tensors that stand for one: the highest value of each channel, and pixels.

    skip: rows and columns of pixels to leave out: the first ones are always the border, which
    would count too much.
    """

    highest: str
    pixels: str
    skip: int


def add_probes(
    graph: ModelGraph, shapes: Mapping[str, tuple[int, ...]], counted: int
) -> tuple[ModelGraph, dict[str, Probe]]:
    """`graph` with a probe at every tensor of `shapes` where one is worth it, by tensor.

    shapes: of one sample each, the batch axis included. counted: elements of a sample that are to
    be seen, about. `graph` itself if there is no such tensor.
    """
    wanted = {
        name: stride
        for name, shape in shapes.items()
        if (stride := _stride(graph.value(name), shape, counted)) > 1
    }
    if not wanted:
        return graph, {}
    copy = graph.ir.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    probes = {}
    for name, stride in wanted.items():
        value = values[name]
        highest = ir.node("GlobalMaxPool", [value], name=f"{name}_highest")
        attributes = {"kernel_shape": [1, 1], "strides": [stride, stride]}
        pixels = ir.node("MaxPool", [value], attributes, name=f"{name}_pixels")
        for node in (highest, pixels):
            node.outputs[0].name = node.name
            node.outputs[0].dtype = ir.DataType.FLOAT
        producer = value.producer()
        assert producer is not None
        copy.graph.insert_after(producer, [highest, pixels])
        probes[name] = Probe(f"{name}_highest", f"{name}_pixels", _skip(shapes[name], stride))
    return replace(graph, ir=copy), probes


def _stride(value: ir.Value, shape: tuple[int, ...], counted: int) -> int:
    """Distance of the pixels that are read; 1 where all have to be."""
    if len(shape) != 4 or not _starts_at_zero(value):
        return 1
    elements = math.prod(shape[1:])
    if elements < _WORTH * counted:
        return 1
    return min(int(math.sqrt(elements / counted)), *shape[2:])


def _skip(shape: tuple[int, ...], stride: int) -> int:
    """1 if the first row would count more than twice its share (of both borders), else 0."""
    rows, columns = (math.ceil(size / stride) for size in shape[2:])
    return int(min(rows, columns) > 1 and 1 / rows > 2 * 2 / shape[2])


def _starts_at_zero(value: ir.Value) -> bool:
    """True behind a Relu, or a Clip from 0 or above."""
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "Relu":
        return True
    low = node.inputs[1] if node.op_type == "Clip" and len(node.inputs) > 1 else None
    if low is None or low.const_value is None:
        return False
    return bool((low.const_value.numpy() >= 0).all())
