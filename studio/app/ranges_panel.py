"""Activation ranges of all tensors, live while calibrating, and the weights of the layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QSplitter, QVBoxLayout, QWidget

from studio.app import text
from studio.app.plots import RangePlot, WeightRangePlot
from studio.app.session import Session
from studio.errors import StudioError
from studio.jobs import CancelToken, Emit, TensorRanges

if TYPE_CHECKING:
    from studio.graph.model import ModelGraph
    from studio.project.document import Document
    from studio.sim.plan import Layer

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
        self._weights: dict[tuple[int, str, int], WeightRanges] = {}
        self._wanted: tuple[int, str, int] | None = None
        self.plot = RangePlot()
        self.weights = WeightRangePlot()
        self.split = QSplitter(Qt.Orientation.Vertical)
        self.split.setChildrenCollapsible(False)
        self.split.addWidget(self.plot)
        self.split.addWidget(self.weights)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.split)
        self.plot.selected.connect(self._select)
        session.ranges.connect(self._show_live)
        session.opened.connect(self._weights.clear)
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self.refresh)
        session.selection_changed.connect(self._follow)
        self.refresh()

    def refresh(self) -> None:
        """Show what calibration found, or, while it runs, what it has found so far."""
        document = self._session.document
        if document is None:
            self.plot.clear()
            return
        if self._session.live_ranges is not None and self._session.busy:
            self._show_live(self._session.live_ranges)
            return
        calibration = document.calibration
        statistics = calibration.statistics if calibration is not None else {}
        names = document.plan.observed
        minimum = [statistics[n].minimum if n in statistics else math.nan for n in names]
        maximum = [statistics[n].maximum if n in statistics else math.nan for n in names]
        waiting = self._session.job_step == "Calibrating"
        fresh = [not waiting] * len(names)
        self.plot.set_ranges(self._labels(document, names), minimum, maximum, fresh)
        detail = ""
        if waiting:
            detail = "waiting for the first batch"
        elif calibration is not None:
            detail = text.plural(calibration.samples, "sample") + f" of {calibration.data}"
        self.plot.set_caption("Activation ranges", detail)
        self._follow()

    def _show_live(self, ranges: TensorRanges) -> None:
        document = self._session.document
        if document is None or not self._session.busy:
            return
        known = dict(
            zip(ranges.names, zip(ranges.minimum, ranges.maximum, strict=True), strict=True)
        )
        names = [name for name in document.plan.observed if name in known]
        waiting = [name for name in document.plan.observed if name not in known]
        unknown = [(math.nan, math.nan)] * len(waiting)
        spans = [*(known[name] for name in names), *unknown]
        shown = self._labels(document, (*names, *waiting))
        self.plot.set_ranges(shown, [low for low, _ in spans], [high for _, high in spans])
        self._highlight()
        progress = self._session.live_progress
        seen = text.progress(progress.done, progress.total, progress.detail) if progress else ""
        self.plot.set_caption("Activation ranges", f"live, {seen}" if seen else "live")

    def _labels(self, document: Document, tensors: Sequence[str]) -> list[str]:
        """Names of layers, or of tensors where a layer has more than one."""
        layers = [document.plan.tensors[name].layer for name in tensors]
        twice = {name for name, count in Counter(layers).items() if count > 1}
        return [
            tensor if layer in twice or not layer else layer
            for tensor, layer in zip(tensors, layers, strict=True)
        ]

    def _select(self, name: str) -> None:
        document = self._session.document
        if document is None:
            return
        tensor = document.plan.tensors.get(name)
        self._session.select((tensor.layer if tensor is not None else name,))

    def _follow(self, *_: object) -> None:
        self._highlight()
        self._show_weights()

    def _current(self) -> Layer | None:
        document, name = self._session.document, self._session.current
        if document is None or name is None:
            return None
        return next((item for item in document.plan.layers if item.name == name), None)

    def _highlight(self) -> None:
        document, layer = self._session.document, self._current()
        if document is None or layer is None:
            self.plot.highlight("")
            return
        plan = document.plan.tensors.get(layer.output)
        tensor = (plan.tied_to if plan is not None else None) or layer.output
        if tensor in document.plan.tensors:
            self.plot.highlight(self._labels(document, (tensor,))[0])
        if not self.plot.highlighted:
            self.plot.highlight(tensor)

    # -- weights -------------------------------------------------------------------------------

    def _show_weights(self) -> None:
        document, layer = self._session.document, self._current()
        if document is None or layer is None or not layer.weights:
            self._wanted = None
            self.weights.clear()
            return
        tensor = layer.weights[0]
        plan = document.plan.tensors.get(tensor)
        axis = 0
        if plan is not None and plan.spec is not None and plan.spec.axis is not None:
            axis = plan.spec.axis
        key = (id(document.graph), tensor, axis)
        self._wanted = key
        name, graph = layer.name, document.graph
        if key in self._weights:
            self.weights.set_channels(name, *self._weights[key])
            return

        def work(emit: Emit, cancel: CancelToken) -> WeightRanges:
            return channel_ranges(graph, tensor, axis)

        def done(result: WeightRanges) -> None:
            self._weights[key] = result
            if self._wanted == key:
                self.weights.set_channels(name, *result)

        def failed(error: StudioError) -> None:
            self.weights.clear()

        self._session.aside("weight ranges", work, done, failed)
