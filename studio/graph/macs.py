"""Multiply-accumulates of the operators that hold nearly all of a network's work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from studio.graph.edit import input_of, int_attribute, is_op

Sizes = Callable[[ir.Value], Sequence[int] | None]

RECURRENT_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
MAC_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Attention", *RECURRENT_GATES)


def node_macs(node: ir.Node, sizes: Sizes) -> int | None:
    """Multiply-accumulates of `node` where `sizes` tells the shape of a value.

    None for operators not in `MAC_OPS`, whose work is negligible beside those, and where a size is
    unknown. Conv, ConvTranspose: kernel volume times input channels of a group for each output
    (input) element. Recurrent layers: W and R products of every gate, time step and direction.
    """
    if not is_op(node, *MAC_OPS):
        return None
    if node.op_type in RECURRENT_GATES:
        return _recurrent(node, sizes)
    if is_op(node, "Einsum"):
        return _einsum(node, sizes)
    if is_op(node, "Attention"):
        return _attention(node, sizes)
    data, weight = input_of(node, 0), input_of(node, 1)
    if data is None or weight is None:
        return None
    made, read, weights = sizes(node.outputs[0]), sizes(data), sizes(weight)
    if made is None or read is None or weights is None or not read:
        return None
    if is_op(node, "Conv"):
        return math.prod(made) * math.prod(weights[1:])
    if is_op(node, "ConvTranspose"):
        return math.prod(read) * math.prod(weights[1:])
    inner = read[0] if is_op(node, "Gemm") and int_attribute(node, "transA", 0) else read[-1]
    return math.prod(made) * inner


def _recurrent(node: ir.Node, sizes: Sizes) -> int | None:
    data, weight, recurrence = (input_of(node, index) for index in range(3))
    if data is None or weight is None or recurrence is None:
        return None
    read, w, r = sizes(data), sizes(weight), sizes(recurrence)
    if read is None or w is None or r is None or len(read) != 3:
        return None
    return read[0] * read[1] * (math.prod(w) + math.prod(r))


def _einsum(node: ir.Node, sizes: Sizes) -> int | None:
    """Every combination of index values once; an ellipsis is not looked into."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    known: dict[str, int] = {}
    for term, value in zip(terms, node.inputs, strict=True):
        shape = None if value is None else sizes(value)
        if shape is None or len(shape) != len(term):
            return None
        for letter, size in zip(term, shape, strict=True):
            known[letter] = max(known.get(letter, 1), size)
    return math.prod(known.values()) if len(terms) > 1 else 0


def _attention(node: ir.Node, sizes: Sizes) -> int | None:
    """Scores and weighted sum: output elements (heads x head size) times the keys, twice."""
    key = input_of(node, 1)
    made, keys = sizes(node.outputs[0]), None if key is None else sizes(key)
    if made is None or keys is None:
        return None
    return 2 * math.prod(made) * keys[-2]
