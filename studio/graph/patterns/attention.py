"""Scaled dot-product attention: softmax(scale q k^T + mask) v (Vaswani 2017).

The products stay layers of their own, for they are what a runtime computes in integers. Scale, mask
and Softmax become one layer: masked scores of -1e9 or -inf must not enter the range of a quantized
tensor. What is only computed to be added to the scores stays float for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from studio.graph.edit import array_of, input_of, is_op, only_consumer
from studio.graph.model import Change, is_constant, is_float
from studio.graph.patterns import marks
from studio.graph.patterns.marks import BLOCK, LAYER
from studio.graph.patterns.match import scalar
from studio.graph.patterns.rule import Group, Naming, is_closed, mark_group

STEPS = 8  # operators between the product and Softmax, at most
STRONG = -1e3  # a mask's number: no score is as low
MASK_REASON = "only added to attention scores before Softmax: used in float"
PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "LSTM", "GRU", "RNN")
MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast")


@dataclass(frozen=True)
class Scores:
    """What leads to a Softmax: the product of q and k (None: something else), the operators from
    it on, and the tensors that mask."""

    product: ir.Node | None
    nodes: tuple[ir.Node, ...] = ()
    masks: tuple[ir.Value, ...] = ()

    def then(self, node: ir.Node, *masks: ir.Value | None) -> Scores:
        more = tuple(mask for mask in masks if mask is not None)
        return Scores(self.product, (*self.nodes, node), (*self.masks, *more))


class AttentionRule:
    """Marks masked Softmax layers and attention blocks, and keeps masks in float."""

    name = "recognise attention"
    description = (
        "Treat scale, mask and Softmax of an attention as one layer, keep its masks in float, "
        "and show the whole attention as one block."
    )

    def run(self, model: ir.Model) -> list[Change]:
        """Mark anew; says which layers and blocks were not marked so before."""
        graph = model.graph
        before = marks.clear(graph, self.name)
        marks.clear_floats(graph, self.name)
        naming = Naming(graph)
        changes: list[Change] = []
        masks: list[ir.Value] = []
        readers: set[ir.Node] = set()
        for softmax in graph:
            if not is_op(softmax, "Softmax") or marks.layer_of(softmax) is not None:
                continue
            scores = _scores(softmax.inputs[0], STEPS)
            if scores is None:
                continue
            layer = _softmax_layer(softmax, scores)
            if len(layer.nodes) > 1 and is_closed(layer):
                changes += mark_group(layer, LAYER, self.name, naming, before)
            block = _block(layer, scores)
            if block is not None:
                changes += mark_group(block, BLOCK, self.name, naming, before)
            masks += scores.masks
            readers |= layer.nodes
        for native in graph:
            if native.op_type == "Attention" and native.domain in ("", "ai.onnx"):
                mask = input_of(native, 3)
                masks += [mask] if mask is not None else []
                readers.add(native)
        for value in _only_masks(graph, masks, readers):
            marks.leave_float(value, MASK_REASON, self.name)
        return changes


def _scores(value: ir.Value | None, steps: int) -> Scores | None:
    """The way from the product of q and k to `value`; None if there is none."""
    node = value.producer() if value is not None else None
    if value is None or node is None:
        return None
    if is_op(node, "MatMul", "Einsum") and not any(map(is_constant, node.inputs)):
        return Scores(node)
    if not steps or only_consumer(value) is None:
        return None
    first, second = input_of(node, 0), input_of(node, 1)
    if is_op(node, "Mul", "Div", "Max", "Min", "Clip", "Reshape"):
        pairs = [(first, second)] + ([(second, first)] if is_op(node, "Mul", "Max", "Min") else [])
        for data, other in pairs:
            if is_op(node, "Reshape", "Clip") or is_constant(other) or _is_single(other):
                found = _scores(data, steps - 1)
                if found is not None:
                    return found.then(node)
    if is_op(node, "Add", "Sub"):
        found = _scores(first, steps - 1)
        if found is not None:
            return found.then(node, second)
        found = _scores(second, steps - 1) if is_op(node, "Add") else None
        if found is not None:
            return found.then(node, first)
        return _masked_otherwise(node, ((first, second), (second, first)))
    if is_op(node, "Where"):
        fills = ((second, input_of(node, 2)), (input_of(node, 2), second))
        for data, fill in fills:
            found = _scores(data, steps - 1)
            if found is not None:
                return found.then(node, fill)
        return _masked_otherwise(node, fills)
    return None


def _masked_otherwise(
    node: ir.Node, pairs: Iterable[tuple[ir.Value | None, ir.Value | None]]
) -> Scores | None:
    """A mask on scores that are no product, if a constant of it is too low for any score."""
    for _, mask in pairs:
        array = array_of(mask)
        if array is not None and array.size and np.min(array) <= STRONG:
            return Scores(None).then(node, mask)
    return None


def _is_single(value: ir.Value | None) -> bool:
    """A tensor of one element, say a scale computed from a shape."""
    return value is not None and value.shape is not None and all(s == 1 for s in value.shape)


def _softmax_layer(softmax: ir.Node, scores: Scores) -> Group:
    """The layer from the scores to the probabilities, with the guard against rows all masked."""
    nodes, last = {*scores.nodes, softmax}, softmax
    users = [use.node for use in softmax.outputs[0].uses()]
    test = next((node for node in users if is_op(node, "IsNaN")), None)
    choice = only_consumer(test.outputs[0]) if test is not None else None
    guards = {test, choice} if test is not None and is_op(choice, "Where") else set()
    if choice is not None and guards == set(users) and is_constant(input_of(choice, 1)):
        nodes.update(users)
        last = choice
    return Group("Softmax", frozenset(nodes), last)


def _block(layer: Group, scores: Scores) -> Group | None:
    """Everything from q, k and v to their product."""
    if scores.product is None:
        return None
    nodes = {*layer.nodes, scores.product}
    value = layer.last.outputs[0]
    follower = only_consumer(value)
    while follower is not None and is_op(follower, *MOVES) and follower.inputs[0] is value:
        nodes.add(follower)
        value = follower.outputs[0]
        follower = only_consumer(value)
    if follower is None or not is_op(follower, "MatMul", "Einsum"):
        return None
    nodes.add(follower)
    for operand in scores.product.inputs:
        nodes |= _scaled(operand, scores.product)
    return Group("Attention", frozenset(nodes), follower, "Attention")


def _scaled(operand: ir.Value | None, reader: ir.Node) -> set[ir.Node]:
    """Scale and transposition of q or k, where nothing else reads them."""
    nodes: set[ir.Node] = set()
    while operand is not None and only_consumer(operand) is reader:
        node = operand.producer()
        if node is None:
            break
        scales = is_op(node, "Mul", "Div") and any(
            scalar(value) is not None or _is_single(value) for value in node.inputs
        )
        if not scales and not is_op(node, "Transpose"):
            break
        nodes.add(node)
        candidates = [value for value in node.inputs if scalar(value) is None]
        operand, reader = (candidates[0] if candidates else None), node
    return nodes


def _only_masks(
    graph: ir.Graph, masks: list[ir.Value], readers: set[ir.Node]
) -> Iterable[ir.Value]:
    """Float tensors from which nothing but `masks` is computed, and the masks themselves."""
    reached = set(masks)
    for node in reversed(list(graph)):
        outputs = [value for value in node.outputs if value in reached]
        if not outputs or is_op(node, *PRODUCTS) or _is_lookup(node):
            continue
        if all(_read_only_by(value, readers) for value in node.outputs):
            readers.add(node)
            reached.update(value for value in node.inputs if value is not None)
            yield from (value for value in outputs if is_float(value))
    for value in graph.inputs:
        if value in reached and is_float(value) and _read_only_by(value, readers):
            yield value


def _is_lookup(node: ir.Node) -> bool:
    """A learned table, of position biases for example."""
    return is_op(node, "Gather") and is_constant(node.inputs[0])


def _read_only_by(value: ir.Value, readers: set[ir.Node]) -> bool:
    return not value.is_graph_output() and all(use.node in readers for use in value.uses())


ATTENTION = AttentionRule()
