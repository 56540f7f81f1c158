"""Convolutions and matrices alike: their weights by group, output channel and input channel."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from studio.graph.additions import Additions, with_additions
from studio.graph.edit import array_of, input_of, int_attribute, is_op, only_consumer
from studio.graph.model import ModelGraph


@dataclass(frozen=True)
class Weighted:
    """A Conv, ConvTranspose, Gemm or MatMul with a weight of its own; `groups` of its channels.

    weight: its name. bias: name of what is added for each output channel by itself, or by the Add
    behind a MatMul ("": nothing); `output` is the tensor behind that. axis: of `output` (and of
    what the layer reads), along which the channels lie; the last is -1.
    """

    node: ir.Node
    weight: str
    groups: int
    outputs: int
    inputs: int
    bias: str
    output: ir.Value
    axis: int

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def source(self) -> str:
        """The tensor that the layer reads."""
        value = self.node.inputs[0]
        assert value is not None
        return value.name or ""

    @property
    def depthwise(self) -> bool:
        return self.groups == self.inputs == self.outputs > 1

    def matrix(self, array: np.ndarray) -> np.ndarray:
        """A weight as (groups, outputs of a group, inputs of a group, kernel), float64."""
        array = array.astype(np.float64)
        out, into = self.outputs // self.groups, self.inputs // self.groups
        if self.node.op_type == "Conv":
            return array.reshape(self.groups, out, into, -1)
        if self.node.op_type == "ConvTranspose":
            return array.reshape(self.groups, into, out, -1).swapaxes(1, 2)
        return (array if self._by_output else array.T)[None, :, :, None]

    def restored(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """`matrix` in the layout of the weight, of `shape`."""
        if self.node.op_type == "ConvTranspose":
            matrix = matrix.swapaxes(1, 2)
        elif self.node.op_type != "Conv":
            plain = matrix[0, :, :, 0]
            matrix = plain if self._by_output else plain.T
        return matrix.reshape(shape)

    @property
    def _by_output(self) -> bool:
        return self.node.op_type == "Gemm" and bool(int_attribute(self.node, "transB", 0))

    def of_outputs(self, numbers: np.ndarray) -> np.ndarray:
        """One number for each output channel, to multiply a matrix with."""
        return numbers.reshape(self.groups, -1, 1, 1)

    def of_inputs(self, numbers: np.ndarray) -> np.ndarray:
        """One number for each input channel, to multiply a matrix with."""
        return numbers.reshape(self.groups, 1, -1, 1)


def weighted(node: ir.Node) -> Weighted | str:
    """`node` as a layer with weights; else what keeps it from being one, "" for any other op."""
    if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return ""
    weight = node.inputs[1]
    array = array_of(weight)
    if weight is None or array is None:
        return "its weight is not a constant"
    if len(weight.uses()) != 1:
        return "it shares its weight with other layers"
    if is_op(node, "MatMul") and array.ndim != 2:
        return "its weight is not one matrix"
    if is_op(node, "Gemm") and int_attribute(node, "transA", 0):
        return "it transposes what it reads"
    groups = int_attribute(node, "group", 1) if is_op(node, "Conv", "ConvTranspose") else 1
    if is_op(node, "Conv"):
        outputs, inputs = array.shape[0], array.shape[1] * groups
    elif is_op(node, "ConvTranspose"):
        outputs, inputs = array.shape[1] * groups, array.shape[0]
    else:
        outputs, inputs = array.shape
        if is_op(node, "MatMul") or not int_attribute(node, "transB", 0):
            outputs, inputs = inputs, outputs
    output, bias = node.outputs[0], input_of(node, 2)
    if is_op(node, "MatMul"):
        bias, output = _added(node, outputs)
    if bias is not None:
        numbers = array_of(bias)
        if numbers is None or numbers.size != outputs or len(bias.uses()) != 1:
            return "its bias is not a constant of its own for each channel"
    axis = 1 if is_op(node, "Conv", "ConvTranspose") else -1
    name = "" if bias is None else bias.name or ""
    return Weighted(node, weight.name or "", groups, outputs, inputs, name, output, axis)


def _added(node: ir.Node, outputs: int) -> tuple[ir.Value | None, ir.Value]:
    """The constant that an Add behind the MatMul `node` adds to each channel, and its result."""
    output = node.outputs[0]
    add = only_consumer(output)
    if add is None or not is_op(add, "Add"):
        return None, output
    other = next((value for value in add.inputs if value is not output), None)
    numbers = array_of(other)
    if numbers is None or math.prod(numbers.shape[:-1]) != 1 or numbers.shape[-1:] != (outputs,):
        return None, output
    return other, add.outputs[0]


def weighted_layers(graph: ModelGraph) -> dict[str, Weighted]:
    """Every layer with weights by its node's name, in execution order."""
    found = {node.name or "": weighted(node) for node in graph.nodes()}
    return {name: item for name, item in found.items() if isinstance(item, Weighted)}


def with_biases(graph: ModelGraph, layers: Iterable[Weighted]) -> ModelGraph:
    """`graph`, where every one of `layers` that can have a bias has one, of zeros where it had
    none; a MatMul cannot."""
    missing = [item for item in layers if not item.bias and not is_op(item.node, "MatMul")]
    if not missing:
        return graph
    return with_additions(graph, Additions(biases=frozenset(item.name for item in missing)))
