"""Export from the window: the files, the summary, what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtWidgets import QLabel, QMessageBox
from window_helpers import visible

from studio.app.dialogs.export_summary import ExportSummaryDialog, quality_rows, verification_rows
from studio.app.text import percent, share


def texts(dialog) -> str:
    return "\n".join(item.text() for item in dialog.findChildren(QLabel))


def test_export_ends_in_a_summary(window, evaluated, qtbot, tmp_path):
    window.session.show(evaluated)
    folder = tmp_path / "out"
    window.session.export(folder)
    qtbot.waitUntil(lambda: visible(ExportSummaryDialog) is not None, timeout=60000)
    dialog = visible(ExportSummaryDialog)
    summary = window.session.document.export
    said = texts(dialog)
    for artifact in summary.artifacts:
        assert (folder / artifact.name).stat().st_size == artifact.bytes
        assert artifact.name in said
    assert dialog.verdict.text().startswith("Verified")
    assert dialog.verdict.property("role") == "good"
    assert "Optimisations off" in said
    assert percent(evaluated.evaluation.accuracy.top1) in said
    assert float(dialog.ratio.text().rstrip("×")) == pytest.approx(
        summary.float_bytes / summary.quantized_bytes, abs=0.06
    )
    opened = []
    dialog._open_url = lambda url: opened.append(url.toLocalFile())
    dialog.open_folder.click()
    dialog.open_report.click()
    assert opened == [str(folder), str(folder / "report.html")]
    dialog.close()
    assert window.workspace.workflow.buttons[-1].step.detail == "to out"
    assert window.session.modified


def test_a_difference_is_not_called_verified(window, evaluated, qtbot, tmp_path):
    from studio.project import steps

    summary = steps.export(evaluated, tmp_path / "out").export
    check = replace(summary.verification.layers[0], largest=5, identical=0.9)
    broken = replace(summary, verification=replace(summary.verification, layers=(check,)))
    dialog = ExportSummaryDialog(broken, None)
    qtbot.addWidget(dialog)
    assert dialog.verdict.property("role") == "bad"
    assert "5 steps" in texts(dialog)
    assert "Do not use these files" in dialog.verdict.text()
    assert "RANDOM DATA" not in texts(dialog)
    random = ExportSummaryDialog(replace(summary, warnings=("Narrow.",)), None, synthetic=True)
    qtbot.addWidget(random)
    assert "RANDOM DATA" in texts(random)
    assert "Narrow." in texts(random)
    assert "not measured" in dict(quality_rows(None))["Accuracy"]
    assert dict(verification_rows(broken.verification))["Identical integers"].startswith(share(0.9))


def test_failed_export_leaves_nothing_behind(window, evaluated, qtbot, tmp_path):
    window.session.show(evaluated)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    window.session.export(blocked / "out")
    qtbot.waitUntil(lambda: visible(QMessageBox) is not None, timeout=60000)
    box = visible(QMessageBox)
    assert "file" in box.text()
    box.close()
    assert window.session.document is evaluated
    assert list(tmp_path.iterdir()) == [blocked] or blocked.read_text() == "in the way"
