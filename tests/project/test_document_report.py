"""The report of a document at every stage: what is known is told, the rest said to be missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from studio.jobs import CancelToken, silent
from studio.project import steps
from studio.project.document import Document
from studio.project.example import open_digits
from studio.project.report import document_report
from studio.project.store import load_project, save_project
from studio.project.techniques import apply_technique, parse_options


@pytest.fixture(scope="module")
def opened() -> Document:
    return open_digits(silent, CancelToken())


@pytest.fixture(scope="module")
def improved(opened: Document) -> Document:
    """Weights of 4 bits, one scale a tensor, biases corrected."""
    config = opened.config.with_defaults(weight_bits=4, weight_per_channel=False)
    calibrated = steps.calibrate(opened.with_config(config))
    return apply_technique(calibrated, "bias_correction", parse_options("bias_correction", {}))


def words(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", html)


def test_a_model_just_opened_has_a_report(opened: Document) -> None:
    text = words(document_report(opened))
    for missing in ("not calibrated", "Accuracy was not evaluated", "Nothing is exported yet."):
        assert missing in text
    assert "Nothing was applied" in text
    assert "planned" in text, "what is planned for the constants is known before"


def test_what_was_applied_is_told_and_kept_by_a_project(improved: Document, tmp_path: Path) -> None:
    (applied,) = improved.applied
    assert applied.title == "Bias correction"
    assert applied.changed == ()
    assert applied.seconds is not None
    assert 0 < applied.seconds < 600
    summary = f"{applied.summary[0].upper()}{applied.summary[1:]}".split("<")[0]
    assert summary in words(document_report(improved))
    save_project(improved, tmp_path / "p.qstudio")
    again = load_project(tmp_path / "p.qstudio")
    assert again.applied == improved.applied
    assert summary in words(document_report(again))


def test_options_that_were_changed_are_named(improved: Document) -> None:
    options = parse_options("bias_correction", {"samples": 32})
    changed = apply_technique(improved, "bias_correction", options).applied[-1]
    assert changed.changed == ("samples",)
    assert changed.options_text == "samples 32"


def test_an_export_reports_the_same_and_its_files(improved: Document, tmp_path: Path) -> None:
    exported = steps.export(improved, tmp_path / "out")
    written = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Bias correction" in written
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert [told["technique"] for told in summary["techniques"]] == ["bias_correction"]
    later = words(document_report(exported))
    assert "verification passed" in later
    assert "model_float.onnx" in later
    assert "Nothing is exported yet." not in later
