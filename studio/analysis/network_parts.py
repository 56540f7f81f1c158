"""Cutting a simulated network: into stages, and what another one does differently.

Both are graphs with Q/DQ as `insert_qdq` makes them, of the same float graph. A node of the one is
compared with the node of that name in the other; what reads other values, or reads something else
that is different, is different itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from studio.errors import ExportError
from studio.graph.model import ModelGraph, is_constant
from studio.graph.opset import convert_opset
from studio.graph.subgraphs import reads
from studio.quant.encoding import Encoding
from studio.sim.found import constant_integers
from studio.sim.plan import Plan, Role, TensorPlan
from studio.sim.qdq import Constants, insert_qdq, required_opset
from studio.sim.qdq.storage import BYTES

_CONSTANTS = (Role.WEIGHT, Role.BIAS, Role.CONSTANT)
_COMPARED_ELEMENTS = 2**14
_PLAIN = (ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.INTS)
_FED = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.DOUBLE,
        ir.DataType.BOOL,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    }
)
"""Types of tensors that can be taken out of one session and fed to another."""


class Networks:
    """Makes the simulated networks of one graph under several plans; constants that are rounded
    alike are one array in all of them. `exact`: values of constants where they are not rounded."""

    def __init__(
        self,
        graph: ModelGraph,
        plans: Sequence[Plan],
        exact: Mapping[str, np.ndarray],
    ) -> None:
        self._constants = graph
        self._exact = {name: ir.tensor(array, name=name) for name, array in exact.items()}
        self._rounded: dict[tuple[object, ...], ir.TensorProtocol] = {}
        needed = max(required_opset(_activations(plan), BYTES) for plan in plans)
        if needed > graph.opset:
            graph = replace(graph, ir=convert_opset(graph.ir, needed))
        self._graph = graph

    def model(self, plan: Plan, encodings: Mapping[str, Encoding]) -> ir.Model:
        """The simulation: what `insert_qdq` gives for `Constants.FLOAT`."""
        model = insert_qdq(self._graph, _activations(plan), encodings, constants=Constants.FLOAT)
        for name, tensor in self._exact.items():
            model.graph.initializers[name].const_value = tensor
        for row in plan.tensors.values():
            if row.spec is None or row.role not in _CONSTANTS or row.dynamic:
                continue
            if row.name not in encodings:
                raise ExportError(f"{row.name} has no encoding yet.", "Calibrate first.")
            value = model.graph.initializers[row.name]
            value.const_value = self._round(row, encodings[row.name])
        return model

    def _round(self, row: TensorPlan, encoding: Encoding) -> ir.TensorProtocol:
        key = (
            row.name,
            row.from_file,
            encoding.grid,
            encoding.axis,
            encoding.block_size,
            encoding.scale.tobytes(),
            encoding.zero_point.tobytes(),
            b"" if encoding.integer_scale is None else encoding.integer_scale.tobytes(),
        )
        if key not in self._rounded:
            array = encoding.dequantize(constant_integers(self._constants, row, encoding))
            self._rounded[key] = ir.tensor(array, name=row.name)
        return self._rounded[key]


def _activations(plan: Plan) -> Plan:
    """`plan` with every constant as it is."""
    tensors = {
        name: replace(row, spec=None) if row.role in _CONSTANTS else row
        for name, row in plan.tensors.items()
    }
    return replace(plan, tensors=tensors)


@dataclass(frozen=True)
class Piece:
    """What a network does differently from the base: the nodes from the first difference on, to
    the end of the last stage that has one.

    first, last: stages. model: the nodes (None: no output of the network is different). feeds: its
    inputs, and which values of the base they are. entries: values of the base that it or `watch`
    reads. carried: outputs of `model`, and which values of the base they replace in the stages
    behind. own_outputs: position among the network's outputs, and name in `model`. watch: a tensor
    in `model` and its counterpart in the base.
    """

    first: int
    last: int
    model: ir.Model | None
    feeds: Mapping[str, str]
    entries: frozenset[str]
    carried: Mapping[str, str]
    own_outputs: Mapping[int, str]
    watch: tuple[str, str] | None


class Network:
    """The base network, cut into at most `stages`. Of its outputs those at `places` are looked
    at."""

    def __init__(self, model: ir.Model, places: Sequence[int], stages: int) -> None:
        self._model = model
        self._places = places
        self._nodes = list(model.graph)
        self._by_name = {node.name or "": node for node in self._nodes}
        self.outputs = self._outputs(model)
        """Names of the outputs that are looked at."""
        self._made: dict[str, int] = {}
        self._last_read: dict[str, int] = {}
        self._values: dict[str, ir.Value] = {v.name or "": v for v in model.graph.inputs}
        for position, node in enumerate(self._nodes):
            self._made.update((value.name or "", position) for value in node.outputs)
            self._values.update((value.name or "", value) for value in node.outputs)
            for value in reads(node):
                if value is not None:
                    self._last_read[value.name or ""] = position
        self._ends = self._cut(stages)
        self._boundaries = [*map(self._crossing, [0, *self._ends[:-1]]), []]
        self._sizes: dict[str, int] = {}
        self._stage_of = {
            node.name or "": self._stage_at(position) for position, node in enumerate(self._nodes)
        }

    def _outputs(self, model: ir.Model) -> list[str]:
        return [model.graph.outputs[place].name or "" for place in self._places]

    # -- stages --------------------------------------------------------------------------------

    def _cut(self, count: int) -> list[int]:
        """Positions behind the last node of each stage: near equal shares, where least crosses."""
        total = len(self._nodes)
        ends: list[int] = []
        for number in range(1, count):
            middle, reach = number * total // count, max(total // (3 * count), 1)
            places = range(max(middle - reach, 1), min(middle + reach, total - 1) + 1)
            costs = {place: self._cost(place) for place in places}
            best = min(costs, key=lambda place: (costs[place], abs(place - middle)), default=0)
            if best and math.isfinite(costs[best]) and (not ends or best > ends[-1]):
                ends.append(best)
        return [*ends, total]

    def _cost(self, place: int) -> float:
        """Elements of a sample that cross in front of the node at `place`; inf if one cannot."""
        cost = 0.0
        for name in self._crossing(place):
            value = self._values[name]
            if not _can_be_fed(value):
                return math.inf
            cost += math.prod(side for side in value.shape or () if isinstance(side, int))
        return cost

    def _crossing(self, place: int) -> list[str]:
        return [
            name
            for name, last in self._last_read.items()
            if last >= place and name in self._values and self._made.get(name, -1) < place
        ]

    def _stage_at(self, position: int) -> int:
        return next(stage for stage, end in enumerate(self._ends) if position < end)

    def crossing(self, stage: int) -> list[str]:
        """Values made before `stage` that it or a later one reads."""
        return self._boundaries[stage]

    def stages(self) -> Iterator[ir.Model]:
        """Each stage: from what it reads to what later ones read, and the outputs it makes."""
        for number in range(len(self._ends)):
            yield self.stage(number)

    def stage(self, number: int, more: Collection[str] = ()) -> ir.Model:
        """One stage, with those of the values `more` as outputs that it makes."""
        start = self._ends[number - 1] if number else 0
        end = self._ends[number]
        nodes = self._nodes[start:end]
        made = {value.name or "" for node in nodes for value in node.outputs}
        wanted = [
            name
            for name in dict.fromkeys((*self.crossing(number + 1), *self.outputs, *sorted(more)))
            if name in made
        ]
        return _extract(self._model, nodes, wanted)

    def learn_sizes(self, values: Mapping[str, np.ndarray]) -> None:
        """Take from some values what the open sides of shapes are in the data."""
        for name, array in values.items():
            shape = self._values[name].shape if name in self._values else None
            if shape is not None and len(shape) == array.ndim:
                for side, size in zip(shape, array.shape, strict=True):
                    if not isinstance(side, int) and side.value is not None:
                        self._sizes[side.value] = size

    def widest(self, stage: int) -> float:
        """Elements of a sample in the largest tensor of a stage; inf if not all sizes behind the
        first are known."""
        start = self._ends[stage - 1] if stage else 0
        values = [
            value for node in self._nodes[start : self._ends[stage]] for value in node.outputs
        ]
        return max(map(self._elements, values), default=1.0)

    def _elements(self, value: ir.Value) -> float:
        elements = 1.0
        for side in (None,) if value.shape is None else tuple(value.shape)[1:]:
            if isinstance(side, ir.SymbolicDim):
                side = self._sizes.get(side.value or "")
            elements *= math.inf if side is None else side
        return elements

    # -- differences ---------------------------------------------------------------------------

    def piece(self, model: ir.Model, watch: tuple[str, str] | None = None) -> Piece:
        """What `model`, another network of the same graph, does differently. `watch`: a tensor in
        `model` and in the base."""
        found = _Difference(self._by_name, model)
        places = [self._stage_of[name] for name in found.changed if name in self._stage_of]
        stages = self._stages_of(found, model)
        places += [stages[name] for name in found.changed if name not in self._stage_of]
        first, last = min(places, default=0), max(places, default=0)
        own = [
            node
            for node in model.graph
            if node.name in found.affected and stages[node.name] <= last
        ]
        own = _with_unfeedable(own)
        made = {value.name or "": value for node in own for value in node.outputs}
        carried = {}
        for name in made:
            base = found.twins.get(name, "")
            if base and self._last_read.get(base, -1) >= self._ends[last]:
                carried[name] = base
        own_outputs = {
            place: name for place, name in enumerate(self._outputs(model)) if name in made
        }
        if watch is not None and (watch[0] not in made or watch[1] not in self._values):
            watch = None
        wanted = [*carried, *own_outputs.values(), *([watch[0]] if watch else [])]
        if not wanted:
            return Piece(first, last, None, {}, frozenset(), {}, {}, None)
        extracted = _extract(model, own, list(dict.fromkeys(wanted)))
        feeds = {
            value.name or "": found.twins[value.name or ""] for value in extracted.graph.inputs
        }
        entries = frozenset((*feeds.values(), *([watch[1]] if watch else [])))
        for name in entries:
            # What only the variant reads so late is not carried there by the base.
            if name in self._made and name not in self._boundaries[first]:
                first = min(first, self._stage_at(self._made[name]))
        return Piece(first, last, extracted, feeds, entries, carried, own_outputs, watch)

    def _stages_of(self, found: _Difference, model: ir.Model) -> dict[str, int]:
        """Stage of every node of `model`: as in the base, else that of the first reader."""
        stages: dict[str, int] = {}
        for node in reversed(list(model.graph)):
            name = node.name or ""
            if name in self._stage_of:
                stages[name] = self._stage_of[name]
                continue
            readers = [
                stages[use.node.name or ""]
                for value in node.outputs
                for use in value.uses()
                if (use.node.name or "") in stages
            ]
            stages[name] = min(readers, default=len(self._ends) - 1)
        return stages


class _Difference:
    """changed: names of nodes that are not in the base or read something else than there.
    affected: those and all behind. twins: value of the model -> that of the base in its place."""

    def __init__(self, base: Mapping[str, ir.Node], model: ir.Model) -> None:
        self.twins = {value.name or "": value.name or "" for value in model.graph.inputs}
        self.changed: set[str] = set()
        self.affected: set[str] = set()
        other: set[str] = set()
        for node in model.graph:
            name = node.name or ""
            twin = base.get(name)
            if twin is not None and (
                twin.op_type != node.op_type or len(twin.outputs) != len(node.outputs)
            ):
                twin = None
            if twin is not None:
                pairs = zip(node.outputs, twin.outputs, strict=True)
                self.twins.update((ours.name or "", its.name or "") for ours, its in pairs)
            same = twin is not None and self._same(node, twin)
            if not same:
                self.changed.add(name)
            if not same or any(value.name in other for value in reads(node) if value is not None):
                self.affected.add(name)
                other.update(value.name or "" for value in node.outputs)

    def _same(self, node: ir.Node, twin: ir.Node) -> bool:
        """True if both compute the same from inputs that are in each other's place."""
        ours, its = reads(node), reads(twin)
        return (
            len(ours) == len(its)
            and _plain_attributes(node) == _plain_attributes(twin)
            and all(self._same_value(a, b) for a, b in zip(ours, its, strict=True))
        )

    def _same_value(self, ours: ir.Value | None, its: ir.Value | None) -> bool:
        if ours is None or its is None:
            return ours is its
        if is_constant(ours) or is_constant(its):
            return _same_constant(ours.const_value, its.const_value)
        return self.twins.get(ours.name or "") == its.name


