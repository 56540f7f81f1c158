"""Editors and painting of the layer table's cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import (
    QAbstractItemModel,
    QModelIndex,
    QPersistentModelIndex,
    QRectF,
    Qt,
    QTimer,
)
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import (
    QComboBox,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from studio.app.layers.columns import COLUMNS, SQNR
from studio.app.layers.model import QUESTION_ROLE

Index = QModelIndex | QPersistentModelIndex


class CellDelegate(QStyledItemDelegate):
    """A combo box for settings, a swatch for the SQNR. `edit(index, value)` applies a choice."""

    def __init__(self, edit: Callable[[Index, Any], object], parent: QWidget) -> None:
        super().__init__(parent)
        self._edit = edit

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: Index) -> QWidget:
        editor = QComboBox(parent)
        editor.setAccessibleName(COLUMNS[index.column()].title)
        question = index.data(QUESTION_ROLE)
        for choice in question.choices if question is not None else ():
            editor.addItem(choice.text)
            editor.setItemData(editor.count() - 1, choice.tip, Qt.ItemDataRole.ToolTipRole)
        # Wider than a narrow column, so that the names can be read.
        editor.view().setMinimumWidth(editor.view().sizeHintForColumn(0) + 24)
        editor.activated.connect(lambda _row: self._commit(editor))
        QTimer.singleShot(0, editor, editor.showPopup)
        return editor

    def _commit(self, editor: QComboBox) -> None:
        self.commitData.emit(editor)
        self.closeEditor.emit(editor)

    def setEditorData(self, editor: QWidget, index: Index) -> None:
        assert isinstance(editor, QComboBox)
        value = index.data(Qt.ItemDataRole.EditRole)
        if editor.findText(str(value)) < 0:
            editor.addItem(str(value))
        editor.setCurrentText(str(value))

    def setModelData(self, editor: QWidget, model: QAbstractItemModel, index: Index) -> None:
        assert isinstance(editor, QComboBox)
        value = editor.currentText()
        if value != index.data(Qt.ItemDataRole.EditRole):
            self._edit(index, value)

    def initStyleOption(self, option: QStyleOptionViewItem, index: Index) -> None:
        super().initStyleOption(option, index)
        option.state &= ~QStyle.StateFlag.State_HasFocus

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        color = index.data(Qt.ItemDataRole.DecorationRole)
        if index.column() != SQNR or not isinstance(color, QColor):
            super().paint(painter, option, index)
            return
        plain = QStyleOptionViewItem(option)
        self.initStyleOption(plain, index)
        plain.icon = type(plain.icon)()
        plain.features &= ~QStyleOptionViewItem.ViewItemFeature.HasDecoration
        shown, plain.text = plain.text, ""
        style = plain.widget.style()
        style.drawControl(QStyle.ControlElement.CE_ItemViewItem, plain, painter, plain.widget)
        rect = QRectF(plain.rect)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(color)
        painter.drawRoundedRect(QRectF(rect.left() + 8, rect.center().y() - 4.5, 9, 9), 2, 2)
        painter.setPen(plain.palette.text().color())
        painter.drawText(rect.adjusted(24, 0, -4, 0), Qt.AlignmentFlag.AlignVCenter, shown)
        painter.restore()
