"""What a choice of bits costs: model size or bit-operations, as sums over groups of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from studio.analysis.cost import FLOAT_BITS, Shapes, layer_costs
from studio.graph.macs import MAC_OPS, node_macs
from studio.graph.model import ModelGraph
from studio.ptq.bit_groups import Groups
from studio.sim.plan import Plan

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """What two groups cost together: `table` has a row for each candidate of `first` and a column
    for each of `second`."""

    first: int
    second: int
    table: Array


@dataclass(frozen=True)
class Costs:
    """`fixed`, plus `single[group, candidate]`, plus the pairs."""

    fixed: float
    single: Array
    pairs: tuple[Pair, ...] = ()

    def of(self, chosen: Sequence[int]) -> float:
        """The cost where group i has the candidate chosen[i]."""
        alone = sum(float(self.single[group, candidate]) for group, candidate in enumerate(chosen))
        together = sum(float(p.table[chosen[p.first], chosen[p.second]]) for p in self.pairs)
        return self.fixed + alone + together


def size_costs(graph: ModelGraph, groups: Groups, plans: Sequence[Plan]) -> Costs:
    """Bytes of all constants, without scales; `plans` are those of the uniform candidates."""
    single = np.zeros((len(groups.groups), len(plans)))
    group_of = _group_of(groups)
    fixed = 0.0
    for index, plan in enumerate(plans):
        for cost in layer_costs(graph, plan, {}):
            group = group_of.get(cost.layer)
            if group is not None:
                single[group, index] += cost.quantized_bytes
            elif index == 0:
                fixed += cost.quantized_bytes
    return Costs(fixed, single)


def bit_operation_costs(
    graph: ModelGraph, groups: Groups, plans: Sequence[Plan], shapes: Shapes
) -> Costs:
    """Multiply-accumulates of one sample times the bits of both operands.

    The bits of an activation are decided by the layer that makes it, those of a weight by the layer
    that reads it. `shapes` are those of `cost.tensors_to_measure`; what has none costs nothing.
    """
    single = np.zeros((len(groups.groups), len(plans)))
    group_of = _group_of(groups)
    pairs: dict[tuple[int, int], Array] = {}
    fixed = 0.0
    for node in graph.nodes():
        if node.op_type not in MAC_OPS:
            continue
        macs = node_macs(node, lambda value: shapes.get(value.name or ""))
        if macs is None:
            continue
        operands = [_operand(value, plans, group_of) for value in node.inputs[:2]]
        (one, a), (other, b) = operands
        if len(set(a)) == 1:
            one = None
        if len(set(b)) == 1:
            other = None
        if one is None and other is None:
            fixed += macs * a[0] * b[0]
        elif one is None or other is None or one == other:
            group = other if one is None else one
            assert group is not None
            single[group] += macs * a * b
        elif one < other:
            table = pairs.setdefault((one, other), np.zeros((len(plans), len(plans))))
            table += macs * np.outer(a, b)
        else:
            table = pairs.setdefault((other, one), np.zeros((len(plans), len(plans))))
            table += macs * np.outer(b, a)
    found = tuple(Pair(first, second, table) for (first, second), table in pairs.items())
    return Costs(fixed, single, found)


def _group_of(groups: Groups) -> dict[str, int]:
    return {layer: index for index, group in enumerate(groups.groups) for layer in group.layers}


def _operand(
    value: ir.Value | None, plans: Sequence[Plan], group_of: Mapping[str, int]
) -> tuple[int | None, Array]:
    """The group that decides the bits of `value`, and the bits under each uniform candidate."""
    name = "" if value is None else value.name or ""
    bits = []
    group = None
    for plan in plans:
        row = plan.tensors.get(name)
        bits.append(FLOAT_BITS if row is None or row.spec is None else row.spec.grid.bits)
        if row is not None and row.spec is not None and group is None:
            root = plan.tensors[row.tied_to] if row.tied_to is not None else row
            group = group_of.get(root.layer)
    return group, np.array(bits, np.float64)
