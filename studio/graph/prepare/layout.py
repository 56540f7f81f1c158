"""Transposes between channels last and channels first, as converters from TensorFlow leave them.

Regions of operators that work in any order of axes are turned round as a whole wherever that
leaves fewer Transposes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    add_constant,
    array_of,
    bypass,
    can_bypass,
    input_of,
    int_attribute,
    is_op,
    only_consumer,
)
from studio.graph.model import Change
from studio.graph.prepare.channels import permutation, rank_of
from studio.graph.prepare.layout_axes import (
    REDUCTIONS,
    Perm,
    data_operands,
    reduced_axes,
    renumber,
    set_axes,
    works_in_any_order,
)
from studio.graph.scopes import title

RULE = "move transposes"
SPATIAL_LAYERS = (
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
    "BatchNormalization", "DepthToSpace", "SpaceToDepth", "Resize",
)  # fmt: skip


@dataclass
class _Region:
    """Operators connected by tensors of one rank, in graph order."""

    rank: int
    nodes: list[ir.Node] = field(default_factory=list)

    def sources(self) -> list[ir.Value]:
        """Tensors that come in, each once."""
        inside, found = set(self.nodes), {}
        for node in self.nodes:
            for index in data_operands(node):
                value = node.inputs[index]
                if value is None or array_of(value) is not None:
                    continue
                if value.producer() not in inside:
                    found[id(value)] = value
        return list(found.values())

    def results(self) -> list[ir.Value]:
        return [value for node in self.nodes for value in node.outputs]


def move_transposes(model: ir.Model) -> list[Change]:
    """Turn round every region that then needs fewer Transposes.

    Region by region, until none does. One that takes a layer's result through a Transpose is turned
    even where the Transpose only moves on: what the region does may then belong to the layer.
    """
    changes: list[Change] = []
    graph = model.graph
    if not any(is_op(node, "Transpose") for node in graph):
        return changes
    names = Names(graph)
    for region in _regions(graph):
        best = max(
            ((_gain(region, perm), perm) for perm in _candidates(region)),
            default=(0, ()),
            key=lambda pair: pair[0],
        )
        if best[0] > 0:
            changes.append(_turn(region, best[1], names))
    for node in list(graph):
        if is_op(node, "Transpose"):
            change = _into_readers(node, names) or _into_weights(node, names)
            changes += [] if change is None else [change]
    return changes


def _regions(graph: ir.Graph) -> list[_Region]:
    """Connected operators that can be turned round, where a Transpose is next to them."""
    home: dict[ir.Node, ir.Node] = {}
    ranks: dict[ir.Node, int] = {}

    def root(node: ir.Node) -> ir.Node:
        while home[node] is not node:
            home[node] = home[home[node]]
            node = home[node]
        return node

    for node in graph:
        rank = rank_of(node.outputs[0]) if node.outputs else None
        if rank is None or rank < 3 or is_op(node, "Transpose"):
            continue
        if not works_in_any_order(node, rank):
            continue
        home[node], ranks[node] = node, rank
        for index in data_operands(node):
            value = node.inputs[index]
            producer = value.producer() if value is not None else None
            if producer is not None and ranks.get(producer) == rank:
                home[root(producer)] = root(node)
    regions: dict[ir.Node, _Region] = {}
    for node in graph:
        if node in home:
            regions.setdefault(root(node), _Region(ranks[node])).nodes.append(node)
    return list(regions.values())


def _candidates(region: _Region) -> list[Perm]:
    """Orders that some neighbour suggests."""
    found: dict[Perm, None] = {}
    for value in region.sources():
        made = _made_by(value)
        if made is not None:
            found[made] = None
    for value in region.results():
        for use in value.uses():
            perm = permutation(use.node) if is_op(use.node, "Transpose") else None
            if perm is not None:
                found[tuple(int(i) for i in np.argsort(perm))] = None
    return list(found)


def _made_by(value: ir.Value) -> Perm | None:
    """The order of the Transpose that makes `value`."""
    producer = value.producer()
    made = permutation(producer) if producer is not None and is_op(producer, "Transpose") else None
    return None if made is None else tuple(made)


def _gain(region: _Region, perm: Perm) -> float:
    """How many Transposes fewer there are after turning; a half if they only move behind work."""
    if len(perm) != region.rank or perm == tuple(range(len(perm))):
        return 0
    inside, gain, behind_layers = set(region.nodes), 0, True
    for value in region.sources():
        made = _made_by(value)
        alone = not value.is_graph_output() and all(use.node in inside for use in value.uses())
        gain += (made == perm and alone) - (made != perm and not (made is not None and alone))
        layer = value.producer().inputs[0] if made is not None else None  # type: ignore[union-attr]
        maker = layer.producer() if layer is not None else None
        behind_layers &= made == perm and alone and is_op(maker, *SPATIAL_LAYERS)
    for value in region.results():
        stays = value.is_graph_output()
        for use in value.uses():
            if use.node in inside or _takes_any_order(use.node, use.idx, perm):
                continue
            if is_op(use.node, "Transpose") and use.node.graph is region.nodes[0].graph:
                ends = [perm[i] for i in permutation(use.node) or ()]
                gain += ends == sorted(ends) and not use.node.outputs[0].is_graph_output()
            else:
                stays = True
        gain -= stays
    return 0.5 if gain == 0 and behind_layers and region.sources() else gain


def _turn(region: _Region, perm: Perm, names: Names) -> Change:
    graph = region.nodes[0].graph
    assert isinstance(graph, ir.Graph)
    inside, back = set(region.nodes), [int(i) for i in np.argsort(perm)]
    sources = region.sources()
    for node in region.nodes:
        renumber(node, perm, names)
    for value in sources:
        made = value.producer()
        if made is not None and _made_by(value) == perm:
            turned = made.inputs[0]
        else:
            turned = _transpose(graph, value, back, names)
        for use in list(value.uses()):
            if use.node in inside and use.idx in data_operands(use.node):
                use.node.replace_input_with(use.idx, turned)
        if made is not None and not value.uses() and not value.is_graph_output():
            graph.remove(made, safe=True)
    for value in region.results():
        outside = [use for use in value.uses() if use.node not in inside]
        rest = [use for use in outside if not _take(use.node, use.idx, perm, names)]
        if value.shape is not None:
            value.shape = ir.Shape([value.shape[axis] for axis in back])
        rest = [use for use in rest if not _compose(use.node, value, perm)]
        if not rest and not value.is_graph_output():
            continue
        restored = _transpose(graph, value, list(perm), names)
        for use in rest:
            use.node.replace_input_with(use.idx, restored)
        if value.is_graph_output():
            for index, output in enumerate(graph.outputs):
                if output is value:
                    graph.outputs[index] = restored
            value.name, restored.name = restored.name, value.name
    return Change(RULE, title(region.nodes[0]), _describe(region, back))


def _describe(region: _Region, order: list[int]) -> str:
    ops = Counter(node.op_type for node in region.nodes)
    what = ", ".join(f"{count} {op}" if count > 1 else op for op, count in ops.items())
    verb = "works" if len(region.nodes) == 1 else "work"
    return f"{what} {verb} on axes in the order {order}: Transposes around are not needed."


def _compose(node: ir.Node, value: ir.Value, perm: Perm) -> bool:
    """Let `node`, a Transpose of what Transpose(value, perm) made, read `value` itself."""
    own = permutation(node) if is_op(node, "Transpose") else None
    if own is None:
        return False
    both = [perm[axis] for axis in own]
    if _in_order(both) and not node.outputs[0].is_graph_output():
        bypass(node, value)
    else:
        node.replace_input_with(0, value)
        node.attributes["perm"] = ir.AttrInt64s("perm", both)
    return True


def _transpose(graph: ir.Graph, value: ir.Value, perm: list[int], names: Names) -> ir.Value:
    """A Transpose of `value`, right behind it."""
    producer = value.producer()
    near = producer if producer is not None else graph[0]
    node = ir.Node(
        "",
        "Transpose",
        [value],
        [ir.AttrInt64s("perm", perm)],
        num_outputs=1,
        name=names.fresh(f"{title(near)}.Transpose"),
        metadata_props=dict(near.metadata_props) if producer is not None else {},
    )
    result = node.outputs[0]
    result.name, result.type = names.fresh(f"{value.name}_transposed"), value.type
    if value.shape is not None:
        result.shape = ir.Shape([value.shape[axis] for axis in perm])
    if producer is not None:
        graph.insert_after(producer, node)
    else:
        graph.insert_before(graph[0], node)
    return result


# ---- readers that take another order as it is


def _takes_any_order(node: ir.Node, index: int, perm: Perm) -> bool:
    """True if `node` makes the same of the turned tensor, its own axes renumbered."""
    value = node.inputs[index]
    if index != 0 or value is None:
        return False
    if is_op(node, "Shape"):
        return not node.attributes
    if is_op(node, *REDUCTIONS, "Squeeze"):
        if is_op(node, *REDUCTIONS) and int_attribute(node, "keepdims", 1):
            return False
        axes = reduced_axes(node, len(perm))
        return axes is not None and _in_order(
            [perm[axis] for axis in range(len(perm)) if axis not in axes]
        )
    if is_op(node, "Reshape", "Flatten"):
        return _counts_the_same(node, value, perm)
    return False


def _in_order(axes: list[int]) -> bool:
    return axes == sorted(axes)


def _counts_the_same(node: ir.Node, value: ir.Value, perm: Perm) -> bool:
    """True if only axes of size 1 change places, so that the numbers follow in the same order."""
    if value.shape is None or not _in_order(
        [perm[axis] for axis, size in enumerate(value.shape) if size != 1]
    ):
        return False
    if is_op(node, "Flatten"):
        return int_attribute(node, "axis", 1) == 1 and perm[0] == 0
    target = array_of(input_of(node, 1))
    if target is None or int_attribute(node, "allowzero", 0):
        return False
    return all(entry != 0 or perm[axis] == axis for axis, entry in enumerate(target.ravel()))


def _take(node: ir.Node, index: int, perm: Perm, names: Names) -> bool:
    """Renumber the axes of a reader that takes the turned tensor; False if it does not."""
    if not _takes_any_order(node, index, perm):
        return False
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    if is_op(node, "Shape"):
        order = add_constant(graph, names.fresh(f"{node.name}.order"), np.array(perm, np.int64))
        pick = ir.Node(
            "",
            "Gather",
            [node.outputs[0], order],
            [ir.AttrInt64("axis", 0)],
            num_outputs=1,
            name=names.fresh(f"{node.name}.Gather"),
            metadata_props=dict(node.metadata_props),
        )
        output, result = node.outputs[0], pick.outputs[0]
        result.name, result.type, result.shape = output.name, output.type, output.shape
        output.name = names.fresh(f"{output.name}_turned")
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        pick.replace_input_with(0, output)
        graph.insert_after(node, pick)
    elif is_op(node, *REDUCTIONS, "Squeeze"):
        axes = reduced_axes(node, len(perm))
        assert axes is not None
        if len(axes) < len(perm):
            set_axes(node, sorted(perm[axis] for axis in axes), names)
    return True


def _into_readers(transpose: ir.Node, names: Names) -> Change | None:
    """A Transpose whose readers can all do without it."""
    value, source, made = transpose.outputs[0], input_of(transpose, 0), permutation(transpose)
    uses = list(value.uses())
    if source is None or made is None or not uses or not can_bypass(transpose, source):
        return None
    if not all(_takes_any_order(use.node, use.idx, tuple(made)) for use in uses):
        return None
    if value.is_graph_output() or any(use.node.graph is not transpose.graph for use in uses):
        return None
    reader, name = uses[0].node, title(transpose)
    for use in uses:
        _take(use.node, use.idx, tuple(made), names)
    bypass(transpose, source)
    return Change(RULE, title(reader), f"Takes the tensor as it was before {name}.")


def _into_weights(transpose: ir.Node, names: Names) -> Change | None:
    """A Transpose that only a Flatten and a matrix product read: the rows of the matrix move."""
    source, perm = input_of(transpose, 0), permutation(transpose)
    flatten = only_consumer(transpose.outputs[0])
    if source is None or source.shape is None or perm is None or perm[0] != 0:
        return None
    sizes = [size for size in source.shape[1:] if isinstance(size, int)]
    if flatten is None or len(sizes) < len(perm) - 1 or not is_op(flatten, "Reshape", "Flatten"):
        return None
    flat, total = flatten.outputs[0], int(np.prod(sizes))
    product = only_consumer(flat)
    if flat.shape is None or len(flat.shape) != 2 or flat.shape[1] != total:
        return None
    if not is_op(product, "MatMul", "Gemm") or product is None or product.inputs[0] is not flat:
        return None
    weight, value = array_of(product.inputs[1]), product.inputs[1]
    if weight is None or value is None or weight.ndim != 2 or int_attribute(product, "transA", 0):
        return None
    axis = 1 if int_attribute(product, "transB", 0) else 0
    if weight.shape[axis] != total:
        return None
    # Rows are counted in the transposed order; count them in that of the source.
    turned = [sizes[i - 1] for i in perm[1:]]
    rows = np.arange(total).reshape(turned).transpose(np.argsort([i - 1 for i in perm[1:]]))
    moved = np.ascontiguousarray(np.take(weight, rows.ravel(), axis=axis))
    graph = transpose.graph
    assert isinstance(graph, ir.Graph)
    name = names.fresh(f"{value.name}_moved")
    product.replace_input_with(1, add_constant(graph, name, moved))
    detail = f"Its weights were put in the order of the tensor before {title(transpose)}."
    bypass(transpose, source)
    return Change(RULE, title(product), detail)
