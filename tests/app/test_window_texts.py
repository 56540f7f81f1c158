"""Numbers as people read them, and what the workflow says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PySide6.QtGui import QFontMetrics
from quantized_models import quantized_by_onnxruntime

from studio.app import text
from studio.app.inspector import facts
from studio.app.status_bar import TimeLeft
from studio.app.theme import ui_font
from studio.app.workflow import StepState, two_lines, workflow_steps
from studio.jobs import Progress
from studio.project import steps as project_steps


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.0234559, "0.02346"),
        (5.9812, "5.981"),
        (-3.12, "−3.120"),
        (123456.0, "123456"),
        (1.19e-7, "1.190e−07"),
        (math.inf, "∞"),
        (math.nan, "NaN"),
    ],
)
def test_number(value, shown):
    assert text.number(value) == shown


def test_units():
    assert text.size(999) == "999 B"
    assert text.size(5_100_000) == "5.1 MB"
    assert text.count(10_800_000) == "10.8\N{NO-BREAK SPACE}M"
    assert text.duration(7.2) == "7 s"
    assert text.duration(125) == "2 min 5 s"
    assert text.decibels(14.06) == "14.1 dB"
    assert text.decibels(math.inf) == "exact"
    assert text.plural(1, "class", "classes") == "1 class"
    assert text.plural(2, "class", "classes") == "2 classes"


def test_a_share_is_never_rounded_up_to_all():
    assert text.share(0.999999) == "99.99\u00a0%"
    assert text.share(1.0) == "100\u00a0%"


def test_a_step_has_two_lines_at_most(qapp):
    metrics = QFontMetrics(ui_font(12))
    name = text.unbroken("a_very_long_name_of_a_detection_model ·", "290 layers")
    first, second = two_lines(name, metrics, 110)
    assert "…" in first
    assert second == "290\u00a0layers"
    assert two_lines("ONNX", metrics, 110) == ["ONNX"]
    assert two_lines("", metrics, 110) == []


def test_progress():
    assert text.progress(48, 64, "batch 3") == "48 of 64 · batch 3"
    assert (
        text.unbroken("top-1 99.7\u00a0%,", "float 8 %")
        == "top-1\u00a099.7\u00a0%, float\u00a08\u00a0%"
    )
    assert text.progress(1, 3, "writing the models") == "writing the models"
    assert text.progress(5, 9, "80 of 500 samples") == "80 of 500 samples"


def test_time_left():
    left = TimeLeft()
    assert left.estimate(Progress("a", 0, 10), 100.0) is None
    assert left.estimate(Progress("a", 2, 10), 104.0) == pytest.approx(16.0)
    assert left.estimate(Progress("b", 5, 10), 105.0) is None, "another phase starts anew"
    assert left.estimate(Progress("b", 10, 10), 109.0) is None


def test_workflow_without_and_with_a_document(digits, evaluated):
    assert [step.title for step in workflow_steps(None)] == [
        "Model",
        "Data",
        "Configure",
        "Calibrate",
        "Improve",
        "Evaluate",
        "Export",
    ]
    assert [step.state for step in workflow_steps(digits)][3:] == [
        StepState.NEXT,
        StepState.TO_DO,
        StepState.TO_DO,
        StepState.TO_DO,
    ]
    steps = workflow_steps(evaluated)
    assert steps[6].state is StepState.NEXT
    assert "top-1" in steps[5].detail
    assert (steps[4].state, steps[4].detail) == (StepState.TO_DO, "Optional")
    running = workflow_steps(digits, "Calibrating", "16 of 64")
    assert (running[3].state, running[3].detail) == (StepState.CURRENT, "16 of 64")


def test_a_model_that_came_quantized_is_calibrated_from_the_file(tmp_path: Path) -> None:
    document = project_steps.open_document(quantized_by_onnxruntime(tmp_path, "QDQ"))
    calibrate = workflow_steps(document)[3]
    assert (calibrate.state, calibrate.detail) == (StepState.DONE, "From the file")
    layer = next(layer for layer in document.plan.layers if layer.weights)
    blocks = facts.encodings(document, layer)
    assert all("as in the file" in block.reason for block in blocks)
    edited = document.with_config(document.config.with_layers([layer.name], act_bits=6))
    assert workflow_steps(edited)[3].state is not StepState.DONE
