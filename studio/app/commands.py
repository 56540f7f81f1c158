"""One table of everything a user can do; toolbar, menus and command palette are built from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from studio.app.session import Session


@dataclass(frozen=True)
class Command:
    """`blocked` returns why the command cannot be used right now, "" if it can."""

    id: str
    text: str
    menu: str
    icon: str = ""
    shortcut: str = ""
    tip: str = ""
    blocked: Callable[[Session], str] = lambda session: ""


def _needs_model(session: Session) -> str:
    return "" if session.document is not None else "Open a model first."


def _needs_idle(session: Session) -> str:
    return f"{session.job_step} is running." if session.busy else ""


def _needs_idle_model(session: Session) -> str:
    return _needs_model(session) or _needs_idle(session)


def _needs_calibration(session: Session) -> str:
    reason = _needs_idle_model(session)
    if reason or session.document is None:
        return reason
    document = session.document
    if document.calibration is None and not (document.from_file and document.calibrated):
        return "Calibrate first."
    return ""


def _needs_data(session: Session) -> str:
    reason = _needs_calibration(session)
    if reason or session.document is None:
        return reason
    return "" if session.document.data is not None else "Choose data first."


def _needs_selection(session: Session) -> str:
    return _needs_idle_model(session) or ("" if session.selection else "Select a layer first.")


def _needs_groups(session: Session) -> str:
    reason = _needs_model(session)
    if reason or session.document is None:
        return reason
    grouped = any(layer.kind or layer.block for layer in session.document.plan.layers)
    return "" if grouped else "The graph has no recognised layers."


def _needs_sizes(session: Session) -> str:
    reason = _needs_model(session)
    if reason or session.document is None:
        return reason
    return "" if session.document.shape_layers else "The model computes no sizes."


def _needs_undo(session: Session) -> str:
    return _needs_idle(session) or (
        "" if session.undo_stack.canUndo() else "There is nothing to undo."
    )


def _needs_redo(session: Session) -> str:
    return _needs_idle(session) or (
        "" if session.undo_stack.canRedo() else "There is nothing to redo."
    )


def _needs_job(session: Session) -> str:
    return "" if session.busy else "Nothing is running."


COMMANDS = (
    Command(
        "open",
        "Open…",
        "File",
        "open",
        "Ctrl+O",
        "Open an ONNX file, PyTorch code or a project",
        _needs_idle,
    ),
    Command(
        "example",
        "Open the example",
        "File",
        "",
        "",
        "Open the bundled handwritten-digits example",
        _needs_idle,
    ),
    Command(
        "save",
        "Save project",
        "File",
        "",
        "Ctrl+S",
        "Save settings and results as a project",
        _needs_idle_model,
    ),
    Command(
        "save_as",
        "Save project as…",
        "File",
        "",
        "Ctrl+Shift+S",
        "Save the project under another name",
        _needs_idle_model,
    ),
    Command(
        "package",
        "Installed model…",
        "File",
        "",
        "",
        "Open a PyTorch model of an installed Python package",
        _needs_idle,
    ),
    Command(
        "inputs",
        "Model inputs…",
        "File",
        "",
        "",
        "Open the model again with other shapes, types or fixed values of its inputs",
        _needs_idle_model,
    ),
    Command(
        "load_encodings",
        "Load encodings…",
        "File",
        "",
        "",
        "Quantize the model as an encodings file says",
        _needs_idle_model,
    ),
    Command(
        "load_target",
        "Load rule file…",
        "File",
        "",
        "",
        "Use your own target: a rule file, or an AIMET quantsim configuration",
        _needs_idle_model,
    ),
    Command(
        "save_aimet",
        "Save target as AIMET configuration…",
        "File",
        "",
        "",
        "Write the rules of the target as AIMET's quantsim configuration",
        _needs_model,
    ),
    Command(
        "close", "Close model", "File", "", "Ctrl+W", "Back to the first screen", _needs_idle_model
    ),
    Command(
        "report_pdf",
        "Save report as PDF…",
        "File",
        "",
        "",
        "Write what is known of the model so far to a PDF",
        _needs_model,
    ),
    Command(
        "report_html",
        "Save report as HTML…",
        "File",
        "",
        "",
        "Write what is known of the model so far to one HTML file",
        _needs_model,
    ),
    Command("quit", "Quit", "File", "", "Ctrl+Q", "Close the window"),
    Command("undo", "Undo", "Edit", "undo", "Ctrl+Z", "Take the last edit back", _needs_undo),
    Command("redo", "Redo", "Edit", "redo", "Ctrl+Shift+Z", "Do the edit again", _needs_redo),
    Command(
        "reset",
        "Reset selected layers",
        "Edit",
        "",
        "Ctrl+Backspace",
        "Give the selected layers the default settings",
        _needs_selection,
    ),
    Command(
        "overrides",
        "Overrides…",
        "Edit",
        "settings",
        "Ctrl+R",
        "Settings by layer name and pattern, in order",
        _needs_idle_model,
    ),
    Command("find", "Find layer", "Edit", "search", "Ctrl+F", "Search the graph", _needs_model),
    Command(
        "filter",
        "Filter the table",
        "Edit",
        "",
        "Ctrl+Shift+F",
        "Show only matching rows of the layer table",
        _needs_model,
    ),
    Command(
        "data",
        "Data…",
        "Run",
        "data",
        "Ctrl+D",
        "Choose the data for calibration and evaluation",
        _needs_idle_model,
    ),
    Command(
        "calibrate",
        "Calibrate",
        "Run",
        "calibrate",
        "F5",
        "Find the range of every tensor on the data",
        _needs_idle_model,
    ),
    Command(
        "autoquant",
        "AutoQuant…",
        "Run",
        "improve",
        "Shift+F8",
        "Let the studio try the techniques until the loss is small enough",
        _needs_model,
    ),
    Command(
        "improve",
        "Improve…",
        "Run",
        "improve",
        "F8",
        "Make the quantized model better: choose a technique and its options",
        _needs_model,
    ),
    Command(
        "evaluate",
        "Evaluate",
        "Run",
        "evaluate",
        "F6",
        "Compare the quantized model with the float model",
        _needs_data,
    ),
    Command(
        "analyse",
        "Analyse sensitivity",
        "Run",
        "",
        "Shift+F6",
        "Measure which layers the loss comes from: each quantized alone, each left in float alone",
        _needs_data,
    ),
    Command(
        "export",
        "Export…",
        "Run",
        "export",
        "Ctrl+E",
        "Write the quantized model and verify it in onnxruntime",
        _needs_data,
    ),
    Command(
        "pause",
        "Pause or resume the running step",
        "Run",
        "",
        "F7",
        "Let the running step wait, or go on",
        _needs_job,
    ),
    Command(
        "cancel",
        "Cancel the running step",
        "Run",
        "cancel",
        "Shift+F5",
        "Stop; the document stays as it was",
        _needs_job,
    ),
    Command("graph", "Graph", "View", "graph", "Ctrl+1", "Show the graph", _needs_model),
    Command(
        "netron", "Netron", "View", "netron", "Ctrl+2", "Show the model in Netron", _needs_model
    ),
    Command(
        "training",
        "Training",
        "View",
        "",
        "Ctrl+Shift+T",
        "Show the curves of the training that runs, or of the last one",
        _needs_model,
    ),
    Command(
        "report",
        "Report",
        "View",
        "",
        "Ctrl+Shift+R",
        "Show all that is known of the model on one page",
        _needs_model,
    ),
    Command("layers", "Layers", "View", "table", "Ctrl+3", "Show the layer table", _needs_model),
    Command(
        "tensors",
        "Tensors",
        "View",
        "",
        "Ctrl+4",
        "Show how every tensor is quantized",
        _needs_model,
    ),
    Command(
        "preparation",
        "Preparation",
        "View",
        "",
        "Ctrl+5",
        "Show what was changed when the model was opened",
        _needs_model,
    ),
    Command(
        "validation",
        "Validation",
        "View",
        "",
        "Ctrl+8",
        "Show what to know before calibrating: float layers, cost, weights",
        _needs_model,
    ),
    Command(
        "sensitivity",
        "Sensitivity",
        "View",
        "",
        "Ctrl+Shift+A",
        "Show which layers the loss comes from, and outlier channels",
        _needs_model,
    ),
    Command(
        "forecast",
        "Forecast",
        "View",
        "",
        "Ctrl+9",
        "Show which layers the target will run in integers, which in float and why",
        _needs_model,
    ),
    Command("problems", "Problems", "View", "", "Ctrl+6", "Show warnings", _needs_model),
    Command("log", "Log", "View", "", "Ctrl+7", "Show the log", _needs_model),
    Command("fit", "Fit graph", "View", "fit", "Ctrl+0", "Show the whole graph", _needs_model),
    Command("color_none", "Colour: none", "View", "", "", "No colours in the graph", _needs_model),
    Command(
        "color_bits", "Colour: bits", "View", "", "", "Colour the graph by bit width", _needs_model
    ),
    Command(
        "color_sqnr",
        "Colour: SQNR",
        "View",
        "",
        "",
        "Colour the graph by the error of each layer",
        _needs_model,
    ),
    Command(
        "color_sensitivity",
        "Colour: sensitivity",
        "View",
        "",
        "",
        "Colour the graph by what each layer quantized alone does to the model's outputs",
        _needs_model,
    ),
    Command(
        "color_runs",
        "Colour: runs in",
        "View",
        "",
        "",
        "Colour the graph by what the target runs in integers and what in float",
        _needs_model,
    ),
    Command(
        "expand",
        "Expand all recognised layers",
        "View",
        "",
        "",
        "Show the operators inside every recognised layer and block of the graph",
        _needs_groups,
    ),
    Command(
        "collapse",
        "Collapse all recognised layers",
        "View",
        "",
        "",
        "Show every recognised layer and block of the graph as one box",
        _needs_groups,
    ),
    Command(
        "sizes",
        "Show or hide arithmetic of sizes",
        "View",
        "",
        "",
        "Show the layers that only compute sizes, in graph and table, or hide them again",
        _needs_sizes,
    ),
    Command(
        "theme",
        "Light or dark",
        "View",
        "theme",
        "Ctrl+T",
        "Change between the light and the dark theme",
    ),
    Command("palette", "Command palette…", "Help", "search", "Ctrl+K", "Find any command by name"),
    Command(
        "log_file", "Show log folder", "Help", "folder", "", "Open the folder of the log files"
    ),
    Command("about", "About", "Help", "info", "", "Version and licence"),
)

MENUS = ("File", "Edit", "Run", "View", "Help")
