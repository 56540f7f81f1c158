"""Gemm's factors alpha and beta move into its constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.edit import Names, add_constant, array_of, float_attribute, input_of, is_op
from studio.graph.model import Change
from studio.graph.scopes import title


def normalise_gemm(model: ir.Model) -> list[Change]:
    """Gemm computes alpha A B + beta C; afterwards alpha = beta = 1 where B and C are constants."""
    changes, names = [], Names(model.graph)
    for node in model.graph:
        if not is_op(node, "Gemm"):
            continue
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
