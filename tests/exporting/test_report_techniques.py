"""The report's parts on what was applied, sensitivity and outliers; tables that close."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from report_factory import content
from test_report import NASTY, SHOWN, bars, parse, rows, section, text_of

from studio.analysis.sensitivity_figures import (
    Deviation,
    Error,
    LayerSensitivity,
    Outlier,
    Sensitivity,
)
from studio.exporting.report import opened, report_html
from studio.exporting.report.line_chart import MOST_POINTS, frame, line, thinned
from studio.exporting.report.text import duration
from studio.jobs.events import TrainingResult
from studio.techniques.applied import Applied
from studio.techniques.history import TrainingHistory
from studio.techniques.technique import Chart, Point, Row


def noise(decibels: float) -> float:
    return 10 ** (-decibels / 10)


def sensitivity(names: list[str]) -> Sensitivity:
    """The layer at place k has 20 + k dB alone, and gains k / 10 dB left in float."""
    both = Deviation(noise(15.0), 0.1, 0.02, 91.0, 70.0)
    layers = tuple(
        LayerSensitivity(
            name,
            Deviation(noise(20.0 + place), 0.01),
            Deviation(noise(15.0 + place / 10), 0.01),
            Error(30.0, 0.1),
            Error(25.0, 0.1),
        )
        for place, name in enumerate(names)
    )
    outlier = Outlier("w<1>", names[1], True, 3, 32, 2, 16.0, "Equalize the layers.")
    weights, activations = Deviation(noise(18.0), 0.1), Deviation(noise(17.0), 0.1)
    return Sensitivity(
        "photographs", 64, False, 88.0, weights, activations, both, layers, (outlier,)
    )


def training() -> TrainingHistory:
    results = tuple(
        TrainingResult(step, epoch, "top-1", value, best)
        for epoch, (step, value, best) in enumerate(
            [(10, 80.0, True), (20, 84.5, True), (30, 83.0, False)]
        )
    )
    steps = tuple(range(1, 31))
    losses = tuple(math.nan if step == 7 else 1.0 / step for step in steps)
    return TrainingHistory(
        30, 1, steps, losses, (0.1,) * 30, (0.1,) * 30, results, (), (), (), ()
    )  # fmt: skip


APPLIED = (
    Applied(
        "adaround",
        {"iterations": 500, "batch_size": 32, "warm": False},
        "2 layers rounded",
        "SQNR of the layer's output, dB",
        (Row("features.0.expand", "Conv + Clip", 12.5, 19.25), Row("topk", "left: no weights")),
        title="AdaRound",
        changed=("iterations", "warm"),
        seconds=75.2,
    ),
    Applied(
        "mixed_precision",
        {},
        "size 8.2 kB",
        chart=Chart(
            "Size against accuracy",
            "model size, kB",
            "top-1, %",
            (
                Point(8.0, 84.0, "W4A8"),
                Point(10.0, 87.5, "mixed", "12 layers W4A8.", chosen=True),
                Point(16.0, 88.0, "W8A8", aside=True),
            ),
            target=87.0,
        ),
        title="Mixed precision",
    ),
    Applied("qat", {"epochs": 3}, "top-1 80.0 before, 84.5 after", training=training()),
)


@pytest.fixture(scope="module")
def text() -> str:
    base = content()
    names = [layer.name for layer in base.layers]
    return report_html(content(applied=APPLIED, sensitivity=sensitivity(names)))


@pytest.fixture(scope="module")
def page(text: str) -> ElementTree.Element:
    return parse(text)


def steps(page: ElementTree.Element) -> list[ElementTree.Element]:
    return [part for part in section(page, "techniques") if part.get("class") == "step"]


def test_what_was_applied_is_told_in_order(page: ElementTree.Element) -> None:
    heads = [text_of(step.find("h3")) for step in steps(page)]  # type: ignore[arg-type]
    assert heads == ["1  AdaRound took 1 min 15 s", "2  Mixed precision", "3  qat"]
    first = text_of(steps(page)[0])
    assert "2 layers rounded." in first
    assert "iterations 500 · warm off" in first
    assert "batch" not in first, "an option that is the default is not told"
    assert "Before and after: SQNR of the layer's output, dB." in first
    cells = [[text_of(cell) for cell in row] for row in steps(page)[0].iter("tr")]
    assert cells == [
        ["Layer", "What", "Before", "After"],
        ["features.0.expand", "Conv + Clip", "12.50", "19.25"],
        ["topk", "left: no weights", "–", "–"],
    ]
    assert "With the default options." in text_of(steps(page)[1])


def test_a_chart_has_its_line_target_and_chosen_point(page: ElementTree.Element) -> None:
    svg = steps(page)[1].find(".//svg")
    assert svg is not None
    (star,) = svg.iter("polygon")
    assert text_of(star) == "mixed: model size, kB 10.00, top-1, % 87.50. 12 layers W4A8."
    dots = {text_of(dot).split(":")[0]: dot for dot in svg.iter("circle")}
    assert {name: dot.get("class") for name, dot in dots.items()} == {
        "W4A8": "dot",
        "W8A8": "aside",
    }
    (curve,) = svg.iter("polyline")
    points = [tuple(map(float, pair.split(","))) for pair in curve.get("points", "").split()]
    assert len(points) == 2, "the line leaves out what is aside"
    low, high = float(dots["W4A8"].get("cy", "")), float(dots["W8A8"].get("cy", ""))
    target = next(item for item in svg.iter("line") if item.get("class") == "limit")
    expected = low + (87.0 - 84.0) / (88.0 - 84.0) * (high - low)
    assert float(target.get("y1", "")) == pytest.approx(expected, abs=0.2)
    ticks = [text_of(item) for item in svg.iter("text") if item.get("class") == "end"]
    assert "100" not in ticks
    assert any(tick == "88" for tick in ticks)


def test_the_curves_of_a_training_are_drawn(page: ElementTree.Element) -> None:
    loss, metric = steps(page)[2].iter("figure")
    curves = [line for line in loss.iter("polyline") if line.get("class") == "raw"]
    counts = [len(line.get("points", "").split()) for line in curves]
    assert counts == [6, 23], "a loss that is no number interrupts the line"
    assert len(list(metric.iter("circle"))) == 2
    (star,) = metric.iter("polygon")
    assert text_of(star) == "epoch 2: 84.50 %"
    assert "best: after epoch 2" in text_of(metric)


def test_sensitivity_has_a_bar_and_two_columns_a_layer(page: ElementTree.Element) -> None:
    drawn = bars(page, "sensitivity")
    layers = content().layers
    assert len(drawn) == len(layers)
    heights = [float(bar.get("height", "")) for bar in drawn]
    # 10 dB less are half the decades of the error: 10 % at 20 dB, 1 % at 40 dB.
    assert heights[0] / heights[20] == pytest.approx(10.0, rel=0.05)
    assert text_of(drawn[20]) == f"21  {layers[20].name}: 1.00\N{NO-BREAK SPACE}% (40.0 dB)"
    table = {row[1]: row for row in rows(page, "layers", "layers")}
    assert table[layers[20].name][13:15] == ["40.0", "+2.0"]
    assert table[layers[0].name][13:15] == ["20.0", "±0.0"]
    totals = rows(page, "sensitivity", "narrow")
    assert totals[0] == [
        "everything",
        "15.0 dB",
        "0.0200",
        "91.00\N{NO-BREAK SPACE}%",
        "70.00\N{NO-BREAK SPACE}%",
    ]
    assert totals[3][-1] == "88.00\N{NO-BREAK SPACE}%"
    assert rows(page, "sensitivity", "outliers") == [
        ["w<1>", layers[1].name, "16.0 ×", "4.0", "2 of 32", "Equalize the layers."]
    ]


def test_without_them_the_report_says_so() -> None:
    page = parse(report_html(content()))
    assert "Nothing was applied" in text_of(section(page, "techniques"))
    assert page.find(".//section[@id='sensitivity']") is None
    assert len(rows(page, "layers", "layers")[0]) == 14


def test_it_stays_one_file_that_loads_nothing(text: str) -> None:
    assert not re.search(r"http|src=|@import|url\(|<link|<iframe|<img", text)


def test_names_of_techniques_are_escaped() -> None:
    chart = Chart(NASTY, NASTY, NASTY, (Point(0.0, 1.0, NASTY, NASTY, chosen=True),), target=2.0)
    row = Row(NASTY, NASTY, 1.0, 2.0)
    nasty = Applied(NASTY, {NASTY: NASTY}, NASTY, NASTY, (row,), None, chart, NASTY, (NASTY,))
    page = parse(report_html(content(applied=(nasty,))))
    assert len(list(page.iter("script"))) == 1
    (step,) = steps(page)
    assert text_of(step.find("h3")) == f"1  {SHOWN}"  # type: ignore[arg-type]
    assert text_of(step.find(".//figcaption")) == SHOWN  # type: ignore[arg-type]


def test_long_tables_are_closed_until_they_are_wanted(text: str) -> None:
    closed = parse(text).findall(".//details")
    assert closed
    assert all(each.get("open") is None for each in closed)
    layers = next(each for each in section(parse(text), "layers").iter("details"))
    assert text_of(layers.find("summary")) == "95 rows"  # type: ignore[arg-type]
    assert not list(section(parse(text), "accuracy").iter("details"))
    paper = parse(opened(text)).findall(".//details")
    assert len(paper) == len(closed)
    assert all(each.get("open") == "" for each in paper)


def test_a_report_without_an_export_says_so() -> None:
    unexported = content(float_bytes=None, quantized_bytes=None, verification=None, artifacts=())
    page = parse(report_html(unexported))
    assert "not exported yet" in text_of(page.find(".//header"))  # type: ignore[arg-type]
    assert "times smaller" not in text_of(page.find(".//header"))  # type: ignore[arg-type]
    for part in ("verification", "files"):
        assert "Nothing is exported yet." in text_of(section(page, part))


def test_long_curves_are_averaged() -> None:
    points = [(float(k), float(k % 2)) for k in range(4 * MOST_POINTS)]
    thin = thinned(points)
    assert len(thin) == MOST_POINTS
    assert {y for _, y in thin} == {0.5}
    flat = frame([1.0], [3.0])
    assert "polyline" not in line(flat, [(1.0, 3.0)], "curve")
    assert [duration(s) for s in (0.42, 12.3, 200.0, 7500.0)] == [
        "0.4 s", "12 s", "3 min 20 s", "2 h 5 min",
    ]  # fmt: skip
