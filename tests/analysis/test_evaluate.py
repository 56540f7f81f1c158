"""The figures of an evaluation, against closed forms and plain onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import small_models
from onnx import helper

from studio.analysis.evaluate import AccuracyMeter, AgreementMeter, class_scores
from studio.analysis.quality import Accuracy, Distance, DistanceMeter
from studio.jobs.events import Event, Warned
from studio.project import steps
from studio.project.document import DataSettings, Document


def test_distance_of_known_noise() -> None:
    meter = DistanceMeter()
    x = np.array([3.0, 4.0], np.float32)
    meter.add(x, x + np.array([0.3, -0.4], np.float32))
    distance = meter.result()
    assert distance.sqnr_db == pytest.approx(20, abs=1e-4)
    y = np.array([3.3, 3.6])
    assert distance.cosine == pytest.approx(x @ y / (5 * np.linalg.norm(y)), abs=1e-6)


def test_distance_does_not_depend_on_the_batches() -> None:
    x, y = small_models.numbers(1, 40, 7), small_models.numbers(2, 40, 7)
    whole, parts = DistanceMeter(), DistanceMeter()
    whole.add(x, y)
    for start in range(0, 40, 9):
        parts.add(x[start : start + 9], y[start : start + 9])
    assert parts.result().sqnr_db == pytest.approx(whole.result().sqnr_db, rel=1e-5)
    assert parts.result().cosine == pytest.approx(whole.result().cosine, rel=1e-4)


@pytest.mark.parametrize(
    ("x", "y", "sqnr", "cosine"),
    [
        ([1.0, 2.0], [1.0, 2.0], math.inf, 1.0),
        ([0.0, 0.0], [0.0, 0.0], math.inf, 1.0),
        ([0.0, 0.0], [1.0, 0.0], -math.inf, 0.0),
        ([1.0, 0.0], [0.0, 0.0], 0.0, 0.0),
        ([1.0, 0.0], [-1.0, 0.0], 10 * math.log10(1 / 4), -1.0),
    ],
)
def test_distance_at_the_edges(x: list[float], y: list[float], sqnr: float, cosine: float) -> None:
    meter = DistanceMeter()
    meter.add(np.array(x, np.float32), np.array(y, np.float32))
    assert meter.result().sqnr_db == pytest.approx(sqnr)
    assert meter.result().cosine == pytest.approx(cosine)


def test_another_shape_is_no_match() -> None:
    """The number of boxes a detector finds may change with its quantization."""
    meter = DistanceMeter()
    meter.add(np.ones((3, 4)), np.ones((2, 4)))
    meter.add(np.ones((3, 4)), np.ones((3, 4)))
    assert meter.result() == Distance(-math.inf, 0.0)


def test_distance_of_integer_outputs() -> None:
    meter = DistanceMeter()
    meter.add(np.array([[3, 4]]), np.array([[3, 4]]))
    assert meter.result().sqnr_db == math.inf


def test_top1_and_top5() -> None:
    scores = np.tile(np.arange(10, 0, -1, dtype=np.float32), (4, 1))
    meter = AccuracyMeter()
    meter.add(scores, np.array([0, 4, 5, 0]))
    assert meter.result() == Accuracy(50, 75)


def test_accuracy_with_fewer_than_five_classes() -> None:
    meter = AccuracyMeter()
    meter.add(np.array([[0.1, 0.9], [0.8, 0.2]], np.float32), np.array([0, 0]))
    assert meter.result() == Accuracy(50, 100)


def test_one_impossible_label_makes_all_accuracy_void() -> None:
    meter = AccuracyMeter()
    scores = np.eye(3, dtype=np.float32)
    meter.add(scores, np.array([0, 1, 2]))
    assert meter.result() == Accuracy(100, 100)
    meter.add(scores, np.array([0, 1, 3]))
    meter.add(scores, np.array([0, 1, 2]))
    assert meter.result() is None
    assert "label 3" in meter.problem
    negative = AccuracyMeter()
    negative.add(scores, np.array([0, -1, 0]))
    assert negative.result() is None


def test_agreement() -> None:
    meter = AgreementMeter()
    assert meter.result() is None
    meter.add(np.eye(4), np.eye(4)[[0, 1, 3, 2]])
    assert meter.result() == 50


@pytest.mark.parametrize(
    ("shape", "classes"),
    [
        ((2, 10), 10),
        ((2, 10, 1, 1), 10),
        ((2, 1), None),
        ((2,), None),
        ((), None),
        ((2, 3, 4, 4), None),
    ],
)
def test_what_counts_as_class_scores(shape: tuple[int, ...], classes: int | None) -> None:
    scores = class_scores(np.zeros(shape))
    assert (scores is None) == (classes is None)
    assert scores is None or scores.shape == (2, classes)


def evaluated(
    model: Path, arrays: dict[str, np.ndarray], batch_size: int = 16
) -> tuple[Document, list[str]]:
    path = model.with_suffix(".npz")
    np.savez(path, **arrays)
    data = DataSettings(path=path, batch_size=batch_size)
    document = steps.calibrate(steps.open_document(model).with_data(data))
    warnings: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.message)

    return steps.evaluate(document, emit=note), warnings


IMAGES = small_models.numbers(20, 23, 3, 6, 6)


def test_float_accuracy_is_onnxruntimes(tmp_path: Path) -> None:
    model = small_models.conv_net(tmp_path / "net.onnx")
    labels = np.arange(23) % 5
    (scores,) = ort.InferenceSession(str(model)).run(None, {"x": IMAGES})
    document, warnings = evaluated(model, {"x": IMAGES, "labels": labels}, batch_size=5)
    evaluation = document.evaluation
    assert warnings == []
    assert evaluation.samples == 23
    assert evaluation.float_accuracy.top1 == pytest.approx(
        100 * (scores.argmax(1) == labels).mean()
    )
    assert evaluation.float_accuracy.top5 == 100
    assert evaluation.agreement > 90
    assert evaluation.output.sqnr_db > 25
    assert {layer.layer for layer in evaluation.layers} == {"conv1", "conv2", "flatten", "fc"}
    last = next(layer for layer in evaluation.layers if layer.layer == "fc")
    assert last.distance.sqnr_db == pytest.approx(evaluation.output.sqnr_db, abs=0.01)


def test_labels_beyond_the_classes_warn_once_and_measure_no_accuracy(tmp_path: Path) -> None:
    model = small_models.conv_net(tmp_path / "net.onnx")
    labels = np.arange(23) % 9
    document, warnings = evaluated(model, {"x": IMAGES, "labels": labels}, batch_size=4)
    assert document.evaluation.accuracy is None
    assert document.evaluation.float_accuracy is None
    assert document.evaluation.agreement is not None
    (warning,) = warnings
    assert "no accuracy is measured" in warning
    assert "5 classes" in warning


@pytest.mark.parametrize(
    ("make", "arrays"),
    [
        (small_models.pixel_map, {"x": IMAGES}),
        (small_models.pixel_map, {"x": IMAGES, "labels": np.zeros(23, np.int64)}),
        (small_models.conv_net, {"x": IMAGES}),
    ],
)
def test_no_accuracy_without_classes_or_labels(
    tmp_path: Path, make: Callable[[Path], Path], arrays: dict[str, np.ndarray]
) -> None:
    document, _ = evaluated(make(tmp_path / "net.onnx"), arrays)
    assert document.evaluation.accuracy is None
    assert document.evaluation.output.sqnr_db > 20


def test_figures_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    model = small_models.conv_net(tmp_path / "net.onnx")
    one, _ = evaluated(model, {"x": IMAGES}, batch_size=23)
    many, _ = evaluated(model, {"x": IMAGES}, batch_size=4)
    assert many.evaluation.output.sqnr_db == pytest.approx(one.evaluation.output.sqnr_db, rel=1e-3)


def test_a_model_left_in_float_is_exact(tmp_path: Path) -> None:
    model = small_models.conv_net(tmp_path / "net.onnx")
    document = steps.open_document(model)
    config = document.config.with_defaults(weight_enabled=False, act_enabled=False)
    path = small_models.images(tmp_path / "images.npz")
    document = document.with_config(config).with_data(DataSettings(path=path))
    evaluation = steps.evaluate(steps.calibrate(document)).evaluation
    assert evaluation.output.sqnr_db == math.inf
    assert evaluation.agreement == 100


def test_every_output_is_measured(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        helper.make_node("ArgMax", ["y"], ["best"], "best", axis=1, keepdims=0),
    ]
    model = small_models.build(
        tmp_path / "two.onnx",
        nodes,
        {"x": (small_models.FLOAT, ["N", 6])},
        {"y": (small_models.FLOAT, ["N", 4]), "best": (small_models.INT64, ["N"])},
        {"w": small_models.numbers(3, 6, 4)},
    )
    evaluation = evaluated(model, {"x": small_models.numbers(4, 20, 6)})[0].evaluation
    assert [row.output for row in evaluation.outputs] == ["y", "best"]
    assert evaluation.outputs[0].distance == evaluation.output
    assert evaluation.outputs[0].agreement == evaluation.agreement
    assert evaluation.outputs[1].agreement is None
    assert evaluation.outputs[1].distance.cosine > 0.9
