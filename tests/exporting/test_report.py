"""The report: a document that parses, stands alone, leaves nothing out and states its inputs."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from report_factory import content, graph, statistics

from studio.analysis.cost import LayerCost
from studio.analysis.kernel_rules import Runs
from studio.analysis.pair_overflow import PairOverflow
from studio.analysis.quality import Distance, LayerQuality
from studio.analysis.validation import (
    Finding,
    FloatTensors,
    LayerReport,
    Severity,
    Validation,
)
from studio.exporting.report import ReportContent, report_html
from studio.exporting.report.histograms import clipped_share
from studio.exporting.report.scales import SQNR_STEPS, Scale, bending, sqnr_class
from studio.exporting.report.text import points
from studio.exporting.summary import KernelCheck, Latency, RuntimeCheck
from studio.graph.model import Change, ModelSource
from studio.readable import decibels, number, share, size
from studio.sim.plan import Plan, Role, TensorPlan

NASTY = """a<b>&"c'</td><script>alert(1)</script>\x07\ud800"""
SHOWN = """a<b>&"c'</td><script>alert(1)</script>\ufffd\ufffd"""


@pytest.fixture(scope="module")
def complete() -> ReportContent:
    return content()


@pytest.fixture(scope="module")
def page(complete: ReportContent) -> ElementTree.Element:
    return parse(report_html(complete))


def parse(text: str) -> ElementTree.Element:
    """The page as a tree: it is XML too, once style and script are taken out."""
    return ElementTree.fromstring(
        re.sub(r"(?s)(<style>|<script>).*?(</style>|</script>)", r"\1\2", text)
    )


