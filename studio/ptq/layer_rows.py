"""A weighted layer as a product of rows: what one output position reads, and what it becomes.

Reconstruction needs no whole images: every position of a convolution's output is a sample. Rows
drawn from all images make small, cheap steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from studio.graph.model import ModelGraph
from studio.sim.plan import Layer

_ELEMENTWISE = {"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "Gelu", "Elu"}


@dataclass(frozen=True)
class Rows:
    """`inputs` (rows, groups, inputs of a group), `targets` (rows, groups, outputs of a group): the
    results that are wanted, behind the layer's activation."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


def is_product(graph: ModelGraph, layer: Layer) -> bool:
    """True for a Conv, Gemm or MatMul with constant weight, alone or with a bias and elementwise
    activations behind it."""
    head, *others = (graph.node(name) for name in layer.nodes)
    if head.op_type == "Conv":
        return all(node.op_type in _ELEMENTWISE for node in others)
    if head.op_type == "Gemm":
        plain = not _flag(head, "transA") and _factor(head, "alpha") == 1.0
        return plain and all(node.op_type in _ELEMENTWISE for node in others)
    if head.op_type == "MatMul":
        weight = head.inputs[1]
        matrix = weight is not None and weight.shape is not None and len(weight.shape) == 2
        known = weight is not None and weight.name in graph.initializers
        return matrix and known and all(n.op_type in {*_ELEMENTWISE, "Add"} for n in others)
    return False


def weight_matrix(head: ir.Node, weight: Tensor) -> Tensor:
    """`weight` as (groups, outputs of a group, inputs of a group); a view of it."""
    if head.op_type == "Conv":
        groups = _number(head, "group", 1)
        return weight.reshape(groups, weight.shape[0] // groups, -1)
    stored_by_output = head.op_type == "Gemm" and _flag(head, "transB")
    return (weight if stored_by_output else weight.t())[None]


def take_rows(
    head: ir.Node, x: Tensor, y: Tensor, weight: Tensor, count: int, generator: torch.Generator
) -> Rows:
    """`count` rows, drawn at random, of the layer that reads `x` and shall give `y`."""
    if head.op_type != "Conv":
        flat = x.reshape(-1, x.shape[-1])
        picked = torch.randperm(len(flat), generator=generator)[:count]
        return Rows(flat[picked][:, None], y.reshape(-1, y.shape[-1])[picked][:, None])
    groups, spatial = _number(head, "group", 1), weight.shape[2:]
    places = y[:, 0].numel()
    picked = torch.randperm(places, generator=generator)[:count]
    where = torch.unravel_index(picked, (len(y), *y.shape[2:]))
    padded = torch.nn.functional.pad(x, _pads(head, x, y, weight))
    strides = _numbers(head, "strides", [1] * len(spatial))
    dilations = _numbers(head, "dilations", [1] * len(spatial))
    index: list[Any] = [where[0].reshape(-1, *[1] * len(spatial)), slice(None)]
    for axis, size in enumerate(spatial):
        start = where[axis + 1] * strides[axis]
        steps = torch.arange(size) * dilations[axis]
        shape = [1] * (len(spatial) + 1)
        shape[axis + 1] = size
        index.append(start.reshape(-1, *[1] * len(spatial)) + steps.reshape(shape))
    # The batch index and those of the axes are apart: channels come last.
    patches = padded[tuple(index)].movedim(-1, 1)
    inputs = patches.reshape(len(picked), groups, -1)
    wanted: list[Any] = [where[0], slice(None), *where[1:]]
    targets = y[tuple(wanted)]
    return Rows(inputs, targets.reshape(len(picked), groups, -1))


def _pads(head: ir.Node, x: Tensor, y: Tensor, weight: Tensor) -> list[int]:
    """For `torch.nn.functional.pad`: last axis first."""
    rank = weight.ndim - 2
    given = _numbers(head, "pads", [0] * (2 * rank))
    kind = head.attributes.get("auto_pad")
    if kind is not None and kind.as_string().startswith("SAME"):
        strides = _numbers(head, "strides", [1] * rank)
        dilations = _numbers(head, "dilations", [1] * rank)
        for axis in range(rank):
            reach = (y.shape[axis + 2] - 1) * strides[axis]
            reach += (weight.shape[axis + 2] - 1) * dilations[axis] + 1
            total = max(reach - x.shape[axis + 2], 0)
            less = total // 2
            ends = (
                (less, total - less) if kind.as_string() == "SAME_UPPER" else (total - less, less)
            )
            given[axis], given[axis + rank] = ends
    pads = []
    for axis in reversed(range(rank)):
        pads += [given[axis], given[axis + rank]]
    return pads


def _number(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _flag(node: ir.Node, name: str) -> bool:
    return bool(_number(node, name, 0))


def _factor(node: ir.Node, name: str) -> float:
    attribute = node.attributes.get(name)
    return 1.0 if attribute is None else attribute.as_float()


def _numbers(node: ir.Node, name: str, default: list[int]) -> list[int]:
    attribute = node.attributes.get(name)
    return list(default) if attribute is None else list(attribute.as_ints())
