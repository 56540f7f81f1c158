"""`quant-studio report`, and `--pdf` of an export."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_run import CALIBRATION, MODEL, Cli

from studio.project import steps
from studio.project.document import DataSettings
from studio.project.store import save_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    data = DataSettings(path=CALIBRATION, calibration_size=16)
    document = steps.calibrate(steps.open_document(MODEL).with_data(data))
    path = tmp_path / "digits.qstudio"
    save_project(document, path)
    return path


def test_a_project_has_a_report(cli: Cli, project: Path) -> None:
    assert cli("report", project).code == 0
    text = project.with_suffix(".html").read_text("utf-8")
    assert "16 samples" in text
    assert "not exported yet" in text
    assert cli("report", project, "--out", project.with_name("x.html"), "--json").json == {
        "report": str(project.with_name("x.html"))
    }


def test_another_ending_is_refused(cli: Cli, project: Path) -> None:
    message = cli.fails(6, "report", project, "--out", "report.docx")
    assert "report.docx" in message
    assert ".pdf" in message


def test_a_pdf_that_cannot_be_made_is_said_before_the_work(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PySide6.QtWebEngineCore", None)
    words = ("quantize", MODEL, "--data", CALIBRATION, "--out", tmp_path / "out", "--pdf")
    message = cli.fails(7, *words)
    assert "Qt WebEngine" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.webengine
def test_an_export_writes_its_report_as_pdf(tmp_path: Path) -> None:
    pytest.importorskip("PySide6.QtWebEngineCore")
    words = ["quantize", str(MODEL), "--data", str(CALIBRATION), "--out", str(tmp_path), "--pdf"]
    small = ["--calibration-size", "16", "--no-evaluate"]
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    environment.pop("QTWEBENGINE_DISABLE_SANDBOX", None)
    child = subprocess.run(
        [sys.executable, "-m", "studio", *words, *small],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr
    assert f"report as PDF: {tmp_path / 'report.pdf'}" in child.stdout
    pdf = (tmp_path / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") >= 4
    assert not list(tmp_path.glob(".*"))
