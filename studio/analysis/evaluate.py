"""Evaluation: the simulated model against the float model on the same samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from studio.analysis.quality import (
    Accuracy,
    DistanceMeter,
    Evaluation,
    LayerQuality,
    OutputQuality,
)
from studio.data.dataset import Batch, Dataset
from studio.errors import DataError, ModelError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Progress, Warned
from studio.quant.encoding import Encoding
from studio.runtime.budget import BudgetedReader
from studio.runtime.session import Optimizations, Session, float_session
from studio.sim.plan import Plan
from studio.sim.qdq import Constants, dequantized_name, insert_qdq

LAYER_SAMPLES = 64
"""Samples the per-layer distances are measured on."""


class AccuracyMeter:
    """Counts top-1 and top-5 hits of class scores (samples, classes)."""

    def __init__(self) -> None:
        self._top1 = self._top5 = self._samples = 0
        self.problem = ""

    def add(self, scores: np.ndarray, labels: np.ndarray | None) -> None:
        """Labels that are none of the classes make all accuracy void; `problem` then says so."""
        if labels is None or self.problem:
            return
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            self.problem = (
                f"The labels are {labels.dtype} of shape {labels.shape[1:]}, not one class index a "
                "sample: no accuracy is measured."
            )
            return
        classes = scores.shape[1]
        wrong = labels[(labels < 0) | (labels >= classes)]
        if wrong.size:
            self.problem = (
                f"The data have the label {wrong[0]}, the model has the {classes} classes 0 to "
                f"{classes - 1}: no accuracy is measured."
            )
            return
        best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        hits = best == labels[:, None]
        self._top1 += int(hits[:, 0].sum())
        self._top5 += int(hits.any(axis=1).sum())
        self._samples += len(labels)

    def result(self) -> Accuracy | None:
        """Percentages; None if nothing was added or a label is none of the classes."""
        if not self._samples or self.problem:
            return None
        return Accuracy(100 * self._top1 / self._samples, 100 * self._top5 / self._samples)


class AgreementMeter:
    """Counts samples for which two sets of class scores have the same best class."""

    def __init__(self) -> None:
        self._same = self._samples = 0

    def add(self, scores: np.ndarray, other: np.ndarray) -> None:
        self._same += int((scores.argmax(axis=1) == other.argmax(axis=1)).sum())
        self._samples += len(scores)

    def result(self) -> float | None:
        """Percent; None if nothing was added."""
        return 100 * self._same / self._samples if self._samples else None


def class_scores(output: np.ndarray) -> np.ndarray | None:
    """`output` as (samples, classes), or None if it is no vector of class scores."""
    if output.ndim < 2 or output.shape[1] < 2 or any(size != 1 for size in output.shape[2:]):
        return None
    return output.reshape(output.shape[:2])


class OutputMeter:
    """One output of a network against a reference: distance, agreement, and accuracy where there
    are labels."""

    def __init__(self) -> None:
        self.distance = DistanceMeter()
        self.agreement = AgreementMeter()
        self.accuracy = AccuracyMeter()

    def add(
        self, reference: np.ndarray, output: np.ndarray, labels: np.ndarray | None = None
    ) -> None:
        self.distance.add(reference, output)
        expected, scores = class_scores(reference), class_scores(output)
        if expected is not None and scores is not None and expected.shape == scores.shape:
            self.agreement.add(expected, scores)
            self.accuracy.add(scores, labels)


def tensor_outputs(graph: ModelGraph) -> list[str]:
    """Names of the outputs that can be measured: all but sequences of tensors. Raises ModelError if
    there is none."""
    others = (ir.SequenceType, ir.OptionalType)
    names = [value.name or "" for value in graph.outputs if not isinstance(value.type, others)]
    if not names:
        raise ModelError(
            "All outputs of the model are sequences of tensors, which cannot be compared.",
            "Export the model so that it gives tensors.",
        )
    return names


def first_output(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The output that is measured."""
    return next(iter(outputs.values()))


