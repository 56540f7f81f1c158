"""Which input of an Add is the shortcut of a residual block, as NVIDIA's ModelOpt decides it.

TensorRT runs Conv + Add + Relu as one kernel if the Conv's result reaches the Add as it is and the
shortcut is rounded: the kernel's output then has the shortcut's type. (ModelOpt,
`modelopt/onnx/quantization/graph_utils.py`, `build_non_residual_input_map`; NVIDIA's
pytorch-quantization, tutorial quant_resnet50.)
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from studio.graph.model import is_constant

_HEADS = ("Conv", "ConvTranspose")
_FUSIBLE = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "BatchNormalization")
_WITH_CONSTANT = ("Add", "Mul")


def shortcut(add: ir.Node, position: Mapping[ir.Node, int]) -> int | None:
    """0 or 1: the input of `add` that is rounded; None where neither is.

    `position`: place of every node in execution order. An input that comes from a convolution
    through ops that fuse with it (its backbone) ends a branch. With a constant or a graph input
    neither is rounded, nor without any backbone, nor where both have the same. With two, the branch
    with the longer way from the last common ancestor is the one that stays as it is.
    """
    values = list(add.inputs)
    if len(values) != 2 or any(value is None or is_constant(value) for value in values):
        return None
    nodes = [value.producer() for value in values if value is not None]
    first, second = nodes
    if first is None or second is None or first is second:
        return None
    backbones = [_backbone(first), _backbone(second)]
    if backbones[0] is backbones[1]:
        return None
    if backbones[1] is None:
        return 1
    if backbones[0] is None:
        return 0
    ways = _ways_from_common(first, second, position)
    return 1 if ways[0] >= ways[1] else 0


def _backbone(node: ir.Node) -> ir.Node | None:
    """The convolution whose result reaches the output of `node` through ops that fuse with it."""
    current: ir.Node | None = node
    while current is not None and current.op_type not in _HEADS:
        operands = [value for value in current.inputs if value is not None]
        data = [value for value in operands if not is_constant(value)]
        gate = _gated(current, data)
        if gate is not None:
            data = [gate]
        elif current.op_type in _WITH_CONSTANT:
            data = data if len(data) == 1 and len(operands) == 2 else []
        elif current.op_type not in _FUSIBLE:
            data = []
        current = data[0].producer() if data else None
    return current


def _gated(node: ir.Node, data: list[ir.Value]) -> ir.Value | None:
    """x where `node` is x * sigmoid(x), a SiLU."""
    if node.op_type != "Mul" or len(data) != 2:
        return None
    for x, gate in (data, data[::-1]):
        producer = gate.producer()
        if producer is not None and producer.op_type == "Sigmoid" and producer.inputs[0] is x:
            return x
    return None


def _ways_from_common(
    first: ir.Node, second: ir.Node, position: Mapping[ir.Node, int]
) -> tuple[int, int]:
    """Longest ways, in nodes, from the last node that both depend on (or the start) to each."""
    above = [_ancestors(first), _ancestors(second)]
    common = above[0] & above[1]
    last = max(common, key=position.__getitem__, default=None)
    return _longest(first, last, above[0], position), _longest(second, last, above[1], position)


def _ancestors(node: ir.Node) -> set[ir.Node]:
    """`node` and all that it depends on."""
    found, waiting = {node}, [node]
    while waiting:
        for before in waiting.pop().predecessors():
            if before not in found:
                found.add(before)
                waiting.append(before)
    return found


def _longest(
    end: ir.Node, start: ir.Node | None, nodes: set[ir.Node], position: Mapping[ir.Node, int]
) -> int:
    lengths: dict[ir.Node, int] = {}
    first = -1 if start is None else position[start]
    for node in sorted(nodes, key=position.__getitem__):
        if position[node] < first:
            continue
        before = [lengths[other] for other in node.predecessors() if other in lengths]
        if node is start or start is None:
            lengths[node] = max(before, default=-1) + 1 if start is None else 0
        elif before:
            lengths[node] = max(before) + 1
    return lengths.get(end, 0)
