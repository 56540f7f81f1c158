"""Calibration: run data through the float graph and remember each observed tensor's statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from studio.errors import DataError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress, TensorRanges
from studio.quant.statistics import Histogram, TensorStatistics
from studio.runtime.world import ALONE, World
from studio.sim.probes import add_probes

COUNTED = 2**18
"""Elements of a tensor counted in its histogram over all samples; the range always covers all."""

COUNTED_PER_SAMPLE = (512, 8192)
"""Fewest and most of them taken from one sample."""

COUNTED_AT_ONCE = 2**16
"""Elements that wait to be counted together: many small counts cost more than the network."""

PAIRS_KEPT = 2**14
"""Samples of which the two highest scores are kept."""


class _Seen(NamedTuple):
    """What is kept of one look at a tensor: its range, and of its values a sample to count (None:
    the range is of its highest values alone) and the two highest of each row of scores."""

    low: float
    high: float
    sampled: np.ndarray | None = None
    pairs: np.ndarray | None = None


def _look(array: np.ndarray, per_sample: int, scores: bool) -> _Seen | None:
    """All values of `array`; None if one of them is not finite."""
    import torch

    lowest, highest = torch.aminmax(torch.from_numpy(array))
    low, high = lowest.item(), highest.item()
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    pairs = None
    if scores and array.ndim == 2 and array.shape[1] > 1:
        pairs = np.partition(array[:PAIRS_KEPT], -2, axis=1)[:, :-3:-1].copy()
    return _Seen(low, high, _sampled(array, per_sample).copy(), pairs)


class _Observation:
    """Ranges and histogram of one tensor, growing."""

    def __init__(self) -> None:
        self.minimum = math.inf
        self.maximum = -math.inf
        self._histogram = Histogram()
        self._waiting: list[np.ndarray] = []
        self._waiting_size = 0
        self._batch = (math.inf, -math.inf)
        self._batches: list[tuple[float, float]] = []
        self._pairs: list[np.ndarray] = []
        self._pairs_size = 0

    def add(self, seen: _Seen) -> None:
        """Take in another look at the tensor."""
        self.minimum, self.maximum = min(self.minimum, seen.low), max(self.maximum, seen.high)
        self._batch = min(self._batch[0], seen.low), max(self._batch[1], seen.high)
        if seen.sampled is not None:
            self._waiting.append(seen.sampled)
            self._waiting_size += seen.sampled.size
            if self._waiting_size >= COUNTED_AT_ONCE:
                self._count()
        if seen.pairs is not None:
            rows = seen.pairs[: PAIRS_KEPT - self._pairs_size]
            self._pairs.append(rows)
            self._pairs_size += len(rows)

    def end_batch(self) -> None:
        """The next values are of another batch."""
        if self._batch[0] <= self._batch[1]:
            self._batches.append(self._batch)
        self._batch = (math.inf, -math.inf)

    def _count(self) -> None:
        if self._waiting:
            values = np.concatenate(self._waiting)
            self._histogram.add(values, self.minimum, self.maximum)
            self._waiting.clear()
            self._waiting_size = 0

    @property
    def seen(self) -> bool:
        """True once the tensor had any element."""
        return self.minimum <= self.maximum

    def result(self) -> TensorStatistics:
        self._count()
        counts, low, high = self._histogram.statistics()
        return TensorStatistics(
            self.minimum,
            self.maximum,
            counts,
            low,
            high,
            np.array(self._batches, dtype=np.float32).reshape(-1, 2),
            np.concatenate([np.zeros((0, 2), dtype=np.float32), *self._pairs]),
        )


def _sampled(array: np.ndarray, per_sample: int) -> np.ndarray:
    """About `per_sample` elements for each sample, spread over the whole array (all, if there are
    fewer): cache lines of 16 numbers, since fetching single ones costs as much."""
    flat = array.reshape(-1)
    lines = array.size // 16
    # An odd step does not fall into step with the rows of an image.
    step = lines * 16 // (per_sample * (len(array) if array.ndim else 1)) | 1
    if step == 1:
        return flat
    return flat[: lines * 16].reshape(lines, 16)[::step].reshape(-1)


def collect_statistics(
    graph: ModelGraph,
    tensors: Sequence[str],
    batches: Iterable[Mapping[str, np.ndarray]],
    total: int,
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    world: World = ALONE,
    emit: Emit,
    cancel: CancelToken,
) -> dict[str, TensorStatistics]:
    """Statistics of `tensors` (float32) over `batches` of inputs (`total` samples in all).

    `weights` replaces constants of the graph by name while it runs, such as by their rounded selves
    (`encodings.rounded_weights`). Emits `Progress` in samples and the ranges so far after every
    batch. Raises DataError for values that are not finite, for a tensor that is always empty or
    when there was no batch, CancelledError when cancelled.

    In a `world` of several processes each gives the batches that are its own, every `world.size`th
    of all, the others than the first with the very first batch of all before them. All get the
    statistics that one process alone would collect.
    """
    if not tensors:
        return {}
    if weights:
        graph = _with_constants(graph, weights)
    per_sample = min(max(COUNTED // max(total, 1), COUNTED_PER_SAMPLE[0]), COUNTED_PER_SAMPLE[1])
    looks = _Looks(graph, tensors, per_sample)
    observed = {name: _Observation() for name in tensors}
    done = index = 0
    for round_ in _rounds(looks, batches, world, cancel):
        for samples, seen in round_:
            for name, look in seen:
                observed[name].add(look)
            for observation in observed.values():
                observation.end_batch()
            done += samples
            emit(Progress("Calibrating", done, total, f"{done} of {total} samples"))
            emit(_ranges(index, observed))
            index += 1
    statistics = None
    if world.first:
        statistics = _results(graph, observed, done)
    return world.told(statistics)


_Batch = tuple[int, Iterable[tuple[str, _Seen]]]
"""Samples of a batch, and what was seen of which tensor in order."""


def _rounds(
    looks: _Looks,
    batches: Iterable[Mapping[str, np.ndarray]],
    world: World,
    cancel: CancelToken,
) -> Iterator[list[_Batch]]:
    """Batches in order, one of each process at a time; in the others than the first none."""
    from studio.runtime.budget import samples

    own = iter(batches)
    if not world.first:
        looks.learn_shapes(next(own, None))
    while True:
        cancel.check()
        batch = next(own, None)
        found: _Batch | None = None
        if batch is not None:
            seen = looks.at(batch, cancel)
            found = samples(batch), (list(seen) if world.size > 1 else seen)
        if not any(world.told_by_all(found is not None)):
            return
        yield [item for item in world.gathered(found) if item is not None]


def _results(
    graph: ModelGraph, observed: Mapping[str, _Observation], done: int
) -> dict[str, TensorStatistics]:
    if not done:
        raise DataError(
            "There is no sample to calibrate on.", "Choose a folder with images or arrays."
        )
    for name, observation in observed.items():
        if not observation.seen:
            raise DataError(
                f"The tensor {name}{_made_by(graph, name)} is empty for every sample.",
                "Calibrate on data for which it is not, or switch its layer's activations off.",
            )
    return {name: observation.result() for name, observation in observed.items()}


class _Looks:
    """Runs the network on batches and looks at its tensors."""

    def __init__(self, graph: ModelGraph, tensors: Sequence[str], per_sample: int) -> None:
        fed = {value.name for value in graph.inputs}
        self._graph = graph
        self._inputs = [name for name in tensors if name in fed]
        self._per_sample = per_sample
        self._scores = _scores(graph)
        self._reader = _Reader(graph, [name for name in tensors if name not in fed], per_sample)

    def learn_shapes(self, batch: Mapping[str, np.ndarray] | None) -> None:
        """Get ready for all batches but the very first, which is `batch`."""
        if batch is not None:
            self._reader.learn_shapes(batch)

    def at(
        self, batch: Mapping[str, np.ndarray], cancel: CancelToken
    ) -> Iterator[tuple[str, _Seen]]:
        """What is seen of one batch. Raises DataError for values that are not finite."""
        for name in self._inputs:
            yield from self._look(name, batch[name])
        reader = self._reader
        for values in reader.read(batch):
            for name, array in values.items():
                if name in reader.highest:
                    yield from self._look(reader.highest[name], array, highest=True)
                elif name in reader.pixels:
                    tensor, skip = reader.pixels[name]
                    yield from self._look(tensor, array[:, :, skip:, skip:])
                else:
                    yield from self._look(name, array)
            cancel.check()

    def _look(
        self, name: str, array: np.ndarray, *, highest: bool = False
    ) -> Iterator[tuple[str, _Seen]]:
        """The tensor as it is in `array`, or the highest values of its parts."""
        if not array.size:
            return
        if highest:
            high = float(array.max())
            look = _Seen(math.inf, high) if math.isfinite(high) else None
        else:
            look = _look(array, self._per_sample, name in self._scores)
        if look is None:
            raise _not_finite(self._graph, name, array)
        yield name, look


class _Reader:
    """Runs the network and hands its tensors over: of the first sample all values, afterwards,
    their sizes known, those of large ones through probes."""

    def __init__(self, graph: ModelGraph, tensors: Sequence[str], per_sample: int) -> None:
        from studio.runtime.budget import BudgetedReader
        from studio.runtime.session import float_session

        self.highest: dict[str, str] = {}
        self.pixels: dict[str, tuple[str, int]] = {}
        self._graph = graph
        self._tensors = tensors
        self._per_sample = per_sample
        self._shapes: dict[str, tuple[int, ...]] | None = {}
        self._session = float_session(graph, tensors)
        self._reader = BudgetedReader(self._session, tensors)

    def read(self, batch: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Some tensors after the other, named as in `highest` and `pixels` or as they are."""
        for part in self._parts(batch):
            yield from self._read_part(part)

    def _read_part(self, part: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        if self._shapes:
            self._probe()
        for _, values in self._reader.read(part):
            if self._shapes is not None:
                self._shapes.update({name: array.shape for name, array in values.items()})
            yield values

    def learn_shapes(self, batch: Mapping[str, np.ndarray]) -> None:
        """Read the first sample of `batch` for its shapes alone."""
        for _ in self._read_part(self._parts(batch)[0]):
            pass

    def _parts(self, batch: Mapping[str, np.ndarray]) -> list[Mapping[str, np.ndarray]]:
        lengths = {len(array) if array.ndim else 0 for array in batch.values()}
        if self._shapes != {} or self._session.fixed_batch or len(lengths) > 1 or min(lengths) < 2:
            return [batch]
        return [
            {name: array[part] for name, array in batch.items()}
            for part in (slice(1), slice(1, None))
        ]

    def _probe(self) -> None:
        from studio.runtime.budget import BudgetedReader
        from studio.runtime.session import float_session

        graph, probes = add_probes(self._graph, self._shapes or {}, self._per_sample)
        self._shapes = None
        if not probes:
            return
        self.highest = {probe.highest: name for name, probe in probes.items()}
        self.pixels = {probe.pixels: (name, probe.skip) for name, probe in probes.items()}
        names = []  # in the order of the graph: the first that is not finite is told
        for name in self._tensors:
            probe = probes.get(name)
            names += [name] if probe is None else [probe.highest, probe.pixels]
        self._session = float_session(graph, names)
        self._reader = BudgetedReader(self._session, names)


def _with_constants(graph: ModelGraph, constants: Mapping[str, np.ndarray]) -> ModelGraph:
    import onnx_ir as ir

    changed = graph.copy()
    for name, array in constants.items():
        changed.value(name).const_value = ir.tensor(array, name=name)
    return changed


def _scores(graph: ModelGraph) -> set[str]:
    """Model outputs, and what a Softmax that is one reads: where a classifier's scores can be."""
    names = set()
    for value in graph.outputs:
        names.add(value.name or "")
        node = value.producer()
        if node is not None and node.op_type in ("Softmax", "LogSoftmax") and node.inputs[0]:
            names.add(node.inputs[0].name or "")
    return names


def _made_by(graph: ModelGraph, name: str) -> str:
    node = graph.value(name).producer()
    return f", made by {node.name} ({node.op_type})," if node is not None else ""


def _not_finite(graph: ModelGraph, name: str, array: np.ndarray) -> DataError:
    node = graph.value(name).producer()
    where = f"The tensor {name}{_made_by(graph, name)}"
    if np.isnan(array).any():
        hint = "Check the preprocessing (mean, std, scale) and the model's weights."
        return DataError(f"{where} takes values that are NaN.", hint)
    hint = "Check the preprocessing (mean, std, scale) and the model's weights"
    if node is not None:
        hint += f"; if infinity is meant, as in a mask, switch the activations of {node.name} off"
    return DataError(f"{where} takes infinite values.", f"{hint}.")


def _ranges(batch: int, observed: Mapping[str, _Observation]) -> TensorRanges:
    seen = {name: observation for name, observation in observed.items() if observation.seen}
    return TensorRanges(
        batch,
        tuple(seen),
        tuple(observation.minimum for observation in seen.values()),
        tuple(observation.maximum for observation in seen.values()),
    )