def _same_constant(ours: ir.TensorProtocol | None, its: ir.TensorProtocol | None) -> bool:
    if ours is its:
        return True
    if ours is None or its is None or ours.size > _COMPARED_ELEMENTS or its.size != ours.size:
        return False
    return ours.dtype == its.dtype and np.array_equal(ours.numpy(), its.numpy())


def _plain_attributes(node: ir.Node) -> dict[str, object]:
    return {
        name: attribute.value
        for name, attribute in node.attributes.items()
        if attribute.type in _PLAIN
    }


def _can_be_fed(value: ir.Value) -> bool:
    typed = value.type is None or isinstance(value.type, ir.TensorType)
    return typed and value.dtype in _FED


def _with_unfeedable(nodes: list[ir.Node]) -> list[ir.Node]:
    """`nodes`, and those that make what they read where that cannot be fed, in order."""
    known = set(nodes)
    waiting = list(nodes)
    while waiting:
        for value in reads(waiting.pop()):
            maker = None if value is None else value.producer()
            if value is None or maker is None or maker in known or _can_be_fed(value):
                continue
            known.add(maker)
            waiting.append(maker)
    if len(known) == len(nodes):
        return nodes
    graph = nodes[0].graph
    assert graph is not None
    return [node for node in graph if node in known]


def _extract(model: ir.Model, nodes: Sequence[ir.Node], outputs: Sequence[str]) -> ir.Model:
    """A model of `nodes` alone, fed with everything else they read."""
    own = set(nodes)
    inputs: dict[ir.Value, None] = {}
    made: dict[str, ir.Value] = {}
    for node in nodes:
        made.update((value.name or "", value) for value in node.outputs)
        for value in reads(node):
            if value is None or is_constant(value) or value.producer() in own:
                continue
            inputs[value] = None
    graph = ir.convenience.extract(model.graph, list(inputs), [made[name] for name in outputs])
    used = {value for node in graph for value in reads(node) if value is not None}
    kept = [value for value in graph.inputs if value in used]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    return ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        functions=list(model.functions.values()),
    )
