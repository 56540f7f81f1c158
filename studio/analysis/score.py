"""One number that says how good a quantized model is: what techniques compare models by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from studio.analysis.evaluate import (
    AccuracyMeter,
    class_scores,
    simulated_session,
    tensor_outputs,
)
from studio.data.dataset import Dataset
from studio.errors import DataError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress, silent
from studio.readable import decibels, percent
from studio.runtime.session import float_session
from studio.sim.quantized_model import QuantizedModel

KEPT_BYTES = 2**30
"""Inputs and float outputs that a scorer keeps in memory; what is beyond is computed again."""

SIGMAS = 2.0
"""Standard errors of the mean up to which a difference is noise."""

Metric = Literal["top-1", "SQNR"]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """How good a model is on `samples` samples; higher is better and never NaN.

    metric, value: top-1 in percent, or without labels the SQNR of the outputs to float in dB (inf:
    equal; -inf: not finite, or of another shape). sqnr_db: that SQNR in any case. agreement:
    percent of samples with the float model's best class (None: no class scores). each: what the
    value is made of, (samples,): 1 for a hit and 0 for a miss, or the noise of the sample.
    """

    metric: Metric
    value: float
    sqnr_db: float
    agreement: float | None
    samples: int
    each: Array = field(repr=False, compare=False)

    @property
    def rank(self) -> tuple[float, float]:
        """What scores of one metric are ordered by: of equal ones the nearer to float is better."""
        return self.value, self.sqnr_db

    @property
    def unit(self) -> str:
        return "%" if self.metric == "top-1" else "dB"

    @property
    def text(self) -> str:
        """`87.2 %`, `31.4 dB`, never broken before the sign."""
        return percent(self.value) if self.metric == "top-1" else decibels(self.value)

    @property
    def title(self) -> str:
        """The metric with its unit, as an axis is named."""
        return f"{'Top-1' if self.metric == 'top-1' else 'SQNR of the outputs'}, {self.unit}"

    def better_than(self, other: Score) -> bool:
        """Strictly better; a score is not better than itself. ValueError for another metric."""
        _same_metric(self, other)
        return self.rank > other.rank

    def within_noise(self, other: Score) -> bool:
        """True if the difference to a score on the same samples may be chance: the mean of the
        samples' differences is at most `SIGMAS` of its standard errors away from 0 (for hits this
        is McNemar's test). ValueError for another metric."""
        _same_metric(self, other)
        if len(self.each) != len(other.each) or len(self.each) < 2:
            return True
        if not (np.isfinite(self.each).all() and np.isfinite(other.each).all()):
            return self.rank == other.rank
        difference = self.each - other.each
        error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
        return abs(float(difference.mean())) <= SIGMAS * error


def _same_metric(one: Score, other: Score) -> None:
    if one.metric != other.metric:
        raise ValueError(f"{one.metric} cannot be compared with {other.metric}")


