"""ONNX operators as torch functions, one small function an op, one file a family."""

from __future__ import annotations

from studio.graph.model import ModelGraph
from studio.runtime.ops import (
    activation,
    attention,
    block_quantized,
    casting,
    control_flow,
    convolution,
    elementwise,
    fused,
    fused_attention,
    generation,
    indexing,
    linear_algebra,
    linear_attention,
    logic,
    loss,
    normalization,
    pooling,
    quantization,
    quantized_layers,
    random_numbers,
    recurrent,
    reduction,
    regions,
    resize,
    sampling,
    sequence,
    shape,
    signal,
    skip_normalization,
)
from studio.runtime.ops.dtypes import TORCH_DTYPES
from studio.runtime.ops.registry import MAX_OPSET, Call, Op, find, supported_ops

__all__ = ["Call", "Op", "find", "is_supported", "supported_ops", "unsupported_ops"]

FAMILIES = (
    activation,
    attention,
    block_quantized,
    casting,
    control_flow,
    convolution,
    elementwise,
    fused,
    fused_attention,
    generation,
    indexing,
    linear_algebra,
    linear_attention,
    logic,
    loss,
    normalization,
    pooling,
    quantization,
    quantized_layers,
    random_numbers,
    recurrent,
    reduction,
    regions,
    resize,
    sampling,
    sequence,
    shape,
    signal,
    skip_normalization,
)


def is_supported(domain: str, op_type: str, version: int) -> bool:
    """True if the torch engine computes `op_type` as opset `version` of `domain` defines it."""
    known = find(domain, op_type)
    if known is None:
        return False
    newest = MAX_OPSET if domain in ("", "ai.onnx") else version
    return known.since <= version <= newest


def unsupported_ops(graph: ModelGraph) -> dict[str, list[str]]:
    """What the torch engine cannot compute: "domain::op (opset n)" -> names of the nodes.

    Nodes of subgraphs count too, and so do nodes of values torch has no type for.
    """
    missing: dict[str, list[str]] = {}
    for node in graph.ir.graph.all_nodes():
        version = graph.ir.opset_imports.get(node.domain, 0)
        values = (value for value in (*node.inputs, *node.outputs) if value is not None)
        odd = any(value.dtype is not None and value.dtype not in TORCH_DTYPES for value in values)
        if odd or not is_supported(node.domain, node.op_type, version):
            key = f"{node.domain or 'ai.onnx'}::{node.op_type} (opset {version})"
            missing.setdefault(key, []).append(node.name or "")
    return missing
