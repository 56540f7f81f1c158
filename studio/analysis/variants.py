"""Many networks that differ from one in a few places each, measured without running all of each.

For whoever compares settings (sensitivity, mixed precision): make a `Variant` of each, a plan and
its encodings, `quantizing(plan, names)` gives a plan that rounds some tensors alone, and
`measure_variants` tells how far the outputs of each are from float. The network `base`, from which
they differ, is run once; of a variant only the nodes behind the first difference are run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from studio.analysis.deviation import Deviation, DeviationMeter
from studio.analysis.evaluate import simulated_name, tensor_outputs
from studio.analysis.network_parts import Network, Networks, Piece
from studio.analysis.side_by_side import Part, SideBySide
from studio.data.dataset import Dataset
from studio.errors import DataError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress, Warned
from studio.quant.encoding import Encoding
from studio.runtime.session import Optimizations, Session, float_session
from studio.sim.plan import Plan

KEPT_BYTES = 2**30
"""Bytes of inputs, outputs and tensors between two stages that are kept at a time."""

STAGE_NODES = 24
"""Nodes of the float graph in a stage; fewer make its boundaries cost more than they save."""

WATCHED = 16
"""Samples on which watched tensors are measured."""


@dataclass(frozen=True)
class Variant:
    """A network: the tensors that `plan` quantizes are rounded by `encodings`, which must have
    them all. `watch` names a tensor whose own distance is measured where it arises."""

    plan: Plan
    encodings: Mapping[str, Encoding]
    watch: str | None = None


@dataclass(frozen=True)
class Measured:
    """Deviations from float of the base and of every variant, in their order. `watched`: distance
    of a variant's watched tensor from the base's (None: watches nothing). float_top1: accuracy of
    the float network in percent, None without labels."""

    samples: int
    base: Deviation
    variants: tuple[Deviation, ...]
    watched: tuple[Deviation | None, ...]
    float_top1: float | None = None


def quantizing(plan: Plan, names: Collection[str]) -> Plan:
    """`plan` with the tensors `names` quantized and all others left as they are."""
    tensors = {
        name: row if row.spec is None or name in names else replace(row, spec=None)
        for name, row in plan.tensors.items()
    }
    return replace(plan, tensors=tensors)


def measure_variants(
    graph: ModelGraph,
    base: Variant,
    variants: Sequence[Variant],
    data: Dataset,
    *,
    batch_size: int,
    reference: ModelGraph | None = None,
    exact: Mapping[str, np.ndarray] | None = None,
    phase: str = "Measuring",
    emit: Emit,
    cancel: CancelToken,
) -> Measured:
    """Deviation from float of the outputs of `base` and of each of `variants` on all of `data`.

    The nearer a variant's first difference from `base` is to the outputs, the less it costs; the
    numbers are those of a full run, but for the summation order of float kernels. Outputs are
    compared with those of `reference` in float (None: of `graph`). `exact` are the values of
    constants where they are not rounded, if those are not the graph's. Emits `Progress` in variants
    times samples. Raises DataError without samples, CancelledError, and ModelError for what
    onnxruntime cannot run.
    """
    measurement = _Measurement(
        graph, base, variants, reference or graph, exact or {}, phase, emit, cancel
    )
    return measurement.run(data, batch_size)


class _Measurement:
    def __init__(
        self,
        graph: ModelGraph,
        base: Variant,
        variants: Sequence[Variant],
        reference: ModelGraph,
        exact: Mapping[str, np.ndarray],
        phase: str,
        emit: Emit,
        cancel: CancelToken,
    ) -> None:
        self._phase, self._emit, self._cancel = phase, emit, cancel
        self._float = float_session(reference)
        self._outputs = tensor_outputs(graph)
        names = [value.name for value in graph.outputs]
        places = [names.index(name) for name in self._outputs]
        networks = Networks(graph, [base.plan, *(each.plan for each in variants)], exact)
        stages = max(1, round(sum(1 for _ in graph.nodes()) / STAGE_NODES))
        self._base = Network(networks.model(base.plan, base.encodings), places, stages)
        self._pieces: list[Piece] = []
        for index, variant in enumerate(variants):
            cancel.check()
            emit(Progress(phase, 0, 0, f"preparing {index + 1} of {len(variants)} networks"))
            model = networks.model(variant.plan, variant.encodings)
            watch = None
            if variant.watch is not None:
                watch = (
                    simulated_name(graph, variant.plan, variant.watch),
                    simulated_name(graph, base.plan, variant.watch),
                )
            self._pieces.append(self._base.piece(model, watch))
        self._stages = [
            Session(stage, optimizations=Optimizations.FLOAT) for stage in self._base.stages()
        ]
        self._meter = DeviationMeter()
        self._exact = DeviationMeter()
        self._meters = [DeviationMeter() for _ in variants]
        self._watches = [DeviationMeter() if piece.watch else None for piece in self._pieces]
        self._watched = [0] * len(variants)
        self._done = 0
        self._total = 0

    def run(self, data: Dataset, batch_size: int) -> Measured:
        self._total = max(len(data), 1) * max(len(self._pieces), 1)
        samples = 0
        for parts in self._chunks(data, batch_size):
            samples += sum(part.samples for part in parts)
            together = SideBySide(self._base, self._stages, parts)
            for stage in range(len(self._stages)):
                group = [i for i, piece in enumerate(self._pieces) if piece.first == stage]
                parts = together.merged(stage, parts)
                self._measure(stage, group, parts, together)
        if not samples:
            raise DataError(
                "There is no sample to measure on.", "Choose a folder with images or arrays."
            )
        if self._exact.problem:
            self._emit(Warned(self._exact.problem))
        watched = [None if meter is None else meter.result() for meter in self._watches]
        return Measured(
            samples,
            self._meter.result(),
            tuple(meter.result() for meter in self._meters),
            tuple(watched),
            self._exact.result().top1,
        )

    def _chunks(self, data: Dataset, batch_size: int) -> Iterator[list[Part]]:
        """The batches, as many at a time as can be kept."""
        parts: list[Part] = []
        size = 0
        for batch in data.batches(batch_size, cancel=self._cancel):
            self._cancel.check()
            expected = self._float.run(batch.inputs, self._outputs)
            outputs, widest = self._run_base(batch.inputs)
            part = Part(
                len(batch), batch.labels, list(expected.values()), outputs, dict(batch.inputs)
            )
            self._meter.add(part.expected, part.outputs, part.labels)
            self._exact.add(part.expected, part.expected, part.labels)
            arrays = (*batch.inputs.values(), *part.expected, *part.outputs)
            needed = sum(array.nbytes for array in arrays) + 2 * widest
            if parts and size + needed > KEPT_BYTES:
                yield parts
                parts, size = [], 0
            parts.append(part)
            size += needed
        if parts:
            yield parts

    def _run_base(self, inputs: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], int]:
        """Outputs of the base network, and the bytes at its widest boundary."""
        names = self._base.outputs
        values: dict[str, np.ndarray] = dict(inputs)
        widest = 0
        for stage, session in enumerate(self._stages):
            values.update(session.run({name: values[name] for name in session.inputs}))
            self._base.learn_sizes(values)
            crossing = self._base.crossing(stage + 1)
            widest = max(widest, sum(values[name].nbytes for name in crossing))
            values = {name: values[name] for name in {*crossing, *names} if name in values}
        return [values[name] for name in names], widest

    def _measure(
        self, stage: int, group: list[int], parts: list[Part], together: SideBySide
    ) -> None:
        """Measure the variants of `group`, which differ first in `stage`, and bring the base
        network of every part behind it."""
        pieces = {i: self._pieces[i] for i in group}
        last = max((piece.last for piece in pieces.values()), default=stage)
        sessions = {
            i: Session(piece.model, optimizations=Optimizations.FLOAT)
            for i, piece in pieces.items()
            if piece.model is not None
        }
        wanted = {name for piece in pieces.values() for name in piece.entries}
        inner = [
            Session(self._base.stage(number, wanted), optimizations=Optimizations.FLOAT)
            for number in range(stage, last + 1)
        ]
        crossing = self._base.crossing(stage + 1)
        for block in together.blocks(parts):
            begun: dict[int, list[Part]] = {i: [] for i in group}
            for part in block:
                self._cancel.check()
                known = part.values
                for session in inner:
                    known.update(session.run({name: known[name] for name in session.inputs}))
                for i, piece in pieces.items():
                    begun[i].append(self._begin(i, piece, sessions.get(i), part))
                part.values = {name: known[name] for name in crossing}
            for i, piece in pieces.items():
                self._finish(i, piece, together, begun.pop(i))

    def _begin(self, index: int, piece: Piece, session: Session | None, part: Part) -> Part:
        """Run what one variant does differently on one part: its outputs as far as it makes them,
        and the values that the stages behind read."""
        outputs = list(part.outputs)
        if session is None:
            return Part(part.samples, part.labels, part.expected, outputs, {})
        known = part.values
        meter = self._watches[index]
        watch = piece.watch if meter is not None and self._watched[index] < WATCHED else None
        names = [*piece.carried, *piece.own_outputs.values(), *([watch[0]] if watch else [])]
        feeds = {name: known[piece.feeds[name]] for name in session.inputs}
        own = session.run(feeds, list(dict.fromkeys(names)))
        for place, name in piece.own_outputs.items():
            outputs[place] = own[name]
        if meter is not None and watch is not None:
            ours, base = watch
            meter.add([known[base]], [own[ours]])
            self._watched[index] += part.samples
        values: dict[str, np.ndarray] = {}
        if piece.carried:
            values = {name: known[name] for name in self._base.crossing(piece.last + 1)}
            values.update({base: own[name] for name, base in piece.carried.items()})
        return Part(part.samples, part.labels, part.expected, outputs, values)

    def _finish(self, index: int, piece: Piece, together: SideBySide, parts: list[Part]) -> None:
        """Run the rest of one variant on some parts, and measure it."""
        for stage in range(piece.last + 1, len(self._stages)) if piece.carried else ():
            self._cancel.check()
            parts = together.merged(stage, parts)
            session = self._stages[stage]
            crossing = self._base.crossing(stage + 1)
            for part in parts:
                values = part.values
                values.update(session.run({name: values[name] for name in session.inputs}))
                for place, name in enumerate(self._base.outputs):
                    if name in values and place not in piece.own_outputs:
                        part.outputs[place] = values[name]
                part.values = {name: values[name] for name in crossing}
        for part in parts:
            self._meters[index].add(part.expected, part.outputs, part.labels)
            self._done += part.samples
        detail = f"{self._done} of {self._total} runs"
        self._emit(Progress(self._phase, self._done, self._total, detail))
