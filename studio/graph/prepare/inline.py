"""Model-local functions become the operators they consist of."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from studio.graph.model import Change


def inline_functions(model: ir.Model) -> list[Change]:
    """Inline every model-local function, nested ones too."""
    if not model.functions:
        return []
    called = sorted(
        {
            node.op_type
            for node in model.graph.all_nodes()
            if node.op_identifier() in model.functions
        }
    )
    common.InlinePass()(model)
    common.RemoveUnusedFunctionsPass()(model)
    model.functions.clear()
    detail = f"The functions {', '.join(called)} were replaced by the operators they consist of."
    return [Change("inline functions", "", detail)] if called else []
