"""What a person reads about a node or a tensor."""

from __future__ import annotations

import math
import re

import onnx_ir as ir

from studio.graph.edit import input_of, int_attribute, ints_attribute, is_op
from studio.graph.model import ModelGraph, is_constant
from studio.graph.scopes import scope
from studio.graph.subgraphs import reads

__all__ = [
    "display_shape",
    "macs",
    "op_summary",
    "parameters",
    "scope",
    "source_line",
]

STACK = "pkg.torch.onnx.stack_trace"
INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]|^torch[/\\]")
FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def source_line(node: ir.Node) -> str:
    """The line of Python that made a node, `model.py:118`; empty if it is not known.

    The innermost frame outside installed packages, else the innermost frame.
    """
    frames = FRAME.findall(node.metadata_props.get(STACK, ""))
    own = [frame for frame in frames if not INSTALLED.search(frame[0])]
    if not frames:
        return ""
    path, line = (own or frames)[-1]
    name = re.split(r"[/\\]", path)[-1]
    return f"{name}:{line}"


def display_shape(value: ir.Value) -> str:
    """`N×96×56×56`; a symbolic batch is N, unknown sizes are ?, an unknown rank is empty."""
    if value.shape is None:
        return ""
    return "×".join(_size(size, axis) for axis, size in enumerate(value.shape)) or "scalar"


def _size(size: int | ir.SymbolicDim, axis: int) -> str:
    if isinstance(size, int):
        return str(size) if size >= 0 else "N" if axis == 0 else "?"
    if axis == 0:
        return "N"
    name = size.value or ""
    return name if name.isidentifier() and not name.startswith("unk__") else "?"


def parameters(node: ir.Node) -> int:
    """Floating-point numbers among the constants a node and its subgraphs read: weights, biases."""
    return sum(
        value.const_value.size
        for value in reads(node)
        if value is not None
        and is_constant(value)
        and value.const_value is not None
        and value.const_value.dtype.is_floating_point()
        and len(value.const_value.shape) > 0
    )


def macs(graph: ModelGraph, node: ir.Node) -> int | None:
    """Multiply-accumulates of a node for one sample (a symbolic batch counts as 1).

    None for other operators than Conv, ConvTranspose, Gemm and MatMul, and where a size is unknown.
    """
    if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    data, weight = input_of(node, 0), input_of(node, 1)
    result = node.outputs[0]
    if data is None or weight is None:
        return None
    batch = _batch_names(graph)
    made, read, weights = (_sizes(value, batch) for value in (result, data, weight))
    if made is None or read is None or weights is None:
        return None
    if is_op(node, "Conv"):  # each result needs in/groups * kernel products
        return math.prod(made) * math.prod(weights[1:])
    if is_op(node, "ConvTranspose"):  # each input is used for out/groups * kernel results
        return math.prod(read) * math.prod(weights[1:])
    inner = read[0] if is_op(node, "Gemm") and int_attribute(node, "transA", 0) else read[-1]
    return math.prod(made) * inner


def _batch_names(graph: ModelGraph) -> set[str]:
    """Symbolic sizes that stand for the batch: those of axis 0 of the graph's inputs."""
    first = [value.shape[0] for value in graph.inputs if value.shape]
    return {size.value for size in first if isinstance(size, ir.SymbolicDim) and size.value}


def _sizes(value: ir.Value, batch: set[str]) -> list[int] | None:
    if value.shape is None:
        return None
    sizes = []
    for axis, size in enumerate(value.shape):
        if isinstance(size, int):
            sizes.append(size)
        elif axis == 0 or size.value in batch:
            sizes.append(1)
        else:
            return None
    return sizes


def op_summary(node: ir.Node) -> str:
    """`Conv 3×3 depthwise, stride 2`: the operator and what matters of its settings."""
    words, notes = node.op_type, []
    kernel = _kernel(node)
    if kernel:
        words += " " + "×".join(map(str, kernel))
    if is_op(node, "Conv", "ConvTranspose"):
        groups = int_attribute(node, "group", 1)
        if groups > 1:
            words += " depthwise" if groups == _channels(node) else ""
            notes += [] if groups == _channels(node) else [f"{groups} groups"]
    for attribute, word in (("strides", "stride"), ("dilations", "dilation")):
        sizes = ints_attribute(node, attribute) if kernel else None
        if sizes and any(size != 1 for size in sizes):
            alike = len(set(sizes)) == 1
            notes.append(f"{word} {sizes[0] if alike else '×'.join(map(str, sizes))}")
    if is_op(node, "Gemm", "MatMul"):
        weight = input_of(node, 1)
        if weight is not None and weight.shape is not None and is_constant(weight):
            ends = [str(size) for size in weight.shape]
            turned = is_op(node, "Gemm") and int_attribute(node, "transB", 0)
            words += " " + "→".join(ends[::-1] if turned else ends)
    if is_op(node, "Clip"):
        limits = [_scalar(input_of(node, index)) for index in (1, 2)]
        if any(limits):
            words += f" {limits[0] or '-∞'} to {limits[1] or '∞'}"
    if is_op(node, "Concat", "Softmax", "Gather", "Split", "ArgMax"):
        axis = node.attributes.get("axis")
        notes += [f"axis {axis.as_int()}"] if axis is not None else []
    return ", ".join([words, *notes])


def _kernel(node: ir.Node) -> list[int] | None:
    if is_op(node, "Conv", "ConvTranspose"):
        weight = input_of(node, 1)
        if weight is not None and weight.shape is not None:
            sizes = [size for size in weight.shape[2:] if isinstance(size, int)]
            return sizes if len(sizes) == len(weight.shape) - 2 else None
    if is_op(node, "MaxPool", "AveragePool", "LpPool"):
        return ints_attribute(node, "kernel_shape")
    return None


def _channels(node: ir.Node) -> int | None:
    """Input channels of a convolution."""
    weight = input_of(node, 1)
    if weight is None or weight.shape is None:
        return None
    per_group = weight.shape[1] if is_op(node, "Conv") else weight.shape[0]
    if not isinstance(per_group, int):
        return None
    return per_group * int_attribute(node, "group", 1) if is_op(node, "Conv") else per_group


def _scalar(value: ir.Value | None) -> str:
    if value is None or not is_constant(value) or value.const_value is None:
        return ""
    array = value.const_value.numpy()
    return f"{float(array.reshape(-1)[0]):g}" if array.size == 1 else ""
