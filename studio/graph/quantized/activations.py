"""Activations: QuantizeLinear -> DequantizeLinear pairs between float tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from studio.graph.edit import Names, add_constant, array_of, input_of, is_op
from studio.graph.quantized.constants import Records
from studio.graph.quantized.found import (
    RANGED,
    FoundQuantization,
    NotLiftableError,
    is_dequantize,
    is_dynamic_quantize,
    is_quantize,
    read_parameters,
)

BRANCH = "studio.rounds_for_some_readers"
"""Metadata of an Identity that stands for a Q/DQ pair which only some readers of a tensor see."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One Q node and the DQ nodes that undo it.

    `record` is what they round to. `limits` are the bounds of a Clip on the integers where these
    are no grid.
    """

    quantize: ir.Node
    record: FoundQuantization
    limits: tuple[int, int] | None
    dequantize: tuple[ir.Node, ...]

    @property
    def key(self) -> tuple[object, ...]:
        return (self.limits, self.record.key)


def lift_activations(graph: ir.Graph, names: Names, records: Records) -> None:
    """Take every pair on a computed tensor or model input out; the tensor it rounds is recorded."""
    pairs: dict[ir.Value, list[Pair]] = {}
    for node in list(graph):
        source = input_of(node, 0)
        if source is None or source.const_value is not None:
            continue
        pair = _ranged(node) if is_dynamic_quantize(node) else _pair(node)
        if pair is not None:
            pairs.setdefault(source, []).append(pair)
    replaced: dict[ir.Value, ir.Value] = {}
    for source, found in pairs.items():
        # pairs come in graph order: a source that was itself read through a pair is known by now
        _lift(graph, replaced.get(source, source), found, names, records, replaced)


def _ranged(node: ir.Node) -> Pair | None:
    """The pair the DynamicQuantizeLinear `node` begins."""
    readers = [
        use.node
        for use in node.outputs[0].uses()
        if is_dequantize(use.node)
        and list(use.node.inputs) == list(node.outputs)
        and use.node.graph is node.graph
    ]
    return Pair(node, RANGED, None, tuple(dict.fromkeys(readers))) if readers else None


def _pair(node: ir.Node) -> Pair | None:
    """The pair `node` begins; readers of its integers other than DQ nodes are left aside."""
    if not is_quantize(node):
        return None
    output = node.outputs[0]
    try:
        parameters = read_parameters(node)
    except NotLiftableError:
        return None
    record, limits = parameters.found(), None
    if parameters.float_format is None:
        limits = _limits(output)
    if limits is not None:
        output = next(iter(output.uses())).node.outputs[0]
        limited = _limited_grid(limits, record)
        record, limits = (limited, None) if limited is not None else (record, limits)
    if limits is not None and parameters.axis is not None:
        return None
    readers = []
    for use in output.uses():
        if is_dequantize(use.node) and use.idx == 0 and use.node.graph is node.graph:
            try:
                same = read_parameters(use.node).key == parameters.key
            except NotLiftableError:
                same = False
            if same and use.node.outputs[0].dtype in (None, ir.DataType.FLOAT):
                readers.append(use.node)
    return Pair(node, record, limits, tuple(readers)) if readers else None


def _limits(integers: ir.Value) -> tuple[int, int] | None:
    """Constant bounds of the Clip that alone reads `integers`."""
    uses = list(integers.uses())
    if len(uses) != 1 or not is_op(uses[0].node, "Clip") or integers.is_graph_output():
        return None
    low, high = (array_of(input_of(uses[0].node, index)) for index in (1, 2))
    return None if low is None or high is None else (int(low), int(high))


def _grids(record: FoundQuantization, bits: range) -> Iterator[tuple[FoundQuantization, int, int]]:
    """`record` with `bits` bits, strict and not, and the lowest and highest integer of each."""
    for number in bits:
        lowest = -(2 ** (number - 1)) if record.signed else 0
        highest = lowest + 2**number - 1
        if number < (record.storage_bits or 0):
            yield replace(record, bits=number), lowest, highest
        if bool((record.zero_point == lowest + 2 ** (number - 1)).all()):
            yield replace(record, bits=number, strict=True), lowest + 1, highest


def _limited_grid(limits: tuple[int, int], record: FoundQuantization) -> FoundQuantization | None:
    """`record` on the grid that has exactly these `limits` (QCDQ)."""
    zero_point = record.zero_point
    for narrower, lowest, highest in _grids(record, range(2, record.bits + 1)):
        inside = ((zero_point >= lowest) & (zero_point <= highest)).all()
        if inside and limits == (lowest, highest):
            return narrower
    return None


def _lift(
    graph: ir.Graph,
    source: ir.Value,
    pairs: list[Pair],
    names: Names,
    records: Records,
    replaced: dict[ir.Value, ir.Value],
) -> None:
    groups: dict[tuple[object, ...], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.key, []).append(pair)
    quantizers = {pair.quantize for pair in pairs}
    others = [use for use in source.uses() if use.node not in quantizers]
    unrounded = bool(others) or source.is_graph_output() or source in records
    known = records.get(source)
    for group in groups.values():
        first = group[0]
        if known is not None and _same(known, first):
            target = source  # rounded like this already: rounding again changes nothing
        elif first.limits is not None:
            target = _limited(graph, source, first, names)
        elif unrounded or len(groups) > 1:
            target = _branch(graph, source, first.quantize, names)
        else:
            target = source
        records[target] = first.record
        for pair in group:
            for node in pair.dequantize:
                replaced[node.outputs[0]] = target
                _bypass(graph, node, target, names)
            # what else reads the integers gets the same ones from the rounded tensor
            pair.quantize.replace_input_with(0, target)
        if target is source:
            _unclip(graph, source, first, records)


def _same(record: FoundQuantization, pair: Pair) -> bool:
    return record.key == pair.record.key and not record.dynamic  # a range anew is another one


def _branch(graph: ir.Graph, source: ir.Value, before: ir.Node, names: Names) -> ir.Value:
    node = ir.node("Identity", [source], name=names.fresh(f"{source.name}_rounded_for_some"))
    node.metadata_props[BRANCH] = "1"
    result = node.outputs[0]
    result.name = names.fresh(f"{source.name}_rounded")
    result.type, result.shape = source.type, source.shape
    graph.insert_before(before, node)
    return result


def _limited(graph: ir.Graph, source: ir.Value, pair: Pair, names: Names) -> ir.Value:
    """A Clip of the float tensor to what a Clip of its integers leaves: the same after rounding."""
    assert pair.limits is not None
    zero_point, scale = int(pair.record.zero_point), pair.record.scale
    bounds = [
        add_constant(
            graph, names.fresh(f"{source.name}_{end}"), np.float32(limit - zero_point) * scale
        )
        for end, limit in zip(("min", "max"), pair.limits, strict=True)
    ]
    node = ir.node("Clip", [source, *bounds], name=names.fresh(f"{source.name}_Clip"))
    result = node.outputs[0]
    result.name = names.fresh(f"{source.name}_limited")
    result.type, result.shape = source.type, source.shape
    graph.insert_before(pair.quantize, node)
    return result


def _bypass(graph: ir.Graph, node: ir.Node, target: ir.Value, names: Names) -> None:
    """Readers of the DQ `node` read `target`, which takes its name where it is a model output."""
    output = node.outputs[0]
    if not output.is_graph_output():
        output.replace_all_uses_with(target)
    elif target.producer() is None or target.is_graph_output():
        name = output.name
        copy = ir.node("Identity", [target], name=names.fresh(f"{name}_copy"))
        copy.metadata_props[BRANCH] = "1"
        result = copy.outputs[0]
        result.type, result.shape = output.type, output.shape
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        graph.insert_before(node, copy)
        output.name = None
        result.name = name
    else:
        name = output.name
        output.replace_all_uses_with(target, replace_graph_outputs=True)
        output.name = None
        target.name = name
    graph.remove(node, safe=True)


def _unclip(graph: ir.Graph, value: ir.Value, pair: Pair, records: Records) -> None:
    """A Clip to exactly the range of a grid of 9 to 16 bits, before 16-bit integers, is that
    grid."""
    clip, record = value.producer(), pair.record
    if clip is None or not is_op(clip, "Clip") or record.float_format is not None:
        return
    if record.bits != 16 or record.storage_bits != 16:
        return
    source = clip.inputs[0]
    low, high = (array_of(input_of(clip, index)) for index in (1, 2))
    if (
        low is None
        or high is None
        or record.axis is not None
        or source is None
        or (source.producer() is None and value.is_graph_output())
        or source.is_graph_output()
        or len(source.uses()) != 1
    ):
        return
    for narrower, *limits in _grids(record, range(9, 17)):
        ends = [
            np.float32((end - record.zero_point).astype(np.float64) * record.scale)
            for end in limits
        ]
        if [np.float32(low), np.float32(high)] == ends:
            name, was_output = value.name, value.is_graph_output()
            del records[value]
            value.replace_all_uses_with(source, replace_graph_outputs=True)
            graph.remove(clip, safe=True)
            records[source] = narrower
            if was_output:
                source.name = name
            return
