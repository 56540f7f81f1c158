"""The report of a model: one HTML file that stands alone and can be attached to an issue."""

from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import opened
from studio.exporting.report.page import report_html

__all__ = ["ReportContent", "opened", "report_html"]
