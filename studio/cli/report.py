"""`quant-studio report`, and the PDF beside an export."""

from __future__ import annotations

from pathlib import Path

from studio.cli.output import ProgressLine, print_json
from studio.errors import ConfigError

SUFFIXES = (".html", ".pdf")


def write_report(project: Path, out: Path | None, *, trust: bool, as_json: bool) -> int:
    """Write the report of a project as it was saved, as HTML or PDF by the name's ending."""
    from studio.project.report import document_report
    from studio.project.store import load_project
    from studio.whole_files import write_text

    path = out or project.with_suffix(".html")
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} is neither .html nor .pdf.", "Choose one of these endings.")
    pdf = path.suffix.lower() == ".pdf"
    if pdf:
        require_printer()
    with ProgressLine(as_json) as emit:
        document = load_project(project, trust=trust, emit=emit)
        html = document_report(document, emit=emit)
    if pdf:
        print_pdf(html, path)
    else:
        write_text(path, html)
    if as_json:
        print_json({"report": path})
    else:
        print(f"Written to {path}.")
    return 0


def require_printer() -> None:
    """Raises ExportError where no PDF can be made: before the work that it would be too late
    after."""
    from studio.app.report.printing import require_webengine

    require_webengine()


def print_pdf(html: str, path: Path) -> None:
    """Write the PDF of a report; ExportError if that is not possible."""
    from studio.app.report.printing import write_pdf

    write_pdf(html, path)


def print_exported(folder: Path) -> Path:
    """Write `report.pdf` beside the `report.html` of an export."""
    path = folder / "report.pdf"
    print_pdf((folder / "report.html").read_text(encoding="utf-8"), path)
    return path