def text_of(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def section(page: ElementTree.Element, identity: str) -> ElementTree.Element:
    found = page.find(f".//section[@id='{identity}']")
    assert found is not None, identity
    return found


def rows(page: ElementTree.Element, identity: str, css: str) -> list[list[str]]:
    """Cell texts of the table with class `css` in a section."""
    tables = [t for t in section(page, identity).iter("table") if css in t.get("class", "").split()]
    assert len(tables) == 1
    return [[text_of(cell) for cell in row.findall("td")] for row in tables[0].findall("tbody/tr")]


def bars(page: ElementTree.Element, identity: str) -> list[ElementTree.Element]:
    chart = section(page, identity).find(".//div[@class='chart']/svg")
    assert chart is not None
    return [item for item in chart if item.find("title") is not None]


def with_name(name: str) -> ReportContent:
    """A one-layer export in which everything that can be named is called `name`."""
    base = content()
    tensor = TensorPlan(name, Role.ACTIVATION, name, base.plan.tensors["image"].spec, name)
    layer = replace(base.plan.layers[0], name=name, ops=(name,), outputs=(name,), note=name)
    source = replace(
        base.graph, source=ModelSource(base.graph.source.path.with_name("x").with_stem("m<&"))
    )
    assert base.evaluation is not None
    return replace(
        base,
        graph=replace(source, changes=(Change(name, name, name),), warnings=(name,)),
        plan=Plan(name, (layer,), {name: tensor}, (name,)),
        encodings={name: base.encodings["image"]},
        statistics={name: base.statistics["image"]},
        calibration_data=name,
        evaluation=replace(
            base.evaluation, layers=(LayerQuality(name, name, Distance(12.0, 0.9)),)
        ),
    )


def test_the_document_parses_and_every_link_has_its_target(page: ElementTree.Element) -> None:
    identities = {element.get("id") for element in page.iter() if element.get("id")}
    links = [link.get("href", "") for link in page.iter("a")]
    assert links
    assert all(link.startswith("#") and link[1:] in identities for link in links)


def test_the_document_loads_nothing(complete: ReportContent) -> None:
    text = report_html(complete)
    assert not re.search(r"http|src=|@import|url\(|<link|<iframe|<img|/somewhere", text)


def test_every_layer_and_tensor_has_its_row(
    complete: ReportContent, page: ElementTree.Element
) -> None:
    tensors = rows(page, "tensors", "tensors")
    assert [row[0] for row in tensors] == list(complete.plan.tensors)
    assert [row[4] for row in tensors] == [row.reason for row in complete.plan.tensors.values()]
    layers = rows(page, "layers", "layers")
    assert [row[1] for row in layers] == [layer.name for layer in complete.plan.layers]
    assert [row[0] for row in layers] == [str(k) for k in range(1, 96)]


def test_tensor_rows_say_how_and_tied_to_what(page: ElementTree.Element) -> None:
    table = {row[0]: row[1:] for row in rows(page, "tensors", "tensors")}
    assert table["features.0.dw.weight"][:3] == ["weight", "int8 symmetric, per channel", ""]
    assert table["features.0.dw_conv_out"][1] == "not quantized"
    assert table["flat"][2] == "features.22.add_out"


def test_layer_rows_show_the_encoding(complete: ReportContent, page: ElementTree.Element) -> None:
    table = {row[1]: row for row in rows(page, "layers", "layers")}
    encoding = complete.encodings["features.3.project_out"]
    row = table["features.3.project"]
    assert row[2:8] == ["Conv", "8", "per channel", "sym", "8", "asym"]
    shown = [float(cell.replace("−", "-")) for cell in row[8:11]]
    exact = [float(encoding.minimum), float(encoding.maximum), float(encoding.scale)]
    assert shown == pytest.approx(exact, rel=5e-4)
    assert row[11] == str(int(encoding.zero_point))
    assert table["features.1.dw"][12] == "14.1"
    assert table["features.1.dw"][13] == "set here: act_bits = 8"
    assert table["topk"][6] == "float"
    assert table["topk"][13] == "selects values; runs in float"
    # An op that follows its input shows the encoding it uses.
    assert table["flatten"][8:12] == table["features.22.add"][8:12]


def test_the_head_states_the_verdict_in_numbers(page: ElementTree.Element) -> None:
    head = page.find(".//header")
    assert head is not None
    assert text_of(head.find("h1")) == "mobilenet_like"  # type: ignore[arg-type]
    verdict = text_of(head.find("p[@class='verdict good']"))  # type: ignore[arg-type]
    accuracy = "Top-1 87.20 % simulated against 88.00 % float (−0.80 points, 500 samples)"
    assert accuracy in verdict.replace("\N{NO-BREAK SPACE}", " ")
    assert "3.7 times smaller (18.6 MB to 5.0 MB)" in verdict
    assert "verification passed" in verdict
    assert "4 March 2026" in text_of(head)


def test_accuracy_and_end_to_end_tables(page: ElementTree.Element) -> None:
    assert rows(page, "accuracy", "narrow") == [
        ["Top-1 accuracy", "88.00\N{NO-BREAK SPACE}%", "87.20\N{NO-BREAK SPACE}%", "−0.80 points"],
        ["Top-5 accuracy", "97.40\N{NO-BREAK SPACE}%", "97.20\N{NO-BREAK SPACE}%", "−0.20 points"],
        ["Same top-1 class as float", "", "94.60\N{NO-BREAK SPACE}%", ""],
        ["SQNR of the output", "", "21.4 dB", ""],
        ["Cosine similarity of the output", "", "0.99631", ""],
    ]
    assert rows(page, "verification", "narrow") == [
        ["optimisations off", "38.2 dB", "0.99990", "100.00\N{NO-BREAK SPACE}%"],
        ["optimisations on", "33.9 dB", "0.99980", "96.88\N{NO-BREAK SPACE}%"],
    ]


def test_verification_lists_the_worst_layers_first(complete: ReportContent) -> None:
    verification = complete.verification
    assert verification is not None
    bad = replace(verification.layers[40], largest=12, within_one=0.5, identical=0.25)
    failed = replace(
        verification, layers=(*verification.layers[:40], bad, *verification.layers[41:])
    )
    text = report_html(replace(complete, verification=failed))
    first = rows(parse(text), "verification", "checks")[0]
    assert first[1] == bad.layer
    assert first[4:] == ["25.00\N{NO-BREAK SPACE}%", "50.00\N{NO-BREAK SPACE}%", "12"]
    assert (
        "verification failed: layers in onnxruntime differ from the simulation by up to 12 steps"
        in text
    )
    assert 'class="verdict bad"' in text


@pytest.mark.parametrize("where", ["calibration", "evaluation"])
def test_random_data_are_marked(complete: ReportContent, where: str) -> None:
    assert 'class="banner"' not in report_html(complete)
    assert 'class="random"' not in report_html(complete)
    assert complete.evaluation is not None
    if where == "calibration":
        text = report_html(replace(complete, synthetic=True))
        marked = {"settings", "ranges"}
    else:
        text = report_html(
            replace(complete, evaluation=replace(complete.evaluation, synthetic=True))
        )
        marked = {"accuracy", "quality"}
    page = parse(text)
    banner = page.find(".//header/p[@class='banner']")
    assert banner is not None
    assert ("calibrated" if where == "calibration" else "evaluated") in text_of(banner)
    assert {
        part.get("id")
        for part in page.iter("section")
        if part.find("p[@class='random']") is not None
    } == marked
    assert 'class="verdict good"' not in text


def test_names_are_escaped_everywhere() -> None:
    text = report_html(with_name(NASTY))
    page = parse(text)
    assert len(list(page.iter("script"))) == 1
    assert [row[0] for row in rows(page, "tensors", "tensors")] == [SHOWN]
    assert rows(page, "preparation", "changes") == [[SHOWN] * 3]
    assert [text_of(item) for item in section(page, "warnings").iter("li")] == [SHOWN] * 2
    assert text_of(bars(page, "quality")[0]) == f"1  {SHOWN}: 12.0 dB"
    text.encode("utf-8")


def test_the_sqnr_chart_has_a_bar_for_every_layer(
    complete: ReportContent, page: ElementTree.Element
) -> None:
    drawn = bars(page, "quality")
    assert complete.evaluation is not None
    assert len(drawn) == len(complete.evaluation.layers)
    assert text_of(drawn[6]) == "7  features.1.dw: 14.1 dB"
    assert drawn[6].get("class") == "q1"
    assert drawn[0].get("class") == "exact"
    heights = [float(bar.get("height", "")) for bar in drawn]
    assert heights.index(min(heights)) == 6
    assert heights[6] / heights[10] == pytest.approx(
        14.1 / complete.sqnr["features.2.dw"], rel=0.01
    )
    labels = [
        text_of(t) for t in section(page, "quality").iter("text") if t.get("class") == "value"
    ]
    worst = sorted(complete.sqnr.values())[:5]
    assert sorted(map(float, labels)) == [round(value, 1) for value in worst]


def test_the_range_chart_marks_what_is_clipped(
    complete: ReportContent, page: ElementTree.Element
) -> None:
    drawn = bars(page, "ranges")
    assert (
        len(drawn) == len(complete.plan.layers) - 1
    )  # TopK's output has neither range nor encoding
    for group, layer in zip(drawn, complete.plan.layers, strict=False):
        seen, encoding = complete.observed(layer.output), complete.encoding(layer.output)
        assert seen is not None
        assert encoding is not None
        clipped = seen.maximum > 1.2 * float(encoding.maximum) or seen.minimum < 1.2 * float(
            encoding.minimum
        )
        assert (group.find("rect[@class='cut']") is not None) == clipped, layer.name


def test_histograms_show_the_lowest_ten(complete: ReportContent, page: ElementTree.Element) -> None:
    figures = list(section(page, "quality").iter("figure"))
    names = [text_of(figure.find("figcaption/code")) for figure in figures]  # type: ignore[arg-type]
    lowest = [
        name for name in sorted(complete.sqnr, key=complete.sqnr.__getitem__) if name != "topk"
    ]
    assert names == lowest[:10]
    assert all(len(list(figure.iter("line"))) == 3 for figure in figures)


def test_clipped_share_counts_what_lies_outside() -> None:
    uniform = replace(statistics(-1.0, 1.0, 0), counts=np.ones(2048, dtype=np.int64))
    assert clipped_share(uniform, (-1.0, 1.0)) == 0.0
    assert clipped_share(uniform, (-0.5, 1.0)) == 0.25
    assert clipped_share(uniform, (-0.5, 0.0)) == 0.75


def test_an_export_without_measurements_says_so() -> None:
    bare = replace(content(), statistics={}, encodings={}, evaluation=None, verification=None)
    page = parse(report_html(bare))
    assert "Accuracy was not evaluated" in text_of(page)
    assert "not verified in onnxruntime" in text_of(page)
    assert "not calibrated" in rows(page, "layers", "layers")[0][13]
    assert "The layers were not evaluated." in text_of(section(page, "quality"))
    assert len(rows(page, "tensors", "tensors")) == len(bare.plan.tensors)


def test_strange_values_do_not_break_charts(complete: ReportContent) -> None:
    values = [math.inf, -math.inf, math.nan, -12.0, 0.0]
    assert complete.evaluation is not None
    layers = tuple(
        replace(quality, distance=Distance(value, 0.0))
        for quality, value in zip(complete.evaluation.layers, values, strict=False)
    )
    page = parse(
        report_html(replace(complete, evaluation=replace(complete.evaluation, layers=layers)))
    )
    assert [text_of(bar).split(": ")[1] for bar in bars(page, "quality")] == [
        "exact", "−∞ dB", "−12.0 dB", "0.0 dB",
    ]  # fmt: skip
    for bar in bars(page, "quality"):
        assert math.isfinite(float(bar.get("y", "nan")))
        assert float(bar.get("height", "nan")) >= 2


def test_huge_models_stay_small_and_complete() -> None:
    huge = content(5000)
    text = report_html(huge)
    assert len(text.encode()) < 5_000_000
    page = parse(text)
    listed = [name for row in rows(page, "tensors", "decisions") for name in row[5].split(", ")]
    assert sorted(listed) == sorted(huge.plan.tensors)
    assert len(rows(page, "layers", "layers")) == 5000
    assert len(bars(page, "quality")) == len(bars(page, "ranges")) == 385
    assert "each of the 385 bars stands for 13 neighbours" in text_of(section(page, "quality"))
    assert "The worst 300 of 4\N{NARROW NO-BREAK SPACE}999 are shown." in text_of(
        section(page, "verification")
    )


def test_a_bar_for_many_layers_shows_the_lowest() -> None:
    page = parse(report_html(content(5000)))
    text = text_of(bars(page, "quality")[0])
    assert text == "features.1.dw (of 1 to 13): 14.1 dB"


def test_outliers_bend_the_scale() -> None:
    assert bending([1.0, 2.0, 3.0]) is None
    assert bending([1.0, 2.0, 100.0]) == 2.0
    linear, bent = Scale(-10, 10, 0, 200), Scale(-1000, 1000, 0, 200, bend=1.0)
    assert [linear(value) for value in (-10, 0, 5, 99)] == [200, 100, 50, 0]
    assert linear.ticks() == [-10, -5, 0, 5, 10]
    assert bent(0) == pytest.approx(100)
    assert bent(1000) == pytest.approx(0)
    assert bent(1) == pytest.approx(100 * (1 - math.asinh(1) / math.asinh(1000)))
    ticks = bent.ticks()
    assert {-1000, 0, 1000} <= set(ticks)
    assert all(bent(low) - bent(high) >= 14 for low, high in pairwise(ticks))


def test_colours_change_at_the_stated_limits() -> None:
    assert sqnr_class(-math.inf) == sqnr_class(9.99) == "q0"
    assert [sqnr_class(step) for step in SQNR_STEPS] == [f"q{k}" for k in range(1, 9)]
    assert sqnr_class(math.nan) == ""


def test_numbers_are_for_people() -> None:
    assert [number(v) for v in (0.0, -4.1234567, 0.0234567, 12345.6, 1.23456e-7)] == [
        "0", "−4.123", "0.02346", "12346", "1.235e−07",
    ]  # fmt: skip
    assert (decibels(38.24), decibels(math.inf), decibels(-math.inf)) == (
        "38.2 dB",
        "exact",
        "−∞ dB",
    )
    assert (share(1.0), share(0.99999), share(0.5)) == (
        "100\N{NO-BREAK SPACE}%",
        "99.99\N{NO-BREAK SPACE}%",
        "50.00\N{NO-BREAK SPACE}%",
    )
    assert (points(-0.8), points(0.001), points(1.5)) == ("−0.80", "±0.00", "+1.50")
    assert (size(812), size(5_012_345), size(2_500_000_000)) == ("812 B", "5.0 MB", "2.50 GB")


def test_a_python_model_is_named_by_its_factory() -> None:
    source = ModelSource(graph().source.path.with_name("net.py"), factory="make")
    page = parse(report_html(replace(content(), graph=replace(graph(), source=source))))
    assert text_of(page.find(".//h1")) == "net:make"  # type: ignore[arg-type]


def test_validation_says_what_stays_float_and_what_it_costs(complete: ReportContent) -> None:
    assert "validation" not in {part.get("id") for part in parse(report_html(complete)).iter()}
    silent = LayerCost("flatten", 0, 0, 0, 0)
    report = Validation(
        "onnxruntime",
        (
            Finding(Severity.ERROR, "weights", "w", "w holds NaN.", "Check the checkpoint.", "c"),
            Finding(Severity.NOTE, "shapes", "x", "The input x is N×3×h×w.", ""),
        ),
        (
            LayerReport("flatten", "Flatten", silent, True, ""),
            LayerReport("c", "Conv", LayerCost("c", 3_000_000, 192_000_000, 4000, 1000), True, ""),
            LayerReport("d", "Sub", LayerCost("d", None, None, 0, 0), False, "no <kernel>"),
        ),
        (FloatTensors("int64 is not float", tuple(f"t{i}" for i in range(30))),),
        (("x", "N×3×h×w"),),
        ("shape", "gather"),
    )
    page = parse(report_html(replace(complete, validation=report)))
    assert [row[0] for row in rows(page, "validation", "findings")] == ["error", "note"]
    assert rows(page, "validation", "findings")[0][2] == "w holds NaN. Check the checkpoint."
    costs = rows(page, "validation", "costs")
    assert [row[0] for row in costs] == ["d", "c", "flatten"], "unknown first, then the most"
    assert costs[0][2:5] == ["?", "–", "?"]
    assert costs[0][-1] == "float: no <kernel>"
    assert costs[1][3] == "100.0\N{NO-BREAK SPACE}%"
    (reason,) = rows(page, "validation", "reasons")
    assert reason[0] == "30"
    assert reason[2].endswith("t11 and 18 more")
    text = text_of(section(page, "validation"))
    assert "x N×3×h×w" in text
    assert "without 1 layer of unknown shape" in text
    assert "Without 2 layers of arithmetic of sizes." in text


def test_what_runtimes_make_of_the_file(complete: ReportContent) -> None:
    assert complete.verification is not None
    kernels = (
        KernelCheck("conv", Runs.INTEGER, "QLinearConv", Runs.INTEGER, "QLinearConv"),
        KernelCheck("silu", Runs.FLOAT, "", Runs.FLOAT, "Sigmoid", "SiLU has no integer kernel"),
        KernelCheck("add", Runs.INTEGER, "QLinearAdd", Runs.FLOAT, "Add", "int8 activations"),
    )
    runtimes = (
        RuntimeCheck("OpenVINO", "2026.4", 8, Distance(41.25, 0.9999)),
        RuntimeCheck("TensorRT", problem="not installed", command="trtexec --onnx=model.onnx"),
    )
    verification = replace(
        complete.verification,
        kernels=kernels,
        latency=Latency(4.0, 1.0, 30, 8),
        other_runtimes=runtimes,
        pair_overflows=(PairOverflow("conv", 40000, 0.25, 1, 4),),
    )
    html = report_html(replace(complete, verification=verification))
    for text in (
        "1 layer integer, 2 layers float",
        "SiLU has no integer kernel",
        "forecast: integer (QLinearAdd). int8 activations",
        "1.00 ms quantized, 4.00 ms float: ratio 0.25",
        "SQNR 41.2 dB on 8 samples",
        "trtexec --onnx=model.onnx",
        "1 layer may saturate",
    ):
        assert text in html
    silent = report_html(replace(complete, verification=complete.verification))
    assert "Which kernels run was not looked at." in silent
