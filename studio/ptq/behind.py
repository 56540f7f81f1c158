"""What happens to a layer's product: its bias is added, then its activation functions follow."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from studio.graph.model import ModelGraph
from studio.ptq.products import Product
from studio.ptq.weighted import weighted
from studio.runtime.executor import Executor

_ELEMENTWISE = {"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "Gelu", "Elu"}


@dataclass(frozen=True)
class Behind:
    """`bias` (groups, outputs) of the layer, zeros where it has none; `name` of the constant if it
    is the layer's own and can be changed, else "". `nodes` are the elementwise functions behind."""

    executor: Executor
    bias: Tensor
    name: str
    shape: tuple[int, ...]
    nodes: tuple[ir.Node, ...]

    @property
    def own_bias(self) -> bool:
        return self.name != ""

    def __call__(self, rows: Tensor, shift: Tensor | None) -> Tensor:
        """What becomes of products (rows, groups, outputs) with `shift` more bias."""
        value = rows + (self.bias if shift is None else self.bias + shift)
        for node in self.nodes:
            source, made = node.inputs[0], node.outputs[0].name or ""
            assert source is not None
            feed = {source.name or "": value.flatten(1)}
            value = self.executor.run_nodes([node.name or ""], feed, [made])[made]
            value = value.view_as(rows)
        return value

    def moved_bias(self, shift: Tensor) -> dict[str, Tensor]:
        """The bias with `shift` added, by name."""
        return {self.name: (self.bias + shift).float().reshape(self.shape)}


def behind(graph: ModelGraph, product: Product, executor: Executor) -> Behind:
    """What follows `product` in its layer, up to the first thing that is not elementwise;
    `executor` runs the float graph."""
    layer, found = product.layer, weighted(product.head)
    groups, outputs = product.index.shape[:2]
    bias, name, shape = torch.zeros(groups, outputs), "", (outputs,)
    rest = [graph.node(node) for node in layer.nodes[1:]]
    if not isinstance(found, str) and found.bias:
        array = graph.constant(found.bias)
        bias = torch.tensor(array).reshape(groups, outputs)
        if layer.bias == found.bias:
            name, shape = found.bias, array.shape
        if product.head.op_type == "MatMul":
            rest = rest[1:]  # the Add
    nodes: list[ir.Node] = []
    for node in rest:
        if node.op_type not in _ELEMENTWISE:
            break
        nodes.append(node)
    return Behind(executor, bias, name, shape, tuple(nodes))
