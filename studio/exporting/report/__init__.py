"""The report of an export: one HTML file that stands alone and can be attached to an issue."""

from studio.exporting.report.content import ReportContent
from studio.exporting.report.page import report_html

__all__ = ["ReportContent", "report_html"]