def simulated_session(graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding]) -> Session:
    """The simulation in onnxruntime."""
    model = insert_qdq(graph, plan, encodings, constants=Constants.FLOAT)
    return Session(model, optimizations=Optimizations.FLOAT)


def simulated_name(graph: ModelGraph, plan: Plan, tensor: str) -> str:
    """Name in the quantized graph of what readers of `tensor` get who read it rounded."""
    row = plan.tensors[tensor]
    if row.spec is None:
        return tensor
    value = graph.value(tensor)
    leaves = value.is_graph_output() and value.producer() is not None
    return dequantized_name(tensor, leaves and row.read_by is None)


def evaluate(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    data: Dataset,
    *,
    original: ModelGraph,
    limit: int | None,
    batch_size: int,
    emit: Emit,
    cancel: CancelToken,
) -> Evaluation:
    """Accuracy where there are labels; distances of outputs and layers always.

    Outputs are compared with those of `original`, the float model that `graph` was before any
    technique changed its weights; layers with those of `graph` in float, on `LAYER_SAMPLES` of the
    samples. Raises DataError if the data hold no sample.
    """
    total = min(len(data), limit or len(data))
    layer_total = min(total, LAYER_SAMPLES)
    steps = total + layer_total
    float_meter = OutputMeter()
    meters = {name: OutputMeter() for name in tensor_outputs(graph)}
    first, *others = meters
    meter = meters[first]
    model = insert_qdq(graph, plan, encodings, constants=Constants.FLOAT)
    reference = float_session(original)
    simulated = Session(model, optimizations=Optimizations.FLOAT)
    done = 0
    for batch in data.subset(total).batches(batch_size, cancel=cancel):
        expected, actual = reference.run(batch.inputs), simulated.run(batch.inputs)
        float_meter.add(expected[first], expected[first], batch.labels)
        meter.add(expected[first], actual[first], batch.labels)
        for name in others:
            meters[name].add(expected[name], actual[name])
        done += len(batch.indices)
        emit(Progress("Evaluating", done, steps, f"{done} of {total} samples"))
    if not done:
        raise DataError(
            "There is no sample to evaluate on.", "Choose a folder with images or arrays."
        )
    if meter.accuracy.problem:
        emit(Warned(meter.accuracy.problem))
    del reference, simulated
    batches = data.subset(layer_total).batches(batch_size, cancel=cancel)
    layers = _layer_distances(graph, plan, model, batches, done, steps, emit, cancel)
    return Evaluation(
        data=data.name,
        samples=done,
        synthetic=data.synthetic,
        float_accuracy=float_meter.accuracy.result(),
        accuracy=meter.accuracy.result(),
        agreement=meter.agreement.result(),
        output=meter.distance.result(),
        layers=layers,
        outputs=tuple(
            OutputQuality(name, each.distance.result(), each.agreement.result())
            for name, each in meters.items()
        ),
    )


def _layer_distances(
    graph: ModelGraph,
    plan: Plan,
    model: ir.Model,
    batches: Iterator[Batch],
    done: int,
    steps: int,
    emit: Emit,
    cancel: CancelToken,
) -> tuple[LayerQuality, ...]:
    inner = {value.name for value in graph.inputs}
    layers = [
        layer
        for layer in plan.layers
        if layer.output not in inner and plan.tensors[layer.output].spec is not None
    ]
    names = {layer.output: simulated_name(graph, plan, layer.output) for layer in layers}
    meters = {layer.output: DistanceMeter() for layer in layers}
    reference = float_session(graph, list(names))
    simulated = Session(
        model, optimizations=Optimizations.FLOAT, outputs=list(dict.fromkeys(names.values()))
    )
    reader = BudgetedReader(reference, list(names))
    for batch in batches:
        for part, expected in reader.read(batch.inputs):
            cancel.check()
            actual = simulated.run(part, [names[name] for name in expected])
            for name, array in expected.items():
                meters[name].add(array, actual[names[name]])
        done += len(batch.indices)
        emit(Progress("Evaluating", done, steps, "layer by layer"))
    return tuple(
        LayerQuality(layer.name, layer.output, meters[layer.output].result()) for layer in layers
    )
