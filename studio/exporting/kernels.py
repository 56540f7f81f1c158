"""What onnxruntime's optimised graph really runs, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from studio.analysis.kernel_rules import Runs
from studio.graph.model import ModelGraph
from studio.sim.plan import Plan

_FLOAT_TYPES = frozenset(
    [
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    ]
)
_BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
"""Types whose Clip only limits integers between Q and DQ."""

_INTEGER_KERNELS = frozenset(
    [
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
    ]
)
_FLOAT_KERNELS = frozenset(
    ["Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"]
)
_WEIGHT_KERNELS = frozenset(["GatherBlockQuantized", "MatMulNBits"])
_CONVERSIONS = frozenset(["DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"])
_SUFFIXES = ("_quantized", "_dequantized", "_saturated", "_clipped", "_unquantized")


@dataclass(frozen=True)
class LayerKernel:
    """How onnxruntime runs a layer.

    `kernel` names its operators in the optimised graph without conversions between integers and
    float, "" where none is left: the layer became part of another, or it does nothing.
    """

    layer: str
    runs: Runs
    kernel: str


def layer_kernels(graph: ModelGraph, plan: Plan, optimized: Path) -> dict[str, LayerKernel]:
    """What the graph that onnxruntime optimised and wrote to `optimized` runs for every layer.

    `graph` and `plan` are those the file was exported from: tensors keep their names from there
    through the export and through most of onnxruntime's rewriting; an operator without a known
    tensor belongs to the layer that reads it.
    """
    proto = onnx.load(str(optimized), load_external_data=False).graph
    owners = _owners(graph, plan, proto)
    types = _types(proto)
    kernels: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.node:
        layer = next((owners[name] for name in node.output if name in owners), None)
        limits = node.op_type == "Clip" and types.get(node.output[0]) in _BYTES
        if layer is not None and node.op_type not in _CONVERSIONS and not limits:
            kernels.setdefault(layer, []).append(node)
    return {
        layer.name: _kernel(layer.name, kernels.get(layer.name, []), types)
        for layer in plan.layers
        if layer.nodes
    }


def count_kernels(optimized: Path) -> tuple[int, int]:
    """Compute nodes of an optimised graph that run in integers, and in float."""
    nodes = onnx.load(str(optimized), load_external_data=False).graph.node
    integer = sum(_is_integer_kernel(node.op_type) for node in nodes)
    return integer, sum(node.op_type in _FLOAT_KERNELS for node in nodes)


def _kernel(layer: str, nodes: list[onnx.NodeProto], types: Mapping[str, int]) -> LayerKernel:
    ops = [node.op_type for node in nodes]
    if any(op in _WEIGHT_KERNELS for op in ops):
        runs = Runs.WEIGHTS
    elif any(_is_integer_kernel(op) for op in ops):
        runs = Runs.INTEGER
    elif any(types.get(node.output[0]) in _FLOAT_TYPES for node in nodes):
        runs = Runs.FLOAT
    else:
        runs = Runs.INTEGER if nodes else Runs.ABSORBED
    return LayerKernel(layer, runs, " + ".join(ops))


def _is_integer_kernel(op: str) -> bool:
    return op.startswith("QLinear") or op in _INTEGER_KERNELS


def _owners(graph: ModelGraph, plan: Plan, proto: onnx.GraphProto) -> dict[str, str]:
    """Tensor of the optimised graph -> the layer that makes it."""
    made = {}
    by_node = {}
    for layer in plan.layers:
        for name in layer.nodes:
            by_node[name] = layer.name
            made.update({value.name: layer.name for value in graph.node(name).outputs})
    owners: dict[str, str] = {}
    for node in reversed(proto.node):  # readers before what they read
        for name in node.output:
            base = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)
            owner = made.get(name) or made.get(base) or by_node.get(node.name)
            if owner is not None:
                owners[name] = owner
        known = next((owners[name] for name in node.output if name in owners), None)
        if known is not None:
            for name in node.input:
                owners.setdefault(name, known)
    return owners


def _types(proto: onnx.GraphProto) -> dict[str, int]:
    values = [*proto.value_info, *proto.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}
