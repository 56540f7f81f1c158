"""Constants that are added to a layer's result, or multiply it, become part of the layer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.edit import Names, absorb, array_of, is_op, only_consumer
from studio.graph.model import Change, is_float
from studio.graph.patterns import layer_of
from studio.graph.patterns.linear import LINEAR
from studio.graph.prepare.channels import Affine, along_one_axis, rank_of
from studio.graph.prepare.linear import CannotFoldError, fold_behind, matmul_before, place_behind
from studio.graph.scopes import title

BIAS = "merge bias"
SCALE = "merge scale"


def merge_bias(model: ir.Model) -> list[Change]:
    """Add(Conv(x), constant per channel) becomes a Conv with that bias; likewise Sub.

    A MatMul of matrices becomes a Gemm. Behind any other MatMul the Add is the bias, and stays.
    """
    return _merge(model, BIAS, ("Add", "Sub"), "The constant added after it ({}) became its bias.")


def merge_scale(model: ir.Model) -> list[Change]:
    """Mul or Div by a constant per channel behind a layer is multiplied into its weights."""
    return _merge(
        model, SCALE, ("Mul", "Div"), "Its weights were multiplied by the constant after it ({})."
    )


def _merge(model: ir.Model, rule: str, op_types: tuple[str, ...], text: str) -> list[Change]:
    changes: list[Change] = []
    names: Names | None = None
    for node in list(model.graph):
        if not is_op(node, *op_types) or _belongs_elsewhere(node):
            continue
        index, affine = _affine(node)
        source = node.inputs[index] if affine is not None else None
        if affine is None or source is None or _is_bias(node):
            continue
        try:
            place = place_behind(source, affine)
        except CannotFoldError:
            continue
        if rule == SCALE and _shares_weights(place.layer):
            continue
        if names is None:
            names = Names(model.graph)
        changes.append(Change(rule, title(place.layer), text.format(title(node))))
        fold_behind(place, names)
        source = node.inputs[index]  # a MatMul has become a Gemm
        assert source is not None
        absorb(node, source)
    return changes


def _belongs_elsewhere(node: ir.Node) -> bool:
    """True for a part of a recognised layer other than the layer that could take it."""
    mark = layer_of(node)
    return mark is not None and mark.rule != LINEAR.name


def _affine(node: ir.Node) -> tuple[int, Affine | None]:
    """The operand that is data, and what the constant does to it; None if it is no affine map."""
    for index in (0, 1):
        data, constant = node.inputs[index], array_of(node.inputs[1 - index])
        if data is None or constant is None or not is_float(data) or array_of(data) is not None:
            continue
        if index == 1 and is_op(node, "Div"):
            return 0, None
        found = along_one_axis(constant, rank_of(data))
        if found is None:
            return 0, None
        values, axis = found
        ones = np.ones_like(values)
        if is_op(node, "Add"):
            affine = Affine(ones, values, axis)
        elif is_op(node, "Sub"):
            affine = Affine(-ones, values, axis) if index else Affine(ones, -values, axis)
        elif is_op(node, "Mul"):
            affine = Affine(values, 0 * values, axis)
        else:
            with np.errstate(all="ignore"):
                affine = Affine(1 / values, 0 * values, axis)
        return index, affine if affine.finite else None
    return 0, None


def _is_bias(add: ir.Node) -> bool:
    """True for the Add behind a MatMul that cannot be a Gemm."""
    if not is_op(add, "Add"):
        return False
    matmul, constant = matmul_before(add)
    if matmul is None or constant is None:
        return False
    return rank_of(matmul.outputs[0]) != 2


def _shares_weights(layer: ir.Node) -> bool:
    """True if another layer has the same weights: they should stay the same."""
    node = matmul_before(layer)[0] if is_op(layer, "Add") else layer
    weight = node.inputs[1] if node is not None else None
    return weight is not None and only_consumer(weight) is None
