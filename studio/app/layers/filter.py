"""Which rows of the layer table are shown, and in which order."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel

from studio.app.layers.columns import LAYER, OP, SQNR
from studio.app.layers.model import CHANGED_ROLE, SORT_ROLE, LayersModel


class LayersFilter(QSortFilterProxyModel):
    """Filters by text (name or op), changed rows, an upper limit of the SQNR; layers that only
    compute sizes are shown on request."""

    def __init__(self, model: LayersModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._layers = model
        self._text = ""
        self._changed_only = False
        self._sqnr_below: float | None = None
        self._sizes = False
        self.setSourceModel(model)
        self.setSortRole(SORT_ROLE)
        self.setDynamicSortFilter(True)

    def set_text(self, text: str) -> None:
        self._text = text.strip().lower()
        self._refilter()

    def set_changed_only(self, on: bool) -> None:
        self._changed_only = on
        self._refilter()

    def set_sqnr_below(self, decibels: float | None) -> None:
        self._sqnr_below = decibels
        self._refilter()

    def set_sizes(self, on: bool) -> None:
        self._sizes = on
        self._refilter()

    def _refilter(self) -> None:
        self.beginFilterChange()
        self.endFilterChange(QSortFilterProxyModel.Direction.Rows)

    def filterAcceptsRow(
        self, source_row: int, source_parent: QModelIndex | QPersistentModelIndex
    ) -> bool:
        model = self._layers
        if not self._sizes and model.computes_size(source_row):
            return False
        if self._changed_only and not model.index(source_row, LAYER).data(CHANGED_ROLE):
            return False
        if self._sqnr_below is not None:
            value = model.index(source_row, SQNR).data(SORT_ROLE)
            if not value < self._sqnr_below:
                return False
        if not self._text:
            return True
        shown = f"{model.index(source_row, LAYER).data()} {model.index(source_row, OP).data()}"
        lowered = shown.lower()
        return all(word in lowered for word in self._text.split())

    def lessThan(
        self,
        source_left: QModelIndex | QPersistentModelIndex,
        source_right: QModelIndex | QPersistentModelIndex,
    ) -> bool:
        left, right = source_left.data(SORT_ROLE), source_right.data(SORT_ROLE)
        if type(left) is type(right):
            return bool(left < right)
        return str(left) < str(right)
