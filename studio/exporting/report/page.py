"""The page: all parts in order, with style and script inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from studio.exporting.report.content import ReportContent
from studio.exporting.report.head import head, random_badge
from studio.exporting.report.histograms import SHOWN, histogram_grid
from studio.exporting.report.layer_table import layer_table
from studio.exporting.report.markup import Markup, facts, join, note, section, tag
from studio.exporting.report.range_chart import range_chart
from studio.exporting.report.runtime_tables import (
    kernel_table,
    latency_note,
    other_runtimes_table,
)
from studio.exporting.report.sensitivity_parts import sensitivity_parts
from studio.exporting.report.sqnr_chart import sqnr_chart
from studio.exporting.report.tables import (
    accuracy_table,
    change_table,
    check_table,
    end_to_end_table,
    file_table,
    override_table,
    warning_list,
)
from studio.exporting.report.technique_parts import technique_parts
from studio.exporting.report.tensor_table import placement_table, tensor_table
from studio.exporting.report.text import integer, plural
from studio.exporting.report.validation_tables import validation_tables
from studio.graph.describe import display_shape
from studio.resource_files import resource


def report_html(content: ReportContent) -> str:
    """The report as one HTML document that needs no other file, no network and no script.

    All names and texts are escaped. Every layer and every tensor is listed; charts and the tables
    of changes and checks are cut for very large models, and say so.
    """
    parts = dict(_sections(content))
    links = (tag("a", title, href=f"#{identity}") for identity, (title, _) in parts.items())
    title = f"{content.graph.source.name} for {content.plan.target}: quantization report"
    body = tag(
        "body",
        head(content),
        tag("nav", *links),
        tag("main", *(section(identity, *part) for identity, part in parts.items())),
        tag("script", Markup(_asset("report.js"))),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"{tag('title', title)}{tag('style', Markup(_asset('report.css')))}</head>\n{body}</html>\n"
    )


def _asset(name: str) -> str:
    return (resource("report") / name).read_text(encoding="utf-8")


def _sections(content: ReportContent) -> Iterator[tuple[str, tuple[str, Markup]]]:
    """Identity, title and content of every section, in order."""
    yield "settings", ("Settings", _settings(content))
    yield "techniques", ("What was applied", technique_parts(content))
    yield "accuracy", ("Accuracy", _accuracy(content))
    found = content.sensitivity
    if found is not None:
        parts = (random_badge(found.synthetic), sensitivity_parts(content, found))
        yield "sensitivity", ("Sensitivity", join(parts))
    yield "quality", ("Quality of the layers", _quality(content))
    yield "ranges", ("Activation ranges", _ranges(content))
    yield "verification", ("Verification", _verification(content))
    if content.validation is not None:
        yield "validation", ("Validation", validation_tables(content.validation))
    yield "preparation", ("Preparation", change_table(content))
    yield "warnings", ("Warnings", warning_list(content))
    yield "files", ("Files", file_table(content))
    yield "layers", (f"Layers ({integer(len(content.layers))})", layer_table(content))
    yield "tensors", (f"Every tensor ({integer(len(content.plan.tensors))})", tensor_table(content))


def _settings(content: ReportContent) -> Markup:
    config, graph, source = content.config, content.graph, content.graph.source
    defaults = config.defaults.given()
    calibration = "not calibrated"
    if content.calibration_data:
        calibration = f"{content.calibration_data}, {plural(content.calibration_samples, 'sample')}"
    observers = sorted(
        {
            "as in the file" if row.from_file else row.spec.observer
            for row in content.plan.tensors.values()
            if row.spec and (row.observed or row.from_file)
        }
    )
    model = (
        source.file_name if source.weights is None else f"{source.file_name}, {source.weights.name}"
    )
    pairs = [
        ("Target", config.target),
        ("Defaults", _settings_text(defaults) if defaults else "those of the target"),
        ("Bias", config.bias or "as the target wants it"),
        ("Calibration", calibration),
        ("Observer", ", ".join(observers) or "none"),
        ("Model file", model),
        ("Opset", str(graph.opset)),
        ("Inputs", _values(graph.inputs)),
        ("Outputs", _values(graph.outputs)),
    ]
    return join([
        random_badge(content.synthetic),
        facts(pairs),
        tag(
            "div",
            tag("div", tag("h3", "What is quantized how"), placement_table(content)),
            tag("div", tag("h3", "Settings of single layers"), override_table(content)),
            class_="pair",
        ),
    ])  # fmt: skip


def _settings_text(given: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in given.items())


def _values(values: tuple[Any, ...]) -> str:
    return ", ".join(f"{value.name or ''} {display_shape(value)}".strip() for value in values)


def _accuracy(content: ReportContent) -> Markup:
    evaluation = content.evaluation
    if evaluation is None:
        return note("The simulated model was not evaluated.")
    return join([
        random_badge(evaluation.synthetic),
        note(f"The simulated model against the float model on "
             f"{plural(evaluation.samples, 'sample')} of {evaluation.data}."),
        accuracy_table(evaluation),
    ])  # fmt: skip


def _quality(content: ReportContent) -> Markup:
    chart = sqnr_chart(content)
    if not chart or content.evaluation is None:
        return note("The layers were not evaluated.")
    histograms = histogram_grid(content)
    parts = [
        random_badge(content.evaluation.synthetic),
        note("SQNR of every layer's output in the simulated network against the float network: "
             "errors of earlier layers are included. Higher is better; 6 dB are about one bit."),
        chart,
    ]  # fmt: skip
    if histograms:
        parts += [
            tag("h3", "Where it is lowest: what the outputs hold"),
            note(f"What calibration counted, for up to {SHOWN} layers with the lowest SQNR. "
                 "Heights are square roots of counts, so that rare values show; lines are the "
                 "limits of the encoding."),
            histograms,
        ]  # fmt: skip
    return join(parts)


def _ranges(content: ReportContent) -> Markup:
    chart = range_chart(content)
    if not chart:
        return note("No activation was observed.")
    return join([
        random_badge(content.synthetic),
        note("Every layer's output: what calibration observed, and what the encoding represents."),
        chart,
    ])  # fmt: skip


def _verification(content: ReportContent) -> Markup:
    verification = content.verification
    if verification is None and content.float_bytes is None:
        return note("Nothing is exported yet.")
    if verification is None:
        return note("The exported file was not compared with the simulation.")
    result = "Passed" if verification.passed else "Failed"
    return join([
        note(tag("b", result, class_="good" if verification.passed else "bad"),
             f": the exported file in onnxruntime against the simulation, on "
             f"{plural(verification.samples, 'sample')}. onnxruntime's optimised graph runs "
             f"{plural(verification.integer_nodes, 'compute node')} in integers and "
             f"{integer(verification.float_nodes)} in float."),
        tag("h3", "Whole network"),
        note("Float sums are added in another order, which flips single steps, and the flips add "
             "up: the end-to-end figures are not expected to be exact."),
        end_to_end_table(verification),
        tag("h3", "Kernels of onnxruntime"),
        kernel_table(verification),
        tag("h3", "Speed"),
        latency_note(verification),
        tag("h3", "Other runtimes"),
        other_runtimes_table(verification),
        tag("h3", "Layer by layer on equal inputs"),
        check_table(content, verification),
    ])  # fmt: skip
