"""What techniques add to a prepared graph besides new values of its constants.

The graph that was prepared stays as it is; a copy of it gets a few operators more. What was added
is written down as metadata of the nodes, so that it can be told again and saved with a project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from studio.graph.edit import Names, add_constant, array_of, input_of
from studio.graph.model import ModelGraph
from studio.graph.patterns.marks import LAYER

LIMITS = "studio.limits"  # metadata of a node: name of the Clip it is a part of
SCALE = "studio.scale"  # of a Mul: names of the nodes whose input it multiplies
BIAS = "studio.bias"  # of a node that got a bias


@dataclass(frozen=True)
class Additions:
    """clips: Clip -> its lower and upper limits, arrays that broadcast with its output, of one
    shape ((C, 1, 1) behind a convolution of images); infinite where there is no limit. It becomes
    Relu or Max, and Min. biases: Conv, ConvTranspose and Gemm nodes that get a bias of zeros.
    scales: node -> what its first input is multiplied with, (C,): along the channels of a Conv, the
    last axis of a Gemm or MatMul; nodes that read one tensor share the product, if their numbers
    are the same.
    """

    clips: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    biases: frozenset[str] = frozenset()
    scales: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.clips or self.biases or self.scales)


def with_additions(graph: ModelGraph, additions: Additions) -> ModelGraph:
    """A copy of `graph` with `additions`; weights and all else are shared.

    Results keep the names of their tensors: what limits give is called as what the Clip gave. Names
    of what is new follow from the node's. Raises KeyError for a node that is not there, ValueError
    for one that is of another kind.
    """
    copy = graph.copy()
    names = Names(copy.ir.graph)
    for name, (lower, upper) in additions.clips.items():
        _limit(copy.ir.graph, _found(copy, name, "Clip"), lower, upper, names)
    for name in sorted(additions.biases):
        _add_bias(copy.ir.graph, _found(copy, name, "Conv", "ConvTranspose", "Gemm"), names)
    for nodes in _alike(copy, additions.scales):
        _scale(copy.ir.graph, nodes, additions.scales[nodes[0].name or ""], names)
    return replace(copy, ir=copy.ir)


def additions_of(graph: ModelGraph) -> Additions:
    """What was added to `graph`, with the numbers that its constants have now.

    `with_additions(original, additions_of(graph))` gives the same operators and names; biases are
    zeros there again.
    """
    parts: dict[str, dict[str, np.ndarray | None]] = {}
    biases: set[str] = set()
    scales: dict[str, np.ndarray] = {}
    for node in graph.nodes():
        clip = node.metadata_props.get(LIMITS)
        if clip is not None:
            parts.setdefault(clip, {})[node.op_type] = array_of(input_of(node, 1))
        if BIAS in node.metadata_props:
            biases.add(node.name or "")
        scaled = node.metadata_props.get(SCALE)
        scale = array_of(input_of(node, 1))
        if scaled is not None and scale is not None:
            scales |= dict.fromkeys(scaled.split("\n"), scale.reshape(-1))
    clips = {name: _limits(found) for name, found in parts.items()}
    return Additions(clips, frozenset(biases), scales)


def is_limit(node: ir.Node) -> bool:
    """True if `node` limits each channel of a result of its own producer, as added here."""
    return LIMITS in node.metadata_props and node.op_type in ("Min", "Max")


def is_scale(node: ir.Node) -> bool:
    """True if `node` scales what layers read, as added here."""
    return SCALE in node.metadata_props and node.op_type == "Mul"


def _limits(found: Mapping[str, np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = found.get("Max"), found.get("Min")
    known = lower if upper is None else upper
    assert known is not None
    if lower is None:
        lower = np.full_like(known, 0.0 if "Relu" in found else -np.inf)
    return lower, np.full_like(known, np.inf) if upper is None else upper


def _found(graph: ModelGraph, name: str, *op_types: str) -> ir.Node:
    node = graph.node(name)
    if node.op_type not in op_types:
        raise ValueError(f"{name} is a {node.op_type}, not one of {', '.join(op_types)}")
    return node


def _limit(
    graph: ir.Graph, clip: ir.Node, lower: np.ndarray, upper: np.ndarray, names: Names
) -> None:
    """Put Relu or Max, and Min, in the place of `clip`."""
    name, source, output = clip.name or "", clip.inputs[0], clip.outputs[0]
    if lower.shape != upper.shape or (np.isposinf(upper).all() and not np.isfinite(lower).any()):
        raise ValueError(f"the limits of {name} are none")
    if np.isposinf(upper).all() and not lower.any():
        raise ValueError(f"the limits of {name} are those of a Relu")
    assert source is not None and output.dtype is not None
    steps: list[tuple[str, str, np.ndarray | None]] = []
    if not lower.any():
        steps.append(("Relu", "lower", None))
    elif np.isfinite(lower).any():
        steps.append(("Max", "lower", lower))
    if np.isfinite(upper).any():
        steps.append(("Min", "upper", upper))
    for place, (op_type, what, array) in enumerate(steps):
        operands = [source]
        if array is not None:
            key = names.fresh(f"{name}.{what}_limit")
            operands.append(add_constant(graph, key, array.astype(output.dtype.numpy())))
        # The first takes over the place of the Clip, behind a layer that it is fused with.
        own = name if place == 0 else names.fresh(f"{name}.{what}")
        source = _insert(clip, op_type, operands, own, LIMITS, name)
        if place < len(steps) - 1:
            source.name = names.fresh(f"{name}.{what}_output")
    kept, bounds = output.name, clip.inputs[1:]
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(clip, safe=True)
    source.name = kept
    for bound in filter(None, bounds):
        known = bound.name or ""
        if not bound.uses() and not bound.is_graph_output() and known in graph.initializers:
            del graph.initializers[known]


def _add_bias(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    """Zeros as the third input of `node`, unless it has a bias."""
    if input_of(node, 2) is not None:
        return
    weight, output = node.inputs[1], node.outputs[0]
    assert weight is not None and weight.shape is not None and output.dtype is not None
    shape = [int(size) for size in weight.shape]  # type: ignore[arg-type]
    if node.op_type == "Conv":
        count = shape[0]
    elif node.op_type == "ConvTranspose":
        group = node.attributes.get("group")
        count = shape[1] * (1 if group is None else group.as_int())
    else:
        transposed = node.attributes.get("transB")
        count = shape[0 if transposed is not None and transposed.as_int() else 1]
    zeros = np.zeros(count, output.dtype.numpy())
    bias = add_constant(graph, names.fresh(f"{node.name}.bias"), zeros)
    node.resize_inputs(3)
    node.replace_input_with(2, bias)
    node.metadata_props[BIAS] = bias.name or ""


def _alike(graph: ModelGraph, scales: Mapping[str, np.ndarray]) -> list[list[ir.Node]]:
    """The nodes of `scales` that read the same tensor and have the same scale, in the order of the
    graph."""
    found: dict[tuple[str, str, bytes], list[ir.Node]] = {}
    for name in sorted(scales, key=graph.position):
        node = _found(graph, name, "Conv", "Gemm", "MatMul")
        source = node.inputs[0]
        assert source is not None
        kind = "Conv" if node.op_type == "Conv" else ""
        key = source.name or "", kind, np.asarray(scales[name], np.float64).tobytes()
        found.setdefault(key, []).append(node)
    return list(found.values())


def _scale(graph: ir.Graph, nodes: list[ir.Node], scale: np.ndarray, names: Names) -> None:
    """A Mul before the first input of `nodes`, which all read the same."""
    node = nodes[0]
    source, weight = node.inputs[0], node.inputs[1]
    assert source is not None and source.dtype is not None and weight is not None
    shape = [-1]
    if node.op_type == "Conv":
        assert weight.shape is not None
        shape += [1] * (len(weight.shape) - 2)
    array = scale.astype(source.dtype.numpy()).reshape(shape)
    constant = add_constant(graph, names.fresh(f"{node.name}.input_scale"), array)
    own = names.fresh(f"{node.name}.scaled")
    mark = "\n".join(other.name or "" for other in nodes)
    scaled = _insert(node, "Mul", [source, constant], own, SCALE, mark)
    scaled.name = names.fresh(f"{own}_output")
    for other in nodes:
        other.replace_input_with(0, scaled)


def _insert(
    near: ir.Node, op_type: str, operands: list[ir.Value], name: str, key: str, mark: str
) -> ir.Value:
    """The result of a new operator in front of `near`, of the module `near` comes from but no part
    of a layer that was recognised there."""
    others = (LIMITS, SCALE, BIAS, LAYER)
    metadata = {name: text for name, text in near.metadata_props.items() if name not in others}
    metadata[key] = mark
    new = ir.Node("", op_type, operands, num_outputs=1, name=name, metadata_props=metadata)
    result, first = new.outputs[0], operands[0]
    result.type, result.shape = first.type, first.shape
    graph = near.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(near, new)
    return result
