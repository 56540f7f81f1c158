"""The report of an export: one HTML file that stands alone and can be attached to an issue."""

from studio.export.report.content import ReportContent
from studio.export.report.page import report_html

__all__ = ["ReportContent", "report_html"]
