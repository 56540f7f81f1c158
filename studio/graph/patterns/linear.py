"""MatMul with a constant matrix and a bias added to it: a linear layer."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import is_op, only_consumer
from studio.graph.model import is_constant
from studio.graph.patterns.rule import Group, Rule


def find_linear(node: ir.Node) -> Group | None:
    """Add(MatMul(x, W), b) with one number of b for each column of W."""
    for position, product in enumerate(node.inputs):
        matmul = product.producer() if product is not None else None
        if product is None or not is_op(matmul, "MatMul") or only_consumer(product) is not node:
            continue
        assert matmul is not None
        weight, bias = matmul.inputs[1], node.inputs[1 - position]
        if is_constant(weight) and _is_bias(bias, weight):
            return Group("Linear", frozenset([matmul, node]), node, matmul.name or "")
    return None


def _is_bias(bias: ir.Value | None, weight: ir.Value | None) -> bool:
    if bias is None or weight is None or not is_constant(bias):
        return False
    if bias.shape is None or weight.shape is None or len(weight.shape) < 2 or not bias.shape:
        return False
    return bias.shape[-1] == weight.shape[-1] and all(size == 1 for size in bias.shape[:-1])


LINEAR = Rule(
    "recognise linear layers",
    "Treat MatMul with a constant matrix and the bias added to it as one layer.",
    frozenset(["MatMul"]),
    frozenset(["Add"]),
    find_linear,
)
