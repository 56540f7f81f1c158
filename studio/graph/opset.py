"""Bring a model to an ONNX opset the rest of the studio knows."""

from __future__ import annotations

import re

import onnx
import onnx.version_converter
import onnx_ir as ir
import onnx_ir.passes.common as common

from studio.errors import ModelError
from studio.graph.c_api import call_without_weights
from studio.graph.model import Change
from studio.graph.prepare.shapes import infer_shapes

OLDEST_READ = 7
OLDEST_KEPT = 17  # LayerNormalization, Reshape's allowzero, Softmax over one axis
OLD_RESIZE = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
OLDEST_USABLE = 13  # per-channel QuantizeLinear, axes as inputs


def normalise_opset(model: ir.Model, name: str) -> tuple[ir.Model, list[Change]]:
    """A model of opset 17 or later (13 if one of its operators cannot be converted further).

    Names of nodes and tensors stay. Raises ModelError naming the operator that cannot be converted.
    """
    before = model.opset_imports.get("", 0)
    if before >= OLDEST_KEPT:
        return model, []
    reason = ""
    infer_shapes(model)  # with ranks known, Softmax over the last axis stays one operator
    for target in (OLDEST_KEPT, OLDEST_USABLE):
        if before >= target:
            return model, []
        try:
            converted = convert_opset(model, target)
        except (
            Exception
        ) as error:  # the C++ library throws RuntimeError, ValueError, IndexError, ...
            reason = reason or _first_line(error)
            continue
        detail = (
            f"Converted from ONNX opset {before} to {target}, the oldest the studio works with."
        )
        return converted, [Change("opset", "", detail)]
    raise ModelError(
        f"{name}: cannot be converted from ONNX opset {before} to {OLDEST_USABLE}: {reason}",
        f"Export the model again with opset {OLDEST_USABLE} or later.",
    )


def convert_opset(model: ir.Model, target: int) -> ir.Model:
    old_resizes = _old_resizes(model)
    _refuse_hardmax(model)
    converted = call_without_weights(
        model, lambda proto: onnx.version_converter.convert_version(proto, target)
    )
    for node in converted.graph.all_nodes():
        if node.op_type == "Resize" and node.outputs[0].name in old_resizes:
            for key, value in OLD_RESIZE.items():
                node.attributes[key] = ir.AttrString(key, value)
    metadata = {node.name: node.metadata_props for node in model.graph.all_nodes() if node.name}
    for node in converted.graph.all_nodes():
        if node.name in metadata:
            node.metadata_props.update(metadata[node.name])
    converted.metadata_props.update(model.metadata_props)
    common.TopologicalSortPass()(converted)
    return converted


def _old_resizes(model: ir.Model) -> set[str | None]:
    """Results of Upsample and Resize before opset 11, whose rule the converter forgets to state."""
    if model.opset_imports.get("", 0) > 10:
        return set()
    nodes = model.graph.all_nodes()
    return {node.outputs[0].name for node in nodes if node.op_type in ("Upsample", "Resize")}


def _refuse_hardmax(model: ir.Model) -> None:
    """The converter leaves Hardmax alone though it meant something else before opset 13."""
    for node in model.graph.all_nodes():
        if node.op_type == "Hardmax" and model.opset_imports.get("", 0) < 13:
            raise ValueError(f"operator Hardmax {node.name!r} changed its meaning in opset 13")


def _first_line(error: Exception) -> str:
    text = re.sub(r"^\S+\.(h|cc|cpp):\d+: \w+: Assertion ", "", str(error).strip())
    return text.splitlines()[0] if text else type(error).__name__
