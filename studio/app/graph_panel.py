"""The graph of layers: boxes from the plan, colours from the overlay, selection both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QMenu, QToolButton, QVBoxLayout, QWidget

from studio.app import text
from studio.app.actions import Actions
from studio.app.graph import CanvasEdge, CanvasNode, GraphView
from studio.app.overlay import bits_color, layer_sqnr, sqnr_scale
from studio.app.session import Session
from studio.app.widgets import label, menu_button

if TYPE_CHECKING:
    from studio.project.document import Document
    from studio.sim.plan import Layer, Plan

COLORS = {"none": "none", "bits": "bits", "sqnr": "SQNR"}


def badge(layer: Layer, plan: Plan) -> str:
    """`W8 A8`, `A8`, or a dash for a layer that stays in float."""
    parts = []
    settings = layer.settings
    if settings.weight_bits is not None and settings.weight_enabled is not False:
        parts.append(f"W{settings.weight_bits}")
    tensor = plan.tensors.get(layer.output)
    if tensor is not None and tensor.spec is not None:
        parts.append(f"A{tensor.spec.grid.bits}")
    return " ".join(parts) or "—"


def canvas_edges(plan: Plan) -> list[CanvasEdge]:
    """A line for every activation from the layer that makes it to a layer that reads it."""
    makers = {tensor: layer.name for layer in plan.layers for tensor in layer.outputs}
    return [
        CanvasEdge(makers[tensor], layer.name, tensor)
        for layer in plan.layers
        for tensor in layer.inputs
        if makers.get(tensor, layer.name) != layer.name
    ]


class GraphPanel(QWidget):
    """`bar` holds search, colour and fit, and is placed beside the tabs."""

    def __init__(self, session: Session, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._actions = actions
        self._color = "sqnr"
        self._shown: object = None
        self.view = GraphView()
        self.view.setAccessibleName("Graph of layers")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.view)
        self._build_bar()
        self.view.selected.connect(lambda name: session.select((name,)))
        session.opened.connect(self._forget)
        session.document_changed.connect(self.refresh)
        session.selection_changed.connect(self._select)
        self.refresh()

    def _build_bar(self) -> None:
        self.bar = QWidget()
        self.search = QLineEdit(placeholderText="Find layer")
        self.search.setAccessibleName("Find layer in the graph")
        self.search.setClearButtonEnabled(True)
        self.search.setFixedWidth(150)
        self.search.setProperty("role", "chip")
        self.search.textEdited.connect(lambda words: self.find_layer(words, 0))
        self.search.returnPressed.connect(lambda: self.find_layer(self.search.text(), 1))
        leave = QShortcut(QKeySequence(Qt.Key.Key_Escape), self.search)
        leave.setContext(Qt.ShortcutContext.WidgetShortcut)
        leave.activated.connect(self._leave_search)
        self.found = label("", "muted")
        self.color = menu_button("Colour of the graph", "chip")
        self.color.setMenu(QMenu(self.color))
        for name in COLORS:
            self.color.menu().addAction(self._actions[f"color_{name}"])
        fit = QToolButton()
        fit.setText("Fit")
        fit.setAccessibleName("Show the whole graph")
        fit.setToolTip(self._actions["fit"].toolTip())
        fit.setProperty("role", "chip")
        fit.clicked.connect(self.view.fit)
        layout = QHBoxLayout(self.bar)
        layout.setContentsMargins(0, 0, 8, 0)
        layout.setSpacing(6)
        for widget in (self.found, self.search, self.color, fit):
            layout.addWidget(widget, 0, Qt.AlignmentFlag.AlignVCenter)

    # -- content -------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._shown = None
        self.search.clear()
        self.found.setText("")

    def set_color(self, name: str) -> None:
        """Colour by "none", "bits" or "sqnr"."""
        self._color = name
        self.refresh()

    def refresh(self) -> None:
        """Lay the graph out anew if the layers changed, else only update the boxes."""
        document = self._session.document
        self.color.setText(f"Colour: {COLORS[self._color]}")
        if document is None:
            self.view.clear_graph()
            self._shown = None
            return
        nodes = self._nodes(document)
        shape = tuple((node.id, node.title) for node in nodes)
        if shape != self._shown:
            from studio.graph.layout import layout

            self.view.set_graph(nodes, canvas_edges(document.plan), layout)
            self._shown = shape
            self._select(self._session.selection)
        else:
            self.view.update_nodes({node.id: node for node in nodes})
        self._show_legend(document)

    def _nodes(self, document: Document) -> list[CanvasNode]:
        sqnr = layer_sqnr(document)
        scale = sqnr_scale(sqnr)
        nodes = []
        for layer in document.plan.layers:
            color = None
            tip = [layer.name, layer.title]
            if self._color == "sqnr" and layer.name in sqnr:
                color = scale.color(sqnr[layer.name])
            elif self._color == "bits":
                color = bits_color(layer.settings.weight_bits or layer.settings.act_bits)
            if layer.name in sqnr:
                tip.append(f"SQNR {text.decibels(sqnr[layer.name])}")
            if layer.note:
                tip.append(layer.note)
            is_input = layer.ops == ("Input",)
            nodes.append(
                CanvasNode(
                    id=layer.name,
                    title=layer.title,
                    subtitle=layer.name,
                    badge=badge(layer, document.plan),
                    color=color,
                    shape="io" if is_input else "layer",
                    tooltip="\n".join(tip),
                )
            )
        return nodes

    def _show_legend(self, document: Document) -> None:
        sqnr = layer_sqnr(document)
        if self._color == "sqnr" and sqnr:
            scale = sqnr_scale(sqnr)
            self.view.set_legend("SQNR in dB", f"{scale.low:.0f}", f"{scale.high:.0f}")
        elif self._color == "bits":
            self.view.set_legend("bits", "2", "8 +")
        else:
            self.view.clear_legend()

    # -- selection and search ------------------------------------------------------------------

    def _select(self, names: tuple[str, ...]) -> None:
        current = names[-1] if names else ""
        if self.view.current != current:
            self.view.select(current)

    def focus_search(self) -> None:
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def _leave_search(self) -> None:
        """Back to the graph, nothing outlined."""
        self.search.clear()
        self.find_layer("", 0)
        self.view.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def find_layer(self, words: str, step: int) -> None:
        """Select the first box that matches, or with `step` 1 the next one after the selected."""
        matches = self.view.find(words)
        if not matches:
            self.found.setText("No match" if words.strip() else "")
            return
        current = self._session.current
        index = (matches.index(current) + step) % len(matches) if current in matches else 0
        self.found.setText(f"{index + 1} of {len(matches)}")
        self._session.select((matches[index],))
