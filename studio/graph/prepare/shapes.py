"""Shape and type inference."""

from __future__ import annotations

import logging

import onnx
import onnx_ir as ir

from studio.graph.c_api import call_without_weights
from studio.graph.model import Change

log = logging.getLogger(__name__)


def infer_shapes(model: ir.Model) -> list[Change]:
    """Fill in shapes and types; sizes that depend on the input stay symbolic.

    Nothing is reported: what is inferred was true before. Where inference contradicts what the
    file says, the file's statement stays.
    """

    def infer(proto: onnx.ModelProto) -> onnx.ModelProto:
        return onnx.shape_inference.infer_shapes(
            proto, check_type=False, strict_mode=False, data_prop=True
        )

    try:
        inferred = call_without_weights(model, infer)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
        log.warning("shape inference failed: %s", error)
        return []
    found = ir.convenience.create_value_mapping(inferred.graph, include_subgraphs=True)
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                other = found.get(value.name or "")
                if other is not None:
                    _merge(value, other)
    return []


def _merge(value: ir.Value, inferred: ir.Value) -> None:
    if value.type is None:
        value.type = inferred.type
    if inferred.shape is None:
        return
    if value.shape is None or len(value.shape) != len(inferred.shape):
        value.shape = inferred.shape
        return
    sizes = [
        ours if isinstance(ours, int) or not isinstance(theirs, int) else theirs
        for ours, theirs in zip(value.shape, inferred.shape, strict=True)
    ]
    sizes = [
        theirs if isinstance(ours, ir.SymbolicDim) and ours.value is None else ours
        for ours, theirs in zip(sizes, inferred.shape, strict=True)
    ]
    value.shape = ir.Shape(sizes)
