"""The canvas as a user meets it: what is drawn, what keys and mouse do, what is signalled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QContextMenuEvent, QImage, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from studio.app.graph import CanvasEdge, CanvasNode, GraphView
from studio.app.graph.items import chunks, smooth
from studio.app.theme import LIGHT, apply_theme, contrast, current_theme, ramp


@dataclass
class Rows:
    """Boxes in rows by longest path."""

    centres: dict[str, tuple[float, float]] = field(default_factory=dict)
    routes: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)


def arrange(
    nodes: Sequence[tuple[str, float, float]],
    edges: Sequence[tuple[str, str]],
    *,
    gap_x: float,
    gap_y: float,
) -> Rows:
    rank = {name: 0 for name, _, _ in nodes}
    for source, target in edges:
        rank[target] = max(rank[target], rank[source] + 1)
    result, used = Rows(), {}
    for name, width, _ in nodes:
        column = used.setdefault(rank[name], 0)
        used[rank[name]] += 1
        result.centres[name] = (column * (width + gap_x), rank[name] * (48 + gap_y))
    for source, target in edges:
        (x0, y0), (x1, y1) = result.centres[source], result.centres[target]
        result.routes[source, target] = [(x0, y0 + 24), (x1, y1 - 24)]
    return result


NODES = [
    CanvasNode("x", "x", "1×3", shape="io"),
    CanvasNode("conv", "Conv + Clip", "features.0.conv", "W8 A8", QColor("#ff0000"), tooltip="tip"),
    CanvasNode("left", "Conv", "branch.left", "W4 A8"),
    CanvasNode("right", "Conv", "branch.right", "W8 A8"),
    CanvasNode("add", "Add", "join", "A8"),
]
EDGES = [
    CanvasEdge("x", "conv", "1×3×8×8"),
    CanvasEdge("conv", "left", "1×16×8×8"),
    CanvasEdge("conv", "right", "1×16×8×8"),
    CanvasEdge("left", "add"),
    CanvasEdge("right", "add"),
    CanvasEdge("add", "nowhere"),
]


@pytest.fixture
def view(qtbot) -> GraphView:  # type: ignore[no-untyped-def]
    result = GraphView()
    qtbot.addWidget(result)
    result.resize(900, 600)
    result.show()
    qtbot.waitExposed(result)
    result.set_graph(NODES, EDGES, arrange)
    result.setFocus()
    return result


def chain(count: int) -> tuple[list[CanvasNode], list[CanvasEdge]]:
    nodes = [
        CanvasNode(f"n{i}", "Conv", f"layer.{i}", "W8 A8", ramp(i / count)) for i in range(count)
    ]
    return nodes, [CanvasEdge(f"n{i}", f"n{i + 1}") for i in range(count - 1)]


def picture(view: GraphView) -> QImage:
    QApplication.processEvents()
    return view.viewport().grab().toImage()


def at(view: GraphView, name: str, dx: float = 0, dy: float = 0) -> QColor:
    """Colour at the middle of a box, or beside it."""
    spot = view.node_rect(name).center() + QPointF(dx, dy)
    return picture(view).pixelColor(spot.toPoint())


def center(view: GraphView, name: str) -> QPoint:
    return view.node_rect(name).center().toPoint()


def distinct(view: GraphView, name: str) -> int:
    """Number of colours inside a box: text makes many."""
    image = picture(view).copy(view.node_rect(name).toRect().adjusted(10, 4, -4, -4))
    return len({image.pixel(x, y) for x in range(image.width()) for y in range(image.height())})


def test_before_a_model_the_canvas_says_what_to_do(qtbot) -> None:  # type: ignore[no-untyped-def]
    view = GraphView()
    qtbot.addWidget(view)
    assert view.empty_text == "Open a model to see its graph."
    view.set_empty_text("No graph.")
    assert view.empty_text == "No graph."
    view.fit()
    QTest.keyClick(view, Qt.Key.Key_Down)
    assert view.current == ""


def test_boxes_have_stripe_text_and_badge(view: GraphView) -> None:
    assert view.empty_text == ""
    half = view.node_rect("conv").width() / 2
    assert at(view, "conv", dx=-half + 2).name() == "#ff0000"
    assert at(view, "left", dx=-half + 4).name() == current_theme().surface
    assert distinct(view, "conv") > 20
    badge = at(view, "conv", dx=half - 13, dy=-8)
    assert badge.name() == current_theme().accent_soft


def test_lines_join_the_boxes(view: GraphView) -> None:
    between = view.node_rect("x").bottom() + view.node_rect("conv").top()
    image = picture(view)
    y = int(between / 2)
    row = {image.pixelColor(x, y).name() for x in range(image.width())}
    assert len(row) > 1, "no line crosses the gap between two rows"


def test_click_selects_and_tells(view: GraphView, qtbot) -> None:  # type: ignore[no-untyped-def]
    with qtbot.waitSignal(view.selected) as signal:
        QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=center(view, "left"))
    assert signal.args == ["left"]
    assert view.current == "left"
    top = view.node_rect("left").height() / 2
    colors = {at(view, "left", dy=-top + shift).name() for shift in (-1, 0, 1)}
    assert current_theme().accent in colors
    assert "branch.left" in view.accessibleDescription()


def test_click_beside_a_box_keeps_the_selection(view: GraphView, qtbot) -> None:  # type: ignore[no-untyped-def]
    view.select("conv")
    with qtbot.assertNotEmitted(view.selected):
        QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(3, 300))
    assert view.current == "conv"


def test_select_by_the_window_is_silent_and_reveals(qtbot) -> None:  # type: ignore[no-untyped-def]
    view = GraphView()
    qtbot.addWidget(view)
    view.resize(500, 300)
    view.show()
    view.set_graph(*chain(60), arrange)
    with qtbot.assertNotEmitted(view.selected):
        view.select("n59")
    assert view.current == "n59"
    assert view.viewport().rect().contains(center(view, "n59"))
    view.select("no such box")
    assert view.current == ""


def test_a_box_selected_before_the_canvas_is_shown_is_in_view(qtbot) -> None:  # type: ignore[no-untyped-def]
    view = GraphView()
    qtbot.addWidget(view)
    view.set_graph(*chain(60), arrange)
    view.select("n59")
    view.resize(500, 300)
    view.show()
    assert view.zoom == 1.0
    assert view.viewport().rect().contains(center(view, "n59"))


def test_the_lines_of_the_selected_box_light_up_with_labels(view: GraphView) -> None:
    before = picture(view)
    view.select("conv")
    assert view._active_edges.labels == ["1×3×8×8", "1×16×8×8"]
    after = picture(view)
    accent = QColor(current_theme().accent).rgb()
    y = int((view.node_rect("x").bottom() + view.node_rect("conv").top()) / 2)
    row = [image.copy(0, y, image.width(), 1) for image in (before, after)]
    count = [sum(line.pixel(x, 0) == accent for x in range(line.width())) for line in row]
    assert count[0] == 0
    assert count[1] > 0


def test_arrow_keys_follow_the_lines(view: GraphView, qtbot) -> None:  # type: ignore[no-untyped-def]
    seen: list[str] = []
    view.selected.connect(seen.append)
    key = Qt.Key
    for press in (
        key.Key_Down, key.Key_Down, key.Key_Down, key.Key_Right, key.Key_Right, key.Key_Left,
        key.Key_Down, key.Key_Down, key.Key_Up, key.Key_Home, key.Key_Up, key.Key_End,
    ):  # fmt: skip
        QTest.keyClick(view, press)
    assert seen == ["x", "conv", "left", "right", "left", "add", "left", "x", "add"]


def test_enter_and_double_click_activate(view: GraphView, qtbot) -> None:  # type: ignore[no-untyped-def]
    view.select("add")
    with qtbot.waitSignal(view.activated) as signal:
        QTest.keyClick(view, Qt.Key.Key_Return)
    assert signal.args == ["add"]
    with qtbot.waitSignal(view.activated) as signal:
        QTest.mouseDClick(view.viewport(), Qt.MouseButton.LeftButton, pos=center(view, "right"))
    assert signal.args == ["right"]


def test_keys_with_ctrl_are_left_to_the_window(view: GraphView) -> None:
    before = view.zoom
    QTest.keyClick(view, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClick(view, Qt.Key.Key_Minus, Qt.KeyboardModifier.ControlModifier)
    assert view.zoom == before


def test_zoom_keys_and_fit(view: GraphView) -> None:
    QTest.keyClick(view, Qt.Key.Key_0)
    assert view.zoom == pytest.approx(1.0)
    QTest.keyClick(view, Qt.Key.Key_Plus)
    assert view.zoom == pytest.approx(1.25)
    QTest.keyClick(view, Qt.Key.Key_Minus)
    assert view.zoom == pytest.approx(1.0)
    view.resize(300, 200)
    QTest.keyClick(view, Qt.Key.Key_F)
    assert view.zoom < 1
    shown = view.viewport().rect()
    assert all(shown.contains(view.node_rect(node.id).toRect()) for node in NODES)


@pytest.mark.parametrize("turn", [120, -120, 480])
def test_the_wheel_zooms_about_the_pointer(view: GraphView, turn: int) -> None:
    spot = QPointF(center(view, "right"))
    under = view.mapToScene(spot.toPoint())
    event = QWheelEvent(
        spot,
        view.viewport().mapToGlobal(spot),
        QPoint(),
        QPoint(0, turn),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    before = view.zoom
    QApplication.sendEvent(view.viewport(), event)
    assert view.zoom == pytest.approx(before * 1.25 ** (turn / 120))
    moved = view.mapFromScene(under) - spot.toPoint()
    assert moved.manhattanLength() <= 3


def test_dragging_pans_and_does_not_select(view: GraphView, qtbot) -> None:  # type: ignore[no-untyped-def]
    before = view.node_rect("conv").topLeft()
    with qtbot.assertNotEmitted(view.selected):
        QTest.mousePress(view.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(20, 300))
        for step in (10, 40, 80):
            QTest.mouseMove(view.viewport(), QPoint(20 + step, 300 - step // 2))
        QTest.mouseRelease(view.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(100, 260))
    moved = view.node_rect("conv").topLeft() - before
    assert (moved.x(), moved.y()) == (pytest.approx(80, abs=1), pytest.approx(-40, abs=1))


def test_context_menu_names_the_box(view: GraphView, qtbot) -> None:  # type: ignore[no-untyped-def]
    spot = center(view, "right")
    where = view.viewport().mapToGlobal(spot)
    event = QContextMenuEvent(QContextMenuEvent.Reason.Mouse, spot, where)
    with qtbot.waitSignal(view.context_menu_requested) as signal:
        QApplication.sendEvent(view.viewport(), event)
    assert signal.args == ["right", where]
    assert view.current == "right"


def test_find_needs_every_word_and_outlines(view: GraphView) -> None:
    assert view.find("conv") == ["conv", "left", "right"]
    assert view.find("w4 CONV") == ["left"]
    edge = view.node_rect("left").height() / 2
    assert current_theme().accent in {at(view, "left", dy=edge + d).name() for d in (-1, 0, 1)}
    assert view.find("") == []
    assert current_theme().accent not in {at(view, "left", dy=edge + d).name() for d in (-1, 0, 1)}


def test_update_nodes_changes_colour_and_badge_in_place(view: GraphView) -> None:
    place = view.node_rect("conv")
    view.update_nodes(
        {"conv": replace(NODES[1], color=QColor("#00ff00"), badge="W4 A16"), "gone": NODES[2]}
    )
    assert view.node_rect("conv") == place
    assert at(view, "conv", dx=-place.width() / 2 + 2).name() == "#00ff00"
    assert view.find("a16") == ["conv"]


def test_far_away_boxes_are_plain_and_coloured(view: GraphView) -> None:
    view.set_zoom(0.3)
    view.select("", center=False)
    assert distinct(view, "conv") == 1
    assert at(view, "conv").name() == "#ff0000"


def test_the_theme_recolours_at_once(view: GraphView, qapp) -> None:  # type: ignore[no-untyped-def]
    apply_theme(qapp, LIGHT)
    half = view.node_rect("left").width() / 2
    assert at(view, "left", dx=-half + 4).name() == LIGHT.surface
    assert picture(view).pixelColor(2, 2).name() == LIGHT.background


def test_the_minimap_frames_the_view_and_moves_it(qtbot) -> None:  # type: ignore[no-untyped-def]
    view = GraphView()
    qtbot.addWidget(view)
    view.resize(500, 400)
    view.show()
    view.set_graph(*chain(80), arrange)
    assert view.minimap.isVisible()
    assert view.viewport().rect().contains(center(view, "n0"))
    image = view.minimap.grab().toImage()
    ratio = view.minimap.HEIGHT // 2
    middle = {image.pixelColor(48, y).name() for y in range(ratio - 10, ratio + 10)}
    assert any(min(contrast(ramp(t / 40), name) for t in range(15, 25)) < 1.1 for name in middle)
    QTest.mouseClick(view.minimap, Qt.MouseButton.LeftButton, pos=QPoint(48, 160))
    assert view.viewport().rect().contains(center(view, "n79"))
    view.fit()
    assert not view.minimap.isVisible()


def test_a_narrow_canvas_keeps_the_boxes_clear_of_the_minimap(qtbot) -> None:  # type: ignore[no-untyped-def]
    view = GraphView()
    qtbot.addWidget(view)
    view.resize(420, 500)
    view.show()
    view.set_graph(*chain(80), arrange)
    covered = view.minimap.geometry()
    assert view.minimap.isVisible()
    assert view.node_rect("n0").left() > covered.right()
    view.select("n70")
    assert view.node_rect("n70").left() > covered.right()
    assert view.node_rect("n70").right() <= 420


def test_the_legend_stands_above_the_minimap_and_clear_of_the_boxes(qtbot) -> None:  # type: ignore[no-untyped-def]
    view = GraphView()
    qtbot.addWidget(view)
    view.resize(420, 500)
    view.show()
    view.set_graph(*chain(80), arrange)
    view.set_legend("SQNR in dB", "10", "45")
    view.select("n40")
    assert view.legend.geometry().bottom() < view.minimap.geometry().top()
    assert view.node_rect("n40").left() > view.legend.geometry().right()
    view.resize(380, 500)
    assert view.node_rect("n40").left() > view.legend.geometry().right()
    view.fit()
    assert view.legend.geometry().bottom() > view.minimap.geometry().top()


def test_only_the_keyboard_gives_the_canvas_a_frame(view: GraphView) -> None:
    def frame() -> str:
        QApplication.processEvents()
        return view.grab().toImage().pixelColor(0, 200).name()

    view.clearFocus()
    QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(5, 5))
    view.setFocus(Qt.FocusReason.MouseFocusReason)
    assert frame() != current_theme().accent
    view.clearFocus()
    view.setFocus(Qt.FocusReason.TabFocusReason)
    assert frame() == current_theme().accent


def test_the_legend_shows_the_scale(view: GraphView) -> None:
    assert not view.legend.isVisible()
    view.set_legend("output SQNR", "10 dB", "45 dB")
    assert view.legend.isVisible()
    assert view.legend.accessibleName() == "Colours: output SQNR, 10 dB to 45 dB"
    image = view.legend.grab().toImage()
    row = [image.pixelColor(x, 27) for x in range(image.width())]
    assert ramp(0) in row
    assert ramp(1) in row
    assert row.index(ramp(0)) < row.index(ramp(1))
    view.clear_legend()
    assert not view.legend.isVisible()


def test_a_second_graph_replaces_the_first(view: GraphView) -> None:
    view.select("conv")
    view.find("conv")
    view.set_graph(*chain(3), arrange)
    assert view.current == ""
    assert view.find("layer") == ["n0", "n1", "n2"]
    view.clear_graph()
    assert view.empty_text
    assert view.find("layer") == []


def test_self_loops_and_double_edges_do_no_harm(view: GraphView) -> None:
    nodes = [CanvasNode("a", "A"), CanvasNode("b", "B")]
    edges = [CanvasEdge("a", "b", "one"), CanvasEdge("a", "b", "two"), CanvasEdge("b", "b")]

    def without_loops(boxes, pairs, **gaps):  # type: ignore[no-untyped-def]
        return arrange(boxes, [pair for pair in pairs if pair[0] != pair[1]], **gaps)

    view.set_graph(nodes, edges, without_loops)
    view.select("b")
    assert view._active_edges.labels == ["one", "two"]


@pytest.mark.parametrize("count", [1000, 5000])
def test_large_graphs_are_drawn(qtbot, count: int) -> None:  # type: ignore[no-untyped-def]
    view = GraphView()
    qtbot.addWidget(view)
    view.resize(900, 600)
    view.show()
    nodes, edges = chain(count)
    ready = arrange(
        [(node.id, 232.0, 48.0) for node in nodes],
        [(edge.source, edge.target) for edge in edges],
        gap_x=30,
        gap_y=30,
    )
    view.set_graph(nodes, edges, lambda *_, **__: ready)
    view.viewport().repaint()
    view.select(nodes[-1].id)
    assert view.current == nodes[-1].id


def test_lines_start_and_end_where_they_should() -> None:
    path = smooth([(0, 0), (0, 50), (80, 100)])
    assert path.pointAtPercent(0) == QPointF(0, 0)
    assert path.pointAtPercent(1) == QPointF(80, 100)
    lines = [[(0.0, y), (0.0, y + 30)] for y in range(0, 10000, 50)]
    assert len(chunks(lines)) < 10
    total = sum(path.length() for path in chunks(lines))
    assert total == pytest.approx(30 * len(lines))
