"""The Improve panel: the form of a technique, applying it, what was applied, and checkpoints."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field
from PySide6.QtWidgets import QComboBox, QLineEdit, QSpinBox
from window_helpers import FAST_TRAINING, idle, press

from studio.app.improve import run
from studio.app.improve.form import OptionsForm
from studio.app.workflow import StepState
from studio.jobs.events import CancelToken, TrainingStep
from studio.techniques.technique import Options, Outcome, Row

# -- the form ----------------------------------------------------------------------------------


class Taste(StrEnum):
    SWEET = "sweet"
    VERY_SOUR = "very_sour"


class AllKinds(Options):
    common = ("count", "taste")

    count: int = Field(3, ge=1, lt=10, description="How many.")
    taste: Taste = Field(Taste.VERY_SOUR, description="How it tastes.")
    side: Literal["left", "right"] = "right"
    share: float = Field(0.5, ge=0, le=1)
    rate: float | None = Field(None, gt=0)
    steps: tuple[int, ...] = (8, 4)
    on: bool = True
    folder: Path | None = None
    name: str = "auto"


def test_every_kind_of_option_has_its_field(qtbot):
    form = OptionsForm(AllKinds)
    qtbot.addWidget(form)
    form.show()
    assert form.options() == AllKinds()
    fields = form.fields
    assert isinstance(fields["count"].input, QSpinBox)
    assert (fields["count"].input.minimum(), fields["count"].input.maximum()) == (1, 9)
    assert isinstance(fields["taste"].input, QComboBox)
    assert fields["taste"].input.currentText() == "very sour"
    assert isinstance(fields["rate"].input, QLineEdit)
    assert fields["rate"].input.placeholderText() == "automatic"
    assert fields["steps"].input.text() == "8, 4"
    assert fields["count"].about.text() == "How many."
    assert fields["count"].input.toolTip() == "How many."
    assert fields["count"].input.isVisible()
    assert not fields["share"].input.isVisible(), "rare options are folded away"
    assert form.more.text() == "More options (7)"
    press(qtbot, form.more)
    assert fields["share"].input.isVisible()
    fields["count"].input.setValue(7)
    fields["taste"].input.setCurrentText("sweet")
    fields["side"].input.setCurrentText("left")
    fields["rate"].input.setText("1e-3")
    fields["steps"].input.setText("6 5")
    fields["on"].input.setChecked(False)
    fields["folder"].input.setText("/somewhere")
    assert form.options() == AllKinds(
        count=7,
        taste=Taste.SWEET,
        side="left",
        rate=0.001,
        steps=(6, 5),
        on=False,
        folder=Path("/somewhere"),
    )


def test_no_digit_of_an_option_is_lost(qtbot):
    form = OptionsForm(AllKinds)
    qtbot.addWidget(form)
    values = AllKinds(share=0.123456789012345, rate=3e-7)
    form.show_values(values.model_dump(mode="json"))
    assert form.options() == values


def test_a_bad_value_is_named_at_its_field(improve_panel, qtbot):
    form = improve_panel.form
    assert improve_panel.apply.isEnabled()
    form.fields["learning_rate"].input.setText("-1")
    assert form.fields["learning_rate"].problem.isVisible()
    assert form.fields["learning_rate"].problem.text() == "Should be greater than 0."
    assert not form.fields["epochs"].problem.isVisible()
    assert not improve_panel.apply.isEnabled()
    assert "red" in improve_panel.reason.text()
    form.fields["learning_rate"].input.setText("fast")
    assert "valid number" in form.fields["learning_rate"].problem.text()
    form.fields["learning_rate"].input.setText("")
    assert improve_panel.apply.isEnabled()
    form.fields["bits_first"].input.setText("4, 6")
    assert form.fields["bits_first"].problem.text() == "Bits_first must fall."
    form.fields["bits_first"].input.setText("")
    assert not form.more.isChecked()
    form.fields["momentum"].input.setText("2")
    assert form.fields["momentum"].problem.isVisible(), "a folded field opens to say it"
    form.show_values({})


def test_what_is_missing_is_said(window, digits, qtbot):
    window.session.show(digits)
    window.actions_table["improve"].trigger()
    panel = window.workspace.improve
    assert panel.reason.text() == "Calibrate first."
    assert not panel.apply.isEnabled()
    titles = [panel.list.item(row).text() for row in range(panel.list.count())]
    assert "Quantization-aware training" in titles


# -- applying ----------------------------------------------------------------------------------


def test_applied_listed_and_undone(improve_panel, window, coarse, qtbot):
    session = window.session
    weight = next(layer.weights[0] for layer in coarse.plan.layers if layer.weights)
    assert improve_panel.applied.empty.isVisible()
    press(qtbot, improve_panel.apply)
    button = window.workspace.workflow.buttons[4]
    assert button.step.state is StepState.CURRENT
    assert not improve_panel.apply.isEnabled()
    qtbot.waitUntil(idle(window), timeout=60000)
    window.actions_table["improve"].trigger()
    assert improve_panel.applied.list.count() == 1
    assert improve_panel.applied.list.item(0).text() == "1  Quantization-aware training"
    assert improve_panel.applied.summary.text().startswith("Top-1 ")
    assert "epochs 3" in improve_panel.applied.options.text()
    assert improve_panel.applied.curves.isVisible()
    assert (button.step.state, button.step.detail) == (StepState.DONE, "1 technique applied")
    assert (session.document.graph.constant(weight) != coarse.graph.constant(weight)).any()
    assert session.undo_stack.undoText() == "Improve by quantization-aware training"
    assert window.status.title.text().startswith("Improved by quantization-aware training")
    window.actions_table["undo"].trigger()
    assert session.document.graph is coarse.graph
    assert improve_panel.applied.list.count() == 0
    assert improve_panel.applied.empty.isVisible()
    window.actions_table["redo"].trigger()
    assert improve_panel.applied.list.count() == 1
    press(qtbot, improve_panel.applied.curves)
    assert window.workspace.training.loss.points > 10


def test_the_report_of_layers(improve_panel, window, coarse, qtbot, monkeypatch):
    """What a technique says of layers is a table; a row chooses its layer."""
    rows = (Row("down.conv", "scaled", 10.5, 21.25), Row("stem.conv", "left alone"))
    first = improve_panel.technique
    known = {first.name: first}

    def apply(model, samples, options, emit, cancel):
        return Outcome(model, "2 layers looked at", "SQNR in dB", rows)

    from dataclasses import replace

    from studio.project import techniques

    known[first.name] = replace(first, load=lambda: apply)
    monkeypatch.setattr(techniques, "TECHNIQUES", known)
    press(qtbot, improve_panel.apply)
    qtbot.waitUntil(idle(window), timeout=30000)
    applied = improve_panel.applied
    assert applied.summary.text() == "2 layers looked at."
    assert not applied.curves.isVisible()
    model = applied.table.model
    assert applied.measure.text() == "Before and after: SQNR in dB."
    assert model.rows[0].cells == ("down.conv", "scaled", "10.50", "21.25")
    assert model.rows[1].cells == ("stem.conv", "left alone", "", "")
    applied.table.table.selectRow(0)
    assert window.session.current == "down.conv"


# -- checkpoints -------------------------------------------------------------------------------


def cut_off(document, options, at):
    """Train and cancel after step `at`, the checkpoint of the last epoch left behind."""
    from studio.errors import CancelledError
    from studio.project.techniques import apply_technique, parse_options

    token = CancelToken()

    def emit(event):
        if isinstance(event, TrainingStep) and event.step == at:
            token.cancel()

    with pytest.raises(CancelledError):
        apply_technique(document, "qat", parse_options("qat", options), emit=emit, cancel=token)


@pytest.fixture
def project(coarse, tmp_path):
    """The coarse model as a saved project whose training was cut off in its third epoch."""
    from studio.project.store import load_project, save_project

    save_project(coarse, tmp_path / "mine.qstudio")
    document = load_project(tmp_path / "mine.qstudio")
    folder = run.checkpoint_folder(document)
    assert folder == tmp_path / "mine.training"
    cut_off(document, {**FAST_TRAINING, "seed": 5, "checkpoints": str(folder)}, 20)
    return document


def test_a_cut_off_training_is_offered_and_goes_on(window, project, qtbot):
    window.session.show(project)
    panel = window.workspace.improve
    qtbot.waitUntil(lambda: panel.banner.isVisible(), timeout=10000)
    assert window.workspace.center.current == "improve", "it comes to the front by itself"
    assert "step 18 of 27" in panel.offer_text.text()
    assert panel.apply.text() == "Start anew"
    steps = []
    window.session.events.connect(
        lambda events: steps.extend(e.step for e in events if isinstance(e, TrainingStep))
    )
    press(qtbot, panel.proceed)
    qtbot.waitUntil(idle(window), timeout=60000)
    assert steps[0] == 19
    assert steps[-1] == 27
    options = window.session.document.applied[-1].options
    assert (options["seed"], options["epochs"]) == (5, 3), "with the options it was started with"
    assert options["checkpoints"] is None, "the folder of this machine is in no recipe"
    assert not (project.path.parent / "mine.training").exists()
    qtbot.waitUntil(lambda: panel.apply.text() == "Apply")
    assert not panel.banner.isVisibleTo(panel)


def test_start_anew(window, project, qtbot):
    window.session.show(project)
    panel = window.workspace.improve
    qtbot.waitUntil(lambda: panel.banner.isVisible(), timeout=10000)
    panel.form.show_values({**FAST_TRAINING, "seed": 5})
    steps = []
    window.session.events.connect(
        lambda events: steps.extend(e.step for e in events if isinstance(e, TrainingStep))
    )
    press(qtbot, panel.apply)
    qtbot.waitUntil(lambda: len(steps) > 0, timeout=60000)
    assert steps[0] == 1, "the very same options do not go on from the checkpoint"
    window.session.cancel()
    qtbot.waitUntil(idle(window), timeout=30000)
    assert window.session.document.applied == ()


def test_a_broken_checkpoint_is_said(window, project, qtbot):
    (project.path.parent / "mine.training" / "state.json").write_text("{")
    window.session.show(project)
    panel = window.workspace.improve
    window.actions_table["improve"].trigger()
    qtbot.waitUntil(lambda: panel.banner.isVisible(), timeout=10000)
    assert "cannot be read" in panel.offer_text.text()
    assert not panel.proceed.isVisible()
    assert panel.apply.text() == "Start anew"


def test_names_in_a_sentence():
    assert run.in_a_sentence("Quantization-aware training") == "quantization-aware training"
    assert run.in_a_sentence("AdaRound") == "AdaRound"
