"""Printing: progress on a terminal, tables, JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from studio.jobs.events import Event, Progress, Warned
from studio.plain_json import plain
from studio.readable import decibels, size
from studio.runtime.world import is_first_process

if TYPE_CHECKING:
    from studio.analysis.quality import Accuracy, Evaluation
    from studio.exporting.summary import ExportSummary, RuntimeCheck, Verification


class ProgressLine:
    """An `emit` that redraws one line on a terminal, and prints a line a phase elsewhere.

    Everything goes to stderr, so that stdout holds the result alone. Of several processes only the
    first prints.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet or not is_first_process()
        self._terminal = sys.stderr.isatty()
        self._phase = ""
        self._started = 0.0
        self.warnings: list[str] = []
        """Every warning that came, once."""

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            if event.message in self.warnings:
                return
            self.warnings.append(event.message)
            if not self._quiet:
                self._finish()
                print(f"note: {event.message}", file=sys.stderr)
        elif isinstance(event, Progress) and not self._quiet:
            self._show(event)

    def _show(self, event: Progress) -> None:
        if event.phase != self._phase:
            self._finish()
            self._phase, self._started = event.phase, time.monotonic()
            if not self._terminal:
                print(f"{event.phase} ...", file=sys.stderr)
        if not self._terminal:
            return
        elapsed = time.monotonic() - self._started
        left = ""
        if 0 < event.done < event.total and elapsed > 1:
            left = f", {elapsed * (event.total - event.done) / event.done:.0f} s left"
        filled = 24 * event.done // max(event.total, 1)
        bar = "█" * filled + "░" * (24 - filled)
        line = f"{event.phase:20} {bar} {event.done}/{event.total} {event.detail}{left}"
        print(f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr)
        sys.stderr.flush()

    def _finish(self) -> None:
        if self._phase and self._terminal:
            took = time.monotonic() - self._started
            print(f"\r\x1b[2K{self._phase:20} {took:.1f} s", file=sys.stderr)
        self._phase = ""


def print_json(value: Any) -> None:
    """`value` (dataclasses, paths and infinite numbers included) as JSON on stdout."""
    print(json.dumps(plain(value), indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns padded to their widest cell."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, tuple("-" * width for width in widths), *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def print_evaluation(evaluation: Evaluation) -> None:
    """Accuracy and distances, and the five worst layers."""

    def accuracy(value: Accuracy | None) -> tuple[str, str]:
        return ("-", "-") if value is None else (f"{value.top1:.2f} %", f"{value.top5:.2f} %")

    print(f"\nEvaluated on {evaluation.samples} samples of {evaluation.data}")
    if evaluation.synthetic:
        print("RANDOM DATA: these figures say nothing about the model's accuracy.")
    if evaluation.accuracy is None:
        print("no accuracy: the data have no labels for the model's classes")
    else:
        print_table(
            ("", "top-1", "top-5"),
            [
                ("float", *accuracy(evaluation.float_accuracy)),
                ("quantized (simulated)", *accuracy(evaluation.accuracy)),
            ],
        )
    agreement = (
        "" if evaluation.agreement is None else f", top-1 agreement {evaluation.agreement:.1f} %"
    )
    output = evaluation.output
    print(f"output: SQNR {decibels(output.sqnr_db)}, cosine {output.cosine:.5f}{agreement}")
    worst = sorted(evaluation.layers, key=lambda layer: layer.distance.sqnr_db)[:5]
    if worst:
        print("lowest SQNR:")
        for layer in worst:
            print(f"  {decibels(layer.distance.sqnr_db):>9}  {layer.layer}")


def print_export(summary: ExportSummary) -> None:
    """What was written, and the verification."""
    print(f"\nWritten to {summary.folder}{os.sep}")
    for artifact in summary.artifacts:
        print(f"  {artifact.name:18} {size(artifact.bytes):>9}  {artifact.what}")
    ratio = summary.float_bytes / max(summary.quantized_bytes, 1)
    change = f"{ratio:.1f}x smaller" if ratio >= 1 else f"{1 / ratio:.1f}x larger"
    print(
        f"size: {size(summary.float_bytes)} float, {size(summary.quantized_bytes)} quantized "
        f"({change})"
    )
    for warning in summary.warnings:
        print(f"warning: {warning}")
    if summary.verification is not None:
        print_verification(summary.verification)


def print_verification(verification: Verification) -> None:
    """The verdict and the figures behind it."""
    from studio.analysis.pair_overflow import overflow_note

    verdict = "equal to the simulation" if verification.passed else "DIFFERENT from the simulation"
    print(f"\nVerified in onnxruntime on {verification.samples} samples: {verdict}")
    print(
        f"  layer by layer on equal inputs ({len(verification.layers)} layers): at least "
        f"{100 * verification.identical:.3f} % of the integers identical, largest difference "
        f"{verification.largest} step(s)"
    )
    if verification.problem:
        print(f"  {verification.problem}")
    for end in (verification.plain, verification.optimized):
        agreement = "" if end.agreement is None else f", top-1 agreement {end.agreement:.1f} %"
        print(
            f"  end to end, optimisations {'on ' if end.optimizations else 'off'}: SQNR "
            f"{decibels(end.distance.sqnr_db)}, cosine {end.distance.cosine:.5f}{agreement}"
        )
    for output in verification.outputs[1:]:
        print(
            f"  {output.output}: SQNR {decibels(output.plain.distance.sqnr_db)} without, "
            f"{decibels(output.optimized.distance.sqnr_db)} with optimisations"
        )
    if verification.outputs:
        itself = verification.outputs[0].itself.distance.sqnr_db
        print(f"  onnxruntime with optimisations on against off: SQNR {decibels(itself)}")
    if verification.refused:
        print(f"  without integer kernels: {verification.refused}")
    print(
        f"  onnxruntime runs {verification.integer_nodes} nodes in integer kernels, "
        f"{verification.float_nodes} convolutions or matrix products in float"
    )
    for check in verification.not_as_forecast:
        print(
            f"  not as forecast: {check.layer} runs in {check.runs} ({check.kernel}), forecast "
            f"was {check.forecast} ({check.forecast_kernel})"
        )
    latency = verification.latency
    if latency is not None:
        print(
            f"  latency on one thread, {latency.samples} samples: {latency.quantized_ms:.2f} ms "
            f"quantized, {latency.float_ms:.2f} ms float, ratio {latency.ratio:.2f}"
        )
    if verification.pair_overflows:
        print(f"  {overflow_note(verification.pair_overflows)}")
    for runtime in verification.other_runtimes:
        print(f"  {_other_runtime(runtime)}")


def _other_runtime(check: RuntimeCheck) -> str:
    if check.distance is None:
        return f"{check.runtime}: {check.problem}; to run it elsewhere: {check.command}"
    agreement = "" if check.agreement is None else f", top-1 agreement {check.agreement:.1f} %"
    distance = decibels(check.distance.sqnr_db)
    return f"{check.runtime} {check.version}: SQNR {distance}{agreement}"
