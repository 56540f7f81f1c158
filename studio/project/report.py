"""The report of a document at any time: of what is known so far, exported or not."""

from __future__ import annotations

from datetime import datetime

from studio import __version__
from studio.exporting.report import ReportContent, report_html
from studio.jobs.events import CancelToken, Emit, Progress, silent
from studio.project.document import Document
from studio.project.steps import FROM_THE_FILE, refresh_encodings
from studio.project.validation import Measured, measure_document, validate_document


def document_report(
    document: Document,
    measured: Measured | None = None,
    *,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> str:
    """The report as one HTML document, see `studio.exporting.report.report_html`.

    What was not done yet (calibration, evaluation, export) is said to be missing. `measured` is
    what `measure_document` found for this model and data (None: found now).
    """
    cancel = cancel or CancelToken()
    emit(Progress("Writing the report", 0, 2, "the cost of the layers"))
    if document.calibration is not None and not document.calibrated:
        document = refresh_encodings(document, emit=emit, cancel=cancel)
    measured = measured or measure_document(document)
    cancel.check()
    emit(Progress("Writing the report", 1, 2, "the page"))
    return report_html(_content(document, measured))


def _content(document: Document, measured: Measured) -> ReportContent:
    calibration, export = document.calibration, document.export
    data = FROM_THE_FILE if document.from_file else ""
    return ReportContent(
        graph=document.graph,
        config=document.config,
        plan=document.plan,
        encodings=document.encodings,
        statistics=calibration.statistics if calibration else {},
        calibration_data=calibration.data if calibration else data,
        calibration_samples=calibration.samples if calibration else 0,
        synthetic=calibration.synthetic if calibration else False,
        evaluation=document.evaluation,
        verification=export.verification if export else None,
        artifacts=export.artifacts if export else (),
        float_bytes=export.float_bytes if export else None,
        quantized_bytes=export.quantized_bytes if export else None,
        created=datetime.now(),
        version=__version__,
        validation=validate_document(document, measured),
        applied=document.applied,
        sensitivity=document.sensitivity,
    )
