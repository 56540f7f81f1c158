"""What runtimes make of the exported file: kernels, speed, and runtimes other than onnxruntime."""

from __future__ import annotations

from collections import Counter

from studio.analysis.kernel_rules import Runs
from studio.analysis.pair_overflow import overflow_note
from studio.exporting.report.markup import Column, Markup, breakable, join, note, table, tag
from studio.exporting.report.text import cut
from studio.exporting.summary import KernelCheck, RuntimeCheck, Verification
from studio.readable import decibels, plural

MOST_LAYERS = 300


def kernel_table(verification: Verification) -> Markup:
    """Layers that onnxruntime runs in float, or not as forecast, with the reason."""
    kernels = verification.kernels
    if not kernels:
        return note("Which kernels run was not looked at.")
    counts = Counter(check.runs for check in kernels)
    what = ", ".join(
        f"{plural(counts[runs], 'layer')} {runs.value}" for runs in Runs if counts[runs]
    )
    shown = [check for check in kernels if check.runs is Runs.FLOAT or not check.as_forecast]
    if not shown:
        return note(f"{what}: as forecast.")
    rows = [_kernel_row(check) for check in shown[:MOST_LAYERS]]
    columns = (Column("Layer"), Column("Runs"), Column("Kernel"), Column("Why"))
    return join([
        note(f"{what}. Those in float, or not as forecast:"),
        table(columns, rows, "tools"),
        cut(len(rows), len(shown), "The first"),
    ])  # fmt: skip


def _kernel_row(check: KernelCheck) -> tuple[str | Markup, ...]:
    reason = check.reason
    if not check.as_forecast:
        reason = f"forecast: {check.forecast.value} ({check.forecast_kernel}). {reason}".strip()
    return breakable(check.layer), check.runs.value, check.kernel, reason


def latency_note(verification: Verification) -> Markup:
    """How fast the file runs here, and where it may saturate."""
    latency = verification.latency
    parts = []
    if latency is not None:
        parts.append(
            f"{latency.quantized_ms:.2f} ms quantized, {latency.float_ms:.2f} ms float: ratio "
            f"{latency.ratio:.2f} (onnxruntime on this machine, one thread, "
            f"{plural(latency.samples, 'sample')} a run, median of {latency.rounds})."
        )
    elif verification.refused:
        parts.append(f"onnxruntime does not run it with integer kernels: {verification.refused}")
    parts.append(overflow_note(verification.pair_overflows))
    return note(" ".join(filter(None, parts)) or "Not measured.")


def other_runtimes_table(verification: Verification) -> Markup:
    """Runtimes other than onnxruntime: the result, or how to get it elsewhere."""
    rows = [_runtime_row(check) for check in verification.other_runtimes]
    if not rows:
        return note("None was tried.")
    return table((Column("Runtime"), Column("Result"), Column("Command")), rows, "tools")


def _runtime_row(check: RuntimeCheck) -> tuple[str | Markup, ...]:
    name = f"{check.runtime} {check.version}".strip()
    result = check.problem or "not run"
    if check.distance is not None:
        result = f"SQNR {decibels(check.distance.sqnr_db)} on {plural(check.samples, 'sample')}"
    return name, result, tag("code", check.command) if check.command else ""
