"""The window's content while a model is open."""

from __future__ import annotations

from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QHBoxLayout, QMenu, QSplitter, QVBoxLayout, QWidget

from studio.app import reports
from studio.app.actions import Actions
from studio.app.forecast_panel import ForecastPanel
from studio.app.graph_panel import GraphPanel
from studio.app.improve.panel import ImprovePanel
from studio.app.inspector.panel import InspectorPanel
from studio.app.layers.panel import LayersPanel
from studio.app.log_panel import LogPanel
from studio.app.netron_tab import NetronTab
from studio.app.preparation_panel import PreparationPanel
from studio.app.ranges_panel import RangesPanel
from studio.app.report.tab import ReportTab
from studio.app.sensitivity.panel import SensitivityPanel
from studio.app.session import Session
from studio.app.settings import ViewSettings
from studio.app.tab_area import TabArea
from studio.app.text_table import TextTable
from studio.app.top_bar import TopBar
from studio.app.training.panel import TrainingPanel
from studio.app.validation_panel import ValidationPanel
from studio.app.workflow import WorkflowPanel

WORKFLOW_WIDTH, INSPECTOR_WIDTH = 182, 322


class Workspace(QWidget):
    """Workflow, graph and plots, tables, inspector; sizes are remembered in the settings."""

    def __init__(
        self,
        session: Session,
        actions: Actions,
        settings: ViewSettings,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._settings = settings
        self._stale: set[str] = set()
        self.top_bar = TopBar(session, actions)
        self.workflow = WorkflowPanel(session, actions)
        self.graph = GraphPanel(session, actions)
        self.ranges = RangesPanel(session)
        self.netron = NetronTab(session)
        self.improve = ImprovePanel(session)
        self.training = TrainingPanel(session)
        self.report = ReportTab(session, settings)
        self.layers = LayersPanel(session)
        self.tensors = TextTable(
            "Tensors",
            reports.TENSOR_TITLES,
            (250, 110, 220, 240, 150, 100),
            "No tensors.",
        )
        self.preparation = PreparationPanel(session)
        self.validation = ValidationPanel(session)
        self.sensitivity = SensitivityPanel(session, actions)
        self.forecast = ForecastPanel(session)
        self.problems = TextTable("Problems", reports.PROBLEM_TITLES, (110,), "No problems.")
        self.log = LogPanel(actions)
        self.inspector = InspectorPanel(session)
        self._build()
        self.validation.counted.connect(
            lambda count: self.bottom.set_title("validation", f"Validation {count}")
        )
        self.forecast.counted.connect(self._show_float_count)
        self.forecast.refresh()
        tables = (self.tensors, self.preparation, self.validation, self.sensitivity, self.forecast)
        for table in tables:
            table.layer_chosen.connect(lambda name: session.select((name,)))
        self.improve.layer_chosen.connect(lambda name: session.select((name,)))
        self.improve.offered.connect(lambda: self.center.show_page("improve"))
        self.improve.curves_wanted.connect(lambda: self.center.show_page("training"))
        self.training.improve_wanted.connect(lambda: self.center.show_page("improve"))
        self.training.started.connect(lambda: self.center.show_page("training"))
        self.layers.sizes.toggled.connect(self.graph.show_sizes)
        self.graph.activated.connect(self._edit_layer)
        self.graph.view.context_menu_requested.connect(self._graph_menu)
        session.document_changed.connect(self.refresh)
        session.warned.connect(lambda _message: self._show_problems())
        self.refresh()

    def _build(self) -> None:
        self.middle = QSplitter(Qt.Orientation.Horizontal)
        self.middle.setChildrenCollapsible(False)
        self.middle.addWidget(self.graph)
        self.middle.addWidget(self.ranges)
        self.graph.setMinimumWidth(370)  # a box beside the minimap
        self.middle.setSizes([440, 560])
        self.center = TabArea("Views of the model")
        self.center.add("graph", "Graph", self.middle, self.graph.bar)
        self.center.add("netron", "Netron", self.netron)
        self.center.add("improve", "Improve", self.improve)
        self.center.add("training", "Training", self.training)
        self.center.add("report", "Report", self.report, self.report.bar)
        self.bottom = TabArea("Tables")
        self.bottom.add("layers", "Layers", self.layers, self.layers.bar)
        self.bottom.add("tensors", "Tensors", self.tensors, self.tensors.bar)
        self.bottom.add("preparation", "Preparation", self.preparation, self.preparation.bar)
        self.bottom.add("validation", "Validation", self.validation, self.validation.bar)
        self.bottom.add("sensitivity", "Sensitivity", self.sensitivity, self.sensitivity.bar)
        self.bottom.add("forecast", "Forecast", self.forecast, self.forecast.bar)
        self.bottom.add("problems", "Problems", self.problems, self.problems.bar)
        self.bottom.add("log", "Log", self.log, self.log.bar)
        self.bottom.shown.connect(lambda _name: self._refresh_tables())
        self.vertical = QSplitter(Qt.Orientation.Vertical)
        self.vertical.setChildrenCollapsible(False)
        self.vertical.addWidget(self.center)
        self.vertical.addWidget(self.bottom)
        self.vertical.setSizes([620, 260])
        self.vertical.setStretchFactor(0, 1)
        self.horizontal = QSplitter(Qt.Orientation.Horizontal)
        for panel in (self.workflow, self.vertical, self.inspector):
            self.horizontal.addWidget(panel)
        self.horizontal.setSizes([WORKFLOW_WIDTH, 1056, INSPECTOR_WIDTH])
        self.horizontal.setStretchFactor(1, 1)
        self.horizontal.setCollapsible(1, False)
        self.workflow.setMinimumWidth(150)
        self.inspector.setMinimumWidth(260)
        for name, splitter in self._splitters():
            state = self._settings.state(name)
            if state is not None:
                splitter.restoreState(state)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.horizontal)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.top_bar)
        layout.addLayout(row, 1)

    def _show_float_count(self, count: int) -> None:
        self.bottom.set_title("forecast", f"Forecast {count} float" if count else "Forecast")

    def _edit_layer(self, name: str) -> None:
        """Go from a box of the graph to its row."""
        self._session.select((name,))
        self.bottom.show_page("layers")
        self.layers.table.setFocus()

    def _graph_menu(self, name: str, position: QPoint) -> None:
        if name:
            menu = QMenu(self)
            menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            self.layers.fill_menu(menu)
            menu.popup(position)

    def _splitters(self) -> tuple[tuple[str, QSplitter], ...]:
        return (
            ("horizontal", self.horizontal),
            ("vertical", self.vertical),
            ("middle", self.middle),
            ("ranges", self.ranges.split),
            ("preparation", self.preparation.split),
            ("sensitivity", self.sensitivity.split),
            ("improve", self.improve.split),
        )

    def save_state(self) -> None:
        """Remember the sizes."""
        for name, splitter in self._splitters():
            self._settings.set_state(name, splitter.saveState())

    def refresh(self) -> None:
        """Numbers in the tabs now, long tables when they are looked at."""
        document = self._session.document
        self._stale = {"tensors", "preparation"}
        if document is None:
            return
        self.bottom.set_title(
            "layers", f"Layers {len(document.plan.layers) - len(document.shape_layers)}"
        )
        self.bottom.set_title("tensors", f"Tensors {len(document.plan.tensors)}")
        self.bottom.set_title("preparation", f"Preparation {len(document.graph.changes)}")
        self._show_problems()
        self._refresh_tables()

    def _show_problems(self) -> None:
        document = self._session.document
        if document is not None:
            rows = reports.problem_rows(document, self._session.job_warnings)
            self.problems.set_rows(rows)
            self.bottom.set_title("problems", f"Problems {len(rows)}")

    def _refresh_tables(self) -> None:
        document = self._session.document
        page = self.bottom.current
        if document is None or page not in self._stale:
            return
        self._stale.discard(page)
        if page == "tensors":
            self.tensors.set_rows(reports.tensor_rows(document))
        else:
            self.preparation.refresh()
