"""One field of a form for every kind of option a technique can declare."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QWidget,
)

from studio.app.widgets import label

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

WIDTH = 170
LARGEST = 2**31 - 1


def title_of(name: str, info: FieldInfo) -> str:
    """`range_learning_rate` -> `Range learning rate`, if the option has no title of its own."""
    words = info.title or name.replace("_", " ")
    return words[:1].upper() + words[1:]


def plain_type(annotation: Any) -> tuple[Any, bool]:
    """The type without bounds and without None, and whether None is allowed."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [item for item in get_args(annotation) if item is not NoneType]
        if len(rest) == 1:
            return plain_type(rest[0])[0], True
    return annotation, False


class OptionField:
    """Title, editor, description and, below the editor, what is wrong with the value.

    `value` is for `model_validate`: text where the option has a number or a path that is typed.
    """

    def __init__(self, name: str, info: FieldInfo, changed: Callable[[], None]) -> None:
        self.name = name
        self.title = label(title_of(name, info), "muted")
        self.about = label(info.description or "", "muted", wrap=True)
        self.problem = label("", "bad", wrap=True)
        self.problem.hide()
        self.editor = _editor(info, changed)
        self.widget = self.editor.widget
        self.input = self.editor.input
        self.input.setAccessibleName(self.title.text())
        self.input.setToolTip(_tip(info))
        self.title.setBuddy(self.input)

    @property
    def value(self) -> Any:
        return self.editor.value()

    def show_value(self, value: Any) -> None:
        """Show a JSON-like value of the option."""
        self.editor.show(value)

    def show_problem(self, words: str) -> None:
        self.problem.setText(words)
        self.problem.setVisible(bool(words) and not self.widget.isHidden())

    def set_visible(self, shown: bool) -> None:
        for widget in (self.title, self.widget, self.about):
            widget.setVisible(shown)
        self.problem.setVisible(shown and bool(self.problem.text()))


class _Choice:
    """A combo box for an enum or literals."""

    def __init__(self, values: list[Any], optional: bool, changed: Callable[[], None]) -> None:
        self.input = self.widget = QComboBox()
        self.input.setFixedWidth(WIDTH)
        if optional:
            self.input.addItem("automatic", None)
        for value in values:
            self.input.addItem(str(value).replace("_", " "), value)
        self.input.currentIndexChanged.connect(lambda _row: changed())

    def value(self) -> Any:
        return self.input.currentData()

    def show(self, value: Any) -> None:
        self.input.setCurrentIndex(max(0, self.input.findData(value)))


class _Switch:
    def __init__(self, changed: Callable[[], None]) -> None:
        self.input = self.widget = QCheckBox("on")
        self.input.setFixedWidth(WIDTH)
        self.input.toggled.connect(lambda _on: changed())

    def value(self) -> bool:
        return self.input.isChecked()

    def show(self, value: Any) -> None:
        self.input.setChecked(bool(value))


class _Whole:
    """A spin box within the bounds of the option."""

    def __init__(self, low: int, high: int, changed: Callable[[], None]) -> None:
        self.input = self.widget = QSpinBox()
        self.input.setRange(low, high)
        self.input.setFixedWidth(WIDTH)
        self.input.setGroupSeparatorShown(True)
        self.input.lineEdit().setTextMargins(6, 0, 0, 0)
        self.input.valueChanged.connect(lambda _value: changed())

    def value(self) -> int:
        return self.input.value()

    def show(self, value: Any) -> None:
        self.input.setValue(int(value))


class _Typed:
    """A line: numbers, texts, and lists of them with commas between."""

    def __init__(self, optional: bool, listed: bool, changed: Callable[[], None]) -> None:
        self._optional, self._listed = optional, listed
        self.input: QLineEdit = QLineEdit()
        self.widget: QWidget = self.input
        self.input.setFixedWidth(WIDTH)
        self.input.setPlaceholderText("automatic" if optional else "none" if listed else "")
        self.input.textChanged.connect(lambda _words: changed())

    def value(self) -> Any:
        words = self.input.text().strip()
        if self._listed:
            return words.replace(",", " ").split()
        return None if self._optional and not words else words

    def show(self, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            self.input.setText(", ".join(map(str, value)))
        else:
            self.input.setText("" if value is None else _words(value))


class _Folder(_Typed):
    """A path, with a button to choose it."""

    def __init__(self, optional: bool, changed: Callable[[], None]) -> None:
        super().__init__(optional, False, changed)
        self.input.setPlaceholderText("none" if optional else "")
        self.input.setFixedWidth(WIDTH - 38)
        button = QPushButton("…")
        button.setFixedWidth(34)
        button.setAccessibleName("Choose a folder")
        button.clicked.connect(self._choose)
        self.widget = QWidget()
        self.widget.setFixedWidth(WIDTH)
        row = QHBoxLayout(self.widget)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.input)
        row.addWidget(button)

    def _choose(self) -> None:
        name = QFileDialog.getExistingDirectory(self.widget, "Folder", self.input.text())
        if name:
            self.input.setText(name)


def _words(value: Any) -> str:
    """`0.0001`, `4`; no digit is lost."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


Editor = _Choice | _Switch | _Whole | _Typed


def _editor(info: FieldInfo, changed: Callable[[], None]) -> Editor:
    kind, optional = plain_type(info.annotation)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _Choice([item.value for item in kind], optional, changed)
    if get_origin(kind) is Literal:
        return _Choice(list(get_args(kind)), optional, changed)
    if kind is bool and not optional:
        return _Switch(changed)
    if kind is int and not optional:
        return _Whole(*_bounds(info), changed)
    if kind is Path:
        return _Folder(optional, changed)
    return _Typed(optional, get_origin(kind) in (tuple, list), changed)


def _bounds(info: FieldInfo) -> tuple[int, int]:
    low, high = -LARGEST, LARGEST
    for item in info.metadata:
        low = max(low, int(getattr(item, "ge", low)), int(getattr(item, "gt", low - 1)) + 1)
        high = min(high, int(getattr(item, "le", high)), int(getattr(item, "lt", high + 1)) - 1)
    return low, high


def _tip(info: FieldInfo) -> str:
    """The description, and what the choices of an enum mean where it says so."""
    kind, _ = plain_type(info.annotation)
    own = vars(kind).get("__doc__") if isinstance(kind, type) and issubclass(kind, Enum) else None
    return "\n\n".join(part for part in (info.description, inspect.cleandoc(own or "")) if part)
