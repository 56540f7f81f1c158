"""Batch normalization at inference is an affine map per channel: fold it into its neighbour.

BN(x) = k x + s with k = gamma / sqrt(var + eps), s = beta - mean k. The layer before it has
priority over the layer behind it; where neither can take it, it becomes a scale and a shift.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    absorb,
    add_constant,
    array_of,
    bypass,
    can_bypass,
    float_attribute,
    input_of,
    insert_before,
    int_attribute,
    is_op,
    replace_node,
)
from studio.graph.model import Change
from studio.graph.prepare.channels import Affine, rank_of
from studio.graph.prepare.linear import (
    CannotFoldError,
    Place,
    fold_before,
    fold_behind,
    place_before,
    place_behind,
)
from studio.graph.scopes import title

FOLD = "fold batch norm"
SPLIT = "split batch norm"


def fold_batch_norms(model: ir.Model) -> list[Change]:
    """Fold every BatchNormalization that has a layer to go into."""
    changes: list[Change] = []
    nodes = [node for node in model.graph if is_op(node, "BatchNormalization")]
    names = Names(model.graph) if nodes else None
    for node in nodes:
        try:
            assert names is not None
            changes.append(_fold(node, names))
        except CannotFoldError:
            continue
    return changes


def split_batch_norms(model: ir.Model) -> list[Change]:
    """Mul by k and Add of s in the place of every BatchNormalization that has no layer."""
    changes: list[Change] = []
    nodes = [node for node in model.graph if is_op(node, "BatchNormalization")]
    names = Names(model.graph) if nodes else None
    for node in nodes:
        try:
            _check_inference(node)
            affine = _affine(node)
        except CannotFoldError:
            continue
        source, reason = node.inputs[0], _reason(node)
        if source is None or rank_of(source) is None or not reason:  # the rule before takes it
            continue
        detail = f"Became a scale and a shift for each channel: it cannot be folded, {reason}."
        changes.append(Change(SPLIT, title(node), detail))
        assert names is not None
        _split(node, source, affine, names)
    return changes


def unfolded_batch_norms(model: ir.Model) -> list[str]:
    """One sentence for each BatchNormalization that stays, with the reason."""
    return [
        f"Batch norm {title(node)} was not folded: {reason}."
        for node in model.graph
        if is_op(node, "BatchNormalization") and (reason := _reason(node))
    ]


def _reason(bn: ir.Node) -> str:
    """Why `bn` cannot be folded; empty if it can."""
    try:
        _plan(bn)
    except CannotFoldError as reason:
        return str(reason)
    return ""


def _fold(bn: ir.Node, names: Names) -> Change:
    place, behind = _plan(bn)
    layer_name, bn_name = title(place.layer), title(bn)
    if behind:
        fold_behind(place, names)
        source = bn.inputs[0]  # a MatMul has become a Gemm
        assert source is not None
        absorb(bn, source)
        detail = f"Multiplied the output channels of its weights by batch norm {bn_name}, after it."
    else:
        fold_before(place, names)
        source = bn.inputs[0]
        assert source is not None
        bypass(bn, source)
        detail = f"Multiplied the input channels of its weights by batch norm {bn_name}, before it."
    return Change(FOLD, layer_name, detail)


def _plan(bn: ir.Node) -> tuple[Place, bool]:
    """Where `bn` goes, and whether it stands behind that layer; else CannotFoldError."""
    _check_inference(bn)
    affine, source = _affine(bn), bn.inputs[0]
    if source is None:
        raise CannotFoldError("it has no input")
    reasons = []
    for find, behind in ((partial(place_behind, source), True), (partial(_forward, bn), False)):
        try:
            return find(affine), behind
        except CannotFoldError as reason:
            reasons.append(str(reason))
    raise CannotFoldError(", and ".join(reasons))


def _forward(bn: ir.Node, affine: Affine) -> Place:
    place, source = place_before(bn.outputs[0], affine), bn.inputs[0]
    if source is None or not can_bypass(bn, source):
        raise CannotFoldError("its result is an output")
    return place


def _check_inference(bn: ir.Node) -> None:
    if int_attribute(bn, "training_mode", 0) or any(output.uses() for output in bn.outputs[1:]):
        raise CannotFoldError("it is in training mode")


def _affine(bn: ir.Node) -> Affine:
    arrays = [array_of(input_of(bn, index)) for index in range(1, 5)]
    if any(array is None for array in arrays):
        raise CannotFoldError("its statistics are not constants")
    gamma, beta, mean, var = (a.astype(np.float64).ravel() for a in arrays if a is not None)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(var + float_attribute(bn, "epsilon", 1e-5))
        affine = Affine(scale, beta - mean * scale, 1)
    if not affine.finite:
        raise CannotFoldError("its statistics give infinite or undefined factors")
    return affine


def _split(bn: ir.Node, source: ir.Value, affine: Affine, names: Names) -> None:
    graph, rank = bn.graph, rank_of(source)
    assert isinstance(graph, ir.Graph)
    assert rank is not None
    gamma = array_of(input_of(bn, 1))
    assert gamma is not None
    dtype = gamma.dtype if source.dtype is None else source.dtype.numpy()
    shape = (-1, *[1] * (rank - 2))
    scale, shift = (
        add_constant(graph, names.fresh(f"{title(bn)}.{what}"), array.astype(dtype).reshape(shape))
        for what, array in (("scale", affine.scale), ("shift", affine.shift))
    )
    scaled = insert_before(bn, "Mul", [source, scale], names)
    replace_node(bn, "Add", [scaled, shift])
