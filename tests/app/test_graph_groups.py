"""Recognised layers and blocks in the window: one box each, opened and closed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from studio.app.graph import CanvasEdge, CanvasNode, GraphView
from studio.app.graph.nested import arrange_nested
from studio.app.layers.columns import OP
from studio.graph.layout import layout
from studio.project import steps

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 6, 8] x) => (float[n, 6, 8] y)
<float half = {0.5}, float one = {1.0}, float two = {2.0}, float root2 = {ROOT2}> {
    m = MatMul(x, w)
    t = Transpose<perm = [0, 2, 1]>(m)
    s = MatMul(m, t)
    d = Div(s, two)
    p = Softmax<axis = -1>(d)
    a = MatMul(p, m)
    e1 = Div(a, root2)
    e2 = Erf(e1)
    e3 = Add(e2, one)
    e4 = Mul(a, e3)
    g1 = Mul(e4, half)
    y = Relu(g1)
}""".replace("ROOT2", str(math.sqrt(2)))
NAMES = ("lin", "kT", "qk", "scale", "soft", "pv", "div", "erf", "plus", "times", "half", "end")


@pytest.fixture(scope="module")
def document(tmp_path_factory):  # type: ignore[no-untyped-def]
    """A small attention with a GELU behind it."""
    model = onnx.parser.parse_model(MODEL)
    for node, name in zip(model.graph.node, NAMES, strict=True):
        node.name = name
    weight = np.eye(8, dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path: Path = tmp_path_factory.mktemp("groups") / "model.onnx"
    onnx.save(model, path)
    return steps.open_document(path)


@pytest.fixture
def graph(window, document):  # type: ignore[no-untyped-def]
    window.session.show(document)
    return window.workspace.graph


def shown(graph) -> list[str]:  # type: ignore[no-untyped-def]
    return list(graph.view._items)


def edges(graph) -> set[tuple[str, str]]:  # type: ignore[no-untyped-def]
    return {(edge.source, edge.target) for edge in graph.view._edges}


def test_groups_are_one_box_each(graph) -> None:  # type: ignore[no-untyped-def]
    assert shown(graph) == ["x", "lin", "block:Attention", "half", "end"]
    titles = [graph.view.node(name).title for name in shown(graph)]
    assert titles == ["Input", "MatMul", "Attention", "GELU", "Relu"]
    assert edges(graph) == {
        ("x", "lin"), ("lin", "block:Attention"), ("block:Attention", "half"), ("half", "end"),
    }  # fmt: skip


def test_opened_boxes_show_what_is_inside_and_lines_reach_it(graph) -> None:  # type: ignore[no-untyped-def]
    graph.toggle("block:Attention")
    graph.toggle("half")
    assert shown(graph) == [
        "x", "lin", "block:Attention", "kT", "qk", "soft", "pv",
        "half", "op:div", "op:erf", "op:plus", "op:times", "op:half", "end",
    ]  # fmt: skip
    assert {("lin", "kT"), ("lin", "qk"), ("kT", "qk"), ("lin", "pv")} < edges(graph)
    assert {("pv", "op:div"), ("pv", "op:times"), ("op:half", "end")} < edges(graph)
    frame = graph.view.node_rect("half")
    for name in ("op:div", "op:half"):
        assert frame.contains(graph.view.node_rect(name))
    assert not frame.intersects(graph.view.node_rect("end"))
    for edge, line in zip(graph.view._edges, graph.view._lines, strict=True):
        start, end = (graph.view._items[name].pos() for name in (edge.source, edge.target))
        assert line[0][0] == pytest.approx(start.x())
        assert line[-1][0] == pytest.approx(end.x())
    graph.toggle("block:Attention")
    graph.toggle("half")
    assert len(shown(graph)) == 5


def test_expand_and_collapse_all(graph) -> None:  # type: ignore[no-untyped-def]
    graph.groups.menu().actions()[0].trigger()
    assert "op:scale" in shown(graph), "the Softmax inside the attention is open as well"
    graph.groups.menu().actions()[1].trigger()
    assert len(shown(graph)) == 5


def test_button_double_click_and_space_open(graph, window, qtbot) -> None:  # type: ignore[no-untyped-def]
    view = graph.view
    item = view._items["half"]
    spot = view.mapFromScene(item.mapToScene(item.button.center()))
    top = view.node_rect("half").top()
    QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    assert "op:erf" in shown(graph)
    assert view.node_rect("half").top() == pytest.approx(top, abs=2)
    header = view.node_rect("half").topLeft().toPoint() + QPoint(40, 12)
    QTest.mouseDClick(view.viewport(), Qt.MouseButton.LeftButton, pos=header)
    assert "op:erf" not in shown(graph)
    window.session.select(("half",))
    QTest.keyClick(view, Qt.Key.Key_Space)
    assert "op:erf" in shown(graph)


def test_search_opens_what_it_finds(graph, window) -> None:  # type: ignore[no-untyped-def]
    graph.find_layer("erf", 0)
    assert graph.view.current == "op:erf"
    assert window.session.selection == ("half",)
    assert "block:Attention" in shown(graph)
    assert "pv" not in shown(graph), "nothing else is opened"
    graph.find_layer("gelu", 0)
    assert graph.view.current == "half"


def test_selecting_a_layer_elsewhere_opens_its_block(graph, window) -> None:  # type: ignore[no-untyped-def]
    window.session.select(("soft",))
    assert graph.view.current == "soft"
    assert "block:Attention" in shown(graph)


def test_a_block_stands_for_its_layers(graph, window) -> None:  # type: ignore[no-untyped-def]
    spot = graph.view.node_rect("block:Attention").center().toPoint()
    QTest.mouseClick(graph.view.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    assert window.session.selection == ("kT", "qk", "soft", "pv")
    assert shown(graph)[2] == "block:Attention"
    assert "soft" not in shown(graph), "selecting a block does not open it"


def test_table_and_inspector_name_the_kind_and_list_the_operators(graph, window) -> None:  # type: ignore[no-untyped-def]
    model = window.workspace.layers.model
    index = model.index(model.row("half"), OP)
    assert index.data() == "GELU"
    assert index.data(Qt.ItemDataRole.ToolTipRole) == "Div + Erf + Add + Mul + Mul"
    window.session.select(("half",))
    inspector = window.workspace.inspector
    assert inspector.subtitle.text() == "GELU"
    from studio.app.inspector import facts

    rows = dict(facts.facts(window.session.document, window.session.document.plan.layer("half")))
    assert rows["Operators"] == "Div, Erf, Add, Mul, Mul"


def test_recognition_is_listed_among_the_changes(window, graph) -> None:  # type: ignore[no-untyped-def]
    changes = window.session.document.graph.changes
    assert [c.layer for c in changes if c.rule == "recognise GELU"] == ["half"]
    assert [c.layer for c in changes if c.rule == "recognise attention"] == ["soft", "Attention"]


def test_operator_boxes_lead_to_their_layer(graph, window) -> None:  # type: ignore[no-untyped-def]
    graph.toggle("half")
    graph.view.activated.emit("op:erf")
    assert window.session.selection == ("half",)
    assert window.workspace.bottom.current == "layers"


def test_frames_hold_their_boxes_whatever_lies_around(qtbot) -> None:  # type: ignore[no-untyped-def]
    """Two levels of frames between other boxes: no box overlaps a frame it is not in."""
    nodes = [
        CanvasNode("a", "A"),
        CanvasNode("outer", "Outer", shape="frame"),
        CanvasNode("b", "B", parent="outer"),
        CanvasNode("inner", "Inner", shape="frame", parent="outer"),
        CanvasNode("c", "C", parent="inner"),
        CanvasNode("d", "D", parent="inner"),
        CanvasNode("beside", "Beside"),
        CanvasNode("e", "E"),
    ]
    lines = [("a", "b"), ("b", "c"), ("a", "d"), ("c", "d"), ("a", "beside"), ("d", "e"),
             ("beside", "e"), ("b", "e")]  # fmt: skip
    result = arrange_nested(nodes, [CanvasEdge(*line) for line in lines], layout)

    def rect(name: str) -> tuple[float, float, float, float]:
        (x, y), (width, height) = result.centres[name], result.sizes[name]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def within(inside: str, frame: str) -> bool:
        small, large = rect(inside), rect(frame)
        return (
            large[0] < small[0]
            and large[1] < small[1]
            and small[2] < large[2]
            and small[3] < large[3]
        )

    def apart(one: str, other: str) -> bool:
        p, q = rect(one), rect(other)
        return p[2] <= q[0] or q[2] <= p[0] or p[3] <= q[1] or q[3] <= p[1]

    assert within("b", "outer")
    assert within("inner", "outer")
    assert within("c", "inner")
    assert within("d", "inner")
    assert all(apart(name, "outer") for name in ("a", "beside", "e"))
    assert apart("b", "inner")
    for source, target in lines:
        points = result.routes[source, target]
        assert points[0] == pytest.approx((result.centres[source][0], rect(source)[3]))
        assert points[-1] == pytest.approx((result.centres[target][0], rect(target)[1]))


def test_frames_are_drawn_under_their_boxes(qtbot) -> None:  # type: ignore[no-untyped-def]
    view = GraphView()
    qtbot.addWidget(view)
    view.resize(700, 500)
    view.show()
    nodes = [
        CanvasNode("f", "Frame", "name", shape="frame", toggle=True),
        CanvasNode("b", "Box", parent="f"),
    ]
    view.set_graph(nodes, [], layout)
    QApplication.processEvents()
    assert view.node_at(view.node_rect("b").center().toPoint()) == "b"
    corner = view.node_rect("f").topLeft().toPoint() + QPoint(20, 15)
    assert view.node_at(corner) == "f"
    with qtbot.waitSignal(view.toggled) as signal:
        item = view._items["f"]
        spot = view.mapFromScene(item.mapToScene(item.button.center()))
        QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    assert signal.args == ["f"]
