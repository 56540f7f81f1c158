"""Gemm's factors alpha and beta move into its constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    add_constant,
    array_of,
    float_attribute,
    input_of,
    int_attribute,
    is_op,
    replace_node,
)
from studio.graph.model import Change
from studio.graph.prepare.channels import rank_of
from studio.graph.scopes import title


def normalise_gemm(model: ir.Model) -> list[Change]:
    """Gemm computes alpha A B + beta C; afterwards alpha = beta = 1 where B and C are constants.

    A matrix product with the Transpose of a weight that other layers read as it is becomes a Gemm
    that reads the weight itself.
    """
    changes: list[Change] = []
    nodes = [node for node in model.graph if is_op(node, "Gemm", "MatMul")]
    names = Names(model.graph) if nodes else None
    for node in nodes:
        changes += _read_weight_itself(node)
        if not is_op(node, "Gemm"):
            continue
        assert names is not None
        for attribute, index in (("alpha", 1), ("beta", 2)):
            factor = float_attribute(node, attribute, 1.0)
            operand = input_of(node, index)
            array = array_of(operand)
            if factor == 1.0:
                continue
            if operand is None:
                node.attributes.pop(attribute)
                continue
            if array is None:
                continue
            scaled = (array.astype(np.float64) * factor).astype(array.dtype)
            name = names.fresh(f"{operand.name}_scaled")
            node.replace_input_with(index, add_constant(model.graph, name, scaled))
            node.attributes.pop(attribute)
            detail = f"Its factor {attribute} = {factor:g} was multiplied into {operand.name}."
            changes.append(Change("normalise Gemm", title(node), detail))
    return changes


def _read_weight_itself(node: ir.Node) -> list[Change]:
    source, turned = node.inputs[0], node.inputs[1]
    transpose = turned.producer() if turned is not None else None
    weight = input_of(transpose, 0) if transpose is not None else None
    if source is None or transpose is None or weight is None or array_of(weight) is None:
        return []
    if not is_op(transpose, "Transpose") or rank_of(weight) != 2:
        return []
    detail = f"Reads the weights {weight.name} themselves instead of their transpose."
    change = Change("normalise Gemm", title(node), detail)
    if is_op(node, "Gemm"):
        flipped = 1 - int_attribute(node, "transB", 0)
        node.attributes["transB"] = ir.AttrInt64("transB", flipped)
        node.replace_input_with(1, weight)
        return [change]
    if rank_of(source) != 2:
        return []
    replace_node(node, "Gemm", [source, weight], transB=1)
    return [change]
