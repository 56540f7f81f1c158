"""Activation ranges of all tensors, live while calibrating, and the weights of the layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QSplitter, QVBoxLayout, QWidget

from studio.app.plots import RangePlot, WeightRangePlot
from studio.app.session import Session
from studio.app.widgets import elided
from studio.jobs import CancelToken, Emit, TensorRanges

if TYPE_CHECKING:
    from studio.graph.model import ModelGraph
    from studio.project.document import Document

WeightRanges = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def channel_ranges(graph: ModelGraph, tensor: str, axis: int) -> WeightRanges:
    """Minimum and maximum of every channel of a constant along `axis`, (channels,) each."""
    values = np.moveaxis(graph.constant(tensor), axis, 0)
    flat = values.reshape(values.shape[0], -1).astype(np.float64)
    return flat.min(axis=1), flat.max(axis=1)


class RangesPanel(QWidget):
    """Two plots above each other; a click in the upper one selects the layer."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._names: tuple[str, ...] = ()
        self._weights: dict[tuple[int, str, int], WeightRanges] = {}
        self._wanted: tuple[int, str, int] | None = None
        self.title = elided("", "caption")
        self.plot = RangePlot()
        self.weights_title = elided("", "caption")
        self.weights = WeightRangePlot()
        self.split = QSplitter(Qt.Orientation.Vertical)
        self.split.setChildrenCollapsible(False)
        for title, plot in ((self.title, self.plot), (self.weights_title, self.weights)):
            box = QWidget()
            layout = QVBoxLayout(box)
            layout.setContentsMargins(14, 10, 10, 6)
            layout.setSpacing(6)
            layout.addWidget(title)
            layout.addWidget(plot, 1)
            self.split.addWidget(box)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.split)
        self.plot.selected.connect(self._select)
        session.ranges.connect(self._show_live)
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self.refresh)
        session.selection_changed.connect(self._follow)
        self.refresh()

    def refresh(self) -> None:
        """Show what calibration found, or, while it runs, what it has found so far."""
        document = self._session.document
        if document is None:
            self._names = ()
            self.plot.set_ranges((), (), ())
            return
        live = self._session.live_ranges
        if self._session.busy and live is not None:
            self._show_live(live)
        else:
            self._show_final(document)
        self._follow()

    def _show_final(self, document: Document) -> None:
        statistics = document.calibration.statistics if document.calibration is not None else {}
        waiting = self._session.job_step == "Calibrating"
        names = document.plan.observed
        known = {} if waiting else statistics
        minimum = [known[name].minimum if name in known else math.nan for name in names]
        maximum = [known[name].maximum if name in known else math.nan for name in names]
        self._names = names
        self.plot.set_ranges(names, minimum, maximum)
        if waiting:
            self.title.setText("ACTIVATION RANGES · waiting for the first batch")
        elif document.calibration is None:
            self.title.setText("ACTIVATION RANGES · known after calibration")
        else:
            samples = document.calibration.samples
            self.title.setText(f"ACTIVATION RANGES · {samples} samples")

    def _show_live(self, ranges: TensorRanges) -> None:
        if not self._session.busy:
            return
        self._names = ranges.names
        self.plot.set_ranges(ranges.names, ranges.minimum, ranges.maximum)
        self._highlight()
        self.title.setText(f"ACTIVATION RANGES · live, batch {ranges.batch}")

    def _select(self, tensor: str) -> None:
        document = self._session.document
        if document is not None and tensor in document.plan.tensors:
            self._session.select((document.plan.tensors[tensor].layer,))

    def _follow(self, *_: object) -> None:
        self._highlight()
        self._show_weights()

    def _highlight(self) -> None:
        document, name = self._session.document, self._session.current
        tensor = ""
        if document is not None and name is not None:
            layer = next((item for item in document.plan.layers if item.name == name), None)
            if layer is not None:
                plan = document.plan.tensors.get(layer.output)
                candidates = (layer.output, plan.tied_to if plan else None)
                tensor = next((c for c in candidates if c in self._names), "") or ""
        self.plot.highlight(tensor)

    # -- weights -------------------------------------------------------------------------------

    def _show_weights(self) -> None:
        document, name = self._session.document, self._session.current
        layer = None
        if document is not None and name is not None:
            layer = next((item for item in document.plan.layers if item.name == name), None)
        if document is None or layer is None or not layer.weights:
            self._wanted = None
            self.weights_title.setText("WEIGHT RANGES PER CHANNEL · this layer has no weights")
            self.weights.set_ranges((), ())
            return
        tensor = layer.weights[0]
        plan = document.plan.tensors.get(tensor)
        axis = plan.spec.axis if plan is not None and plan.spec is not None else None
        encoding = document.encodings.get(tensor)
        axis = axis if axis is not None else (encoding.axis if encoding is not None else None) or 0
        self.weights_title.setText(f"WEIGHT RANGES PER CHANNEL · {layer.name}")
        key = (id(document.graph), tensor, axis)
        self._wanted = key
        if key in self._weights:
            self.weights.set_ranges(*self._weights[key])
            return
        graph = document.graph

        def work(emit: Emit, cancel: CancelToken) -> WeightRanges:
            return channel_ranges(graph, tensor, axis)

        def done(result: WeightRanges) -> None:
            self._weights[key] = result
            if self._wanted == key:
                self.weights.set_ranges(*result)

        self._session.aside("weight ranges", work, done, lambda error: None)