@dataclass(frozen=True)
class _Part:
    """A batch, and what the float model gives for it."""

    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    count: int

    def scores(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The first of `outputs` as (samples, classes); None if it is something else."""
        found = class_scores(outputs[next(iter(self.expected))])
        return found if found is not None and len(found) == self.count else None

    @property
    def nbytes(self) -> int:
        arrays = (*self.inputs.values(), *self.expected.values())
        return sum(array.nbytes for array in arrays)


class Scorer:
    """Scores models of one network on the same samples, in onnxruntime's simulation.

    The samples are read, and the float outputs computed, once. `labels` False measures the distance
    to float even where there are labels. Raises DataError if there is no sample.
    """

    def __init__(
        self,
        original: ModelGraph,
        data: Dataset,
        *,
        batch_size: int,
        limit: int | None = None,
        labels: bool = True,
        emit: Emit = silent,
        cancel: CancelToken | None = None,
    ) -> None:
        self._data = data if limit is None else data.subset(limit)
        self._batch_size = batch_size
        self._names = tensor_outputs(original)
        self._reference = float_session(original)
        self._parts: list[_Part] = []
        accuracy = AccuracyMeter()
        exact = _Meter(self._names)
        room, done, total = KEPT_BYTES, 0, len(self._data)
        self._cancel = cancel or CancelToken()
        for part in self._read(0):
            scores = part.scores(part.expected)
            if labels and scores is not None:
                accuracy.add(scores, part.labels)
            exact.add(part, part.expected)
            room -= part.nbytes
            if room >= 0:
                self._parts.append(part)
            done += part.count
            emit(Progress("Measuring", done, total, "the float model"))
        if not done:
            raise DataError(
                "There is no sample to measure on.", "Choose a folder with images or arrays."
            )
        self.problem = accuracy.problem
        """Why labels could not be used, for people; "" if they could or there are none."""
        self._metric: Metric = "SQNR" if accuracy.result() is None else "top-1"
        self.float_score = exact.score(self._metric)
        """The score of the float model itself."""

    @property
    def metric(self) -> Metric:
        return self._metric

    @property
    def samples(self) -> int:
        """Samples a score is measured on."""
        return self.float_score.samples

    def __call__(
        self, model: QuantizedModel, emit: Emit = silent, cancel: CancelToken | None = None
    ) -> Score:
        """The score of `model`. Raises CancelledError, and ExportError if it is not calibrated."""
        self._cancel = cancel or CancelToken()
        session = simulated_session(model.graph, model.plan, model.encodings)
        meter, done = _Meter(self._names), 0
        for part in self._all():
            self._cancel.check()
            meter.add(part, session.run(part.inputs, self._names))
            done += part.count
            emit(Progress("Measuring", done, self.samples, f"{done} of {self.samples} samples"))
        return meter.score(self._metric)

    def _all(self) -> Iterator[_Part]:
        yield from self._parts
        kept = sum(part.count for part in self._parts)
        if kept < self.samples:
            yield from self._read(kept)

    def _read(self, start: int) -> Iterator[_Part]:
        """What comes from position `start` on."""
        data = self._data
        if start:
            data = data.select(np.arange(start, len(data), dtype=np.int64))
        for batch in data.batches(self._batch_size, cancel=self._cancel):
            expected = self._reference.run(batch.inputs, self._names)
            yield _Part(batch.inputs, expected, batch.labels, len(batch))


class _Meter:
    """Adds up what a `Score` needs, in float64.

    The noise of a sample is the sum over the outputs of their squared error, relative to the mean
    energy of that output.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._signal = dict.fromkeys(names, 0.0)
        self._noise: dict[str, list[Array]] = {name: [] for name in names}
        self._hits: list[Array] = []
        self._same: list[Array] = []

    def add(self, part: _Part, actual: Mapping[str, np.ndarray]) -> None:
        for name in self._names:
            signal, noise = _energies(part.expected[name], actual[name], part.count)
            self._signal[name] += signal
            self._noise[name].append(noise)
        scores, found = part.scores(part.expected), part.scores(actual)
        if scores is None:
            return
        best = np.full(part.count, -1)
        if found is not None and found.shape == scores.shape:
            known = (np.isfinite(found) | ~np.isfinite(scores)).all(axis=1)
            best[known] = found[known].argmax(axis=1)
        self._same.append((best == scores.argmax(axis=1)).astype(np.float64))
        if part.labels is not None and part.labels.shape == (part.count,):
            self._hits.append((best == part.labels).astype(np.float64))

    def score(self, metric: Metric) -> Score:
        noise = self._relative_noise()
        mean = float(noise.mean()) if len(noise) else 0.0
        sqnr = math.inf if mean == 0.0 else -math.inf
        if 0.0 < mean < math.inf:
            sqnr = -10 * math.log10(mean)
        agreement = 100 * float(np.concatenate(self._same).mean()) if self._same else None
        each = np.concatenate(self._hits) if metric == "top-1" else noise
        value = 100 * float(each.mean()) if metric == "top-1" else sqnr
        return Score(metric, value, sqnr, agreement, len(noise), each)

    def _relative_noise(self) -> Array:
        """Noise of each sample, relative to the signal of a mean one; mean over the outputs."""
        parts = []
        for name in self._names:
            noise = np.concatenate(self._noise[name]) if self._noise[name] else np.zeros(0)
            signal = self._signal[name] / max(len(noise), 1)
            if signal > 0.0:
                parts.append(noise / signal)
            else:  # an output of zeros
                parts.append(np.where(noise > 0.0, np.inf, 0.0))
        return np.mean(parts, axis=0)


def _energies(expected: np.ndarray, actual: np.ndarray, count: int) -> tuple[float, Array]:
    """Energy of `expected`, and of the error of each of `count` samples (inf if it is not finite
    where it should be, or of another shape). Values that are not finite in float do not count."""
    if expected.dtype.kind not in "fiu" or not expected.size:
        return 0.0, np.zeros(count)
    by_sample = expected.ndim > 0 and len(expected) == count
    x = expected.astype(np.float64).reshape(count if by_sample else 1, -1)
    counts = np.isfinite(x)
    signal = float(np.square(np.where(counts, x, 0.0)).sum())
    if expected.shape != actual.shape:
        return signal, np.full(count, np.inf)
    y = actual.astype(np.float64).reshape(x.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.where(counts, np.square(x - y), 0.0)
    error = np.where(np.isnan(error), np.inf, error).sum(axis=1)
    return signal, error if by_sample else np.full(count, float(error[0]) / count)
