"""How far the outputs of a network are from those of the float network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from studio.analysis.evaluate import AccuracyMeter, AgreementMeter, class_scores
from studio.analysis.sensitivity_figures import Deviation


class DeviationMeter:
    """Adds up what a `Deviation` needs over batches."""

    def __init__(self) -> None:
        self._signal: list[float] = []
        self._noise: list[float] = []
        self._elements = 0
        self._kl = 0.0
        self._samples = 0
        self._agreement = AgreementMeter()
        self._accuracy = AccuracyMeter()

    @property
    def problem(self) -> str:
        """Why the labels could not be used, for people; "" if they could."""
        return self._accuracy.problem

    def add(
        self,
        reference: Sequence[npt.NDArray],
        outputs: Sequence[npt.NDArray],
        labels: npt.NDArray | None = None,
    ) -> None:
        """The outputs of a batch in order, and what they should be."""
        if not self._signal:
            self._signal = [0.0] * len(reference)
            self._noise = [0.0] * len(reference)
        for place, (expected, actual) in enumerate(zip(reference, outputs, strict=True)):
            signal, noise = _energies(expected, actual)
            self._signal[place] += signal
            self._noise[place] += noise
            self._elements += expected.size
        scores, found = class_scores(reference[0]), class_scores(outputs[0])
        if scores is not None and found is not None and scores.shape == found.shape:
            self._agreement.add(scores, found)
            self._accuracy.add(found, labels)
            self._kl += divergence(scores, found)
            self._samples += len(scores)

    def result(self) -> Deviation:
        parts = [
            noise / signal if signal > 0.0 else (math.inf if noise > 0.0 else 0.0)
            for signal, noise in zip(self._signal, self._noise, strict=True)
        ]
        accuracy = self._accuracy.result()
        return Deviation(
            noise=sum(parts) / max(len(parts), 1),
            mse=sum(self._noise) / max(self._elements, 1),
            kl=self._kl / self._samples if self._samples else None,
            agreement=self._agreement.result(),
            top1=None if accuracy is None else accuracy.top1,
        )


def _energies(expected: npt.NDArray, actual: npt.NDArray) -> tuple[float, float]:
    """Energy of `expected`, and of the error. Values that are not finite in float do not count."""
    if expected.dtype.kind not in "fiu" or not expected.size:
        return 0.0, 0.0
    x = np.ascontiguousarray(expected, dtype=np.float32).ravel()
    known = np.isfinite(x)
    if not known.all():
        x = np.where(known, x, np.float32(0))
    signal = float(np.dot(x, x))
    if expected.shape != actual.shape:
        return signal, math.inf
    y = np.ascontiguousarray(actual, dtype=np.float32).ravel()
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.where(known, x - y, np.float32(0))
        noise = float(np.dot(error, error))
    return signal, noise if math.isfinite(noise) else math.inf


def divergence(scores: npt.NDArray, others: npt.NDArray) -> float:
    """Sum over the samples of KL(p || q) in nats: p the class probabilities of `scores` (samples,
    classes), q those of `others`. Scores that are probabilities already are taken as they are."""
    p, q = _log_probabilities(scores, others)
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
    return float(terms.sum())


def _log_probabilities(*scores: npt.NDArray) -> list[npt.NDArray]:
    first = scores[0]
    given = bool((first >= 0).all()) and np.allclose(first.sum(axis=1), 1.0, atol=1e-3)
    results = []
    for each in scores:
        x = each.astype(np.float64)
        if given:
            with np.errstate(divide="ignore"):
                x = np.log(np.maximum(x, np.where(each is first, 0.0, 1e-12)))
        shifted = x - x.max(axis=1, keepdims=True)
        results.append(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
    return results
