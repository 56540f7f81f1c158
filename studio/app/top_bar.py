"""The row of buttons at the top: open, data, target and bits, the steps, and the menu."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QHBoxLayout, QMenu, QToolButton, QWidget

from studio.app import reports
from studio.app.actions import Actions
from studio.app.commands import COMMANDS, MENUS
from studio.app.session import Session
from studio.app.widgets import ElidedLabel, elided, label, line, menu_button
from studio.sim.choices import KINDS

if TYPE_CHECKING:
    from studio.sim.choices import Choice, Kind
    from studio.sim.config import LayerSettings
    from studio.sim.target import Target


class TopBar(QWidget):
    """Buttons built from the command table, and the settings that hold for all layers."""

    def __init__(self, session: Session, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("topBar")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self._session = session
        self._actions = actions
        self.target = menu_button("Target")
        self.weight_bits = menu_button("Weight bits of all layers")
        self.act_bits = menu_button("Activation bits of all layers")
        self.menu = menu_button("Menu")
        self.title: ElidedLabel = elided("", "muted")
        self.title.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.random = label("RANDOM DATA", "badge")
        self._build()
        session.document_changed.connect(self.refresh)
        session.job_changed.connect(self.refresh)
        self.refresh()

    def _build(self) -> None:
        layout = QHBoxLayout(self)
        layout.setContentsMargins(12, 7, 12, 7)
        layout.setSpacing(6)
        for name in ("open", "data"):
            layout.addWidget(self._button(name))
        layout.addWidget(self._gap())
        for button in (self.target, self.weight_bits, self.act_bits):
            layout.addWidget(button)
        layout.addWidget(self._gap())
        for name in ("calibrate", "autoquant", "evaluate"):
            layout.addWidget(self._button(name))
        layout.addWidget(self._gap())
        export = self._button("export")
        export.setProperty("role", "primary")
        layout.addWidget(export)
        layout.addWidget(self.title, 1)
        self.random.setToolTip(
            "Ranges or figures come from random data and say nothing about real use. "
            "Choose images or arrays, then calibrate again."
        )
        layout.addWidget(self.random)
        for name in ("undo", "redo", "theme"):
            button = self._button(name)
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
            button.setProperty("role", "flat")
            layout.addWidget(button)
        self.menu.setText("≡")
        self.menu.setToolTip("Menu  (F10)")
        self.menu.setShortcut(QKeySequence("F10"))
        self.menu.setProperty("role", "flat")
        self.menu.setMenu(build_menu(self._actions, self.menu))
        layout.addWidget(self.menu)
        self.target.setMenu(QMenu(self.target))
        self.target.menu().aboutToShow.connect(self._fill_targets)
        for kind, button in zip(KINDS, (self.weight_bits, self.act_bits), strict=True):
            menu = QMenu(button)
            menu.aboutToShow.connect(lambda kind=kind, menu=menu: self._fill_bits(kind, menu))
            button.setMenu(menu)

    def _button(self, name: str) -> QToolButton:
        action = self._actions[name]
        button = QToolButton()
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        button.setDefaultAction(action)
        button.setText(action.text().rstrip("…"))
        button.setAccessibleName(action.text().rstrip("…"))
        button.setObjectName(f"button_{name}")

        def keep_text() -> None:
            button.setText(next(c.text for c in COMMANDS if c.id == name).rstrip("…"))

        action.changed.connect(keep_text)
        return button

    def _gap(self) -> QWidget:
        holder = QWidget()
        layout = QHBoxLayout(holder)
        layout.setContentsMargins(5, 4, 5, 4)
        layout.addWidget(line(vertical=True))
        return holder

    def refresh(self) -> None:
        """Show the document's target and default bits."""
        document = self._session.document
        self.random.setVisible(document is not None and reports.synthetic(document))
        reason = "" if self._session.editable else f"{self._session.job_step} is running."
        for button in (self.target, self.weight_bits, self.act_bits):
            button.setEnabled(self._session.editable)
        if document is None:
            return
        from studio.sim.target import load_target

        target = load_target(document.config.target)
        weight = default_number(document.config.defaults, target, "weight")
        act = default_number(document.config.defaults, target, "act")
        self.target.setText(f"Target: {target.name}")
        self.target.setToolTip(reason or target.description)
        self.weight_bits.setText(f"W {weight.removeprefix('int')}")
        self.weight_bits.setToolTip(reason or "Weights of all layers without their own setting")
        self.act_bits.setText(f"A {act.removeprefix('int')}")
        self.act_bits.setToolTip(reason or "Outputs of all layers without their own setting")

    def _fill_targets(self) -> None:
        from studio.sim.target import load_target, target_names

        document = self._session.document
        assert document is not None
        menu = self.target.menu()
        menu.clear()
        menu.setToolTipsVisible(True)
        group = QActionGroup(menu)
        names = target_names()
        own = document.config.target
        for name in (*names, *([] if own in names else [own])):
            target = load_target(name)
            title = target.title if name in names else f"{target.title} ({Path(name).name})"
            action = _choice(menu, group, title, own == name)
            action.setToolTip(wrapped(target.description))
            action.triggered.connect(lambda _checked=False, name=name: self.set_target(name))
        menu.addSeparator()
        for command in ("load_target", "save_aimet"):
            menu.addAction(self._actions[command])
        if document.graph.found:
            menu.addSeparator()
            kept = menu.addAction("Encodings as in the model's file")
            kept.setCheckable(True)
            kept.setChecked(document.config.source_encodings)
            kept.setToolTip("Off: quantizers are placed anew by the target, and need calibration")
            kept.toggled.connect(self.set_source_encodings)

    def _fill_bits(self, kind: Kind, menu: QMenu) -> None:
        from studio.sim.choices import number_choices
        from studio.sim.config import LayerSettings
        from studio.sim.target import load_target

        document = self._session.document
        assert document is not None
        target = load_target(document.config.target)
        defaults = document.config.defaults
        usual = default_number(LayerSettings(), target, kind)
        current = default_number(defaults, target, kind)
        given = [key for key in defaults.given() if key in number_keys(kind)]
        menu.clear()
        menu.setToolTipsVisible(True)
        group = QActionGroup(menu)
        action = _choice(menu, group, f"{usual}: default of the target", not given)
        action.triggered.connect(lambda: self.set_default_number(kind, None))
        menu.addSeparator()
        for choice in number_choices(target, kind):
            action = _choice(menu, group, choice.text, bool(given) and choice.text == current)
            action.setToolTip(choice.tip)
            action.triggered.connect(
                lambda _checked=False, choice=choice: self.set_default_number(kind, choice)
            )

    def set_target(self, name: str) -> None:
        self._session.edit(
            f"Set target to {Path(name).stem}",
            lambda document: document.with_config(document.config.with_target(name)),
        )

    def set_source_encodings(self, kept: bool) -> None:
        """Keep the encodings of a model that came quantized, or place quantizers anew."""
        self._session.edit(
            "Take the encodings from the model's file" if kept else "Place quantizers anew",
            lambda document: document.with_config(
                document.config.model_copy(update={"source_encodings": kept})
            ),
        )

    def set_default_number(self, kind: Kind, choice: Choice | None) -> None:
        """Number of all layers without their own; None: the target's."""
        noun = "weight" if kind == "weight" else "activation"
        shown = "the target's default" if choice is None else choice.text
        values: dict[str, Any] = dict.fromkeys(number_keys(kind))
        values.update(choice.settings if choice is not None else ())
        self._session.edit(
            f"Set {noun} number of all layers to {shown}",
            lambda document: document.with_config(document.config.with_defaults(**values)),
        )


def number_keys(kind: Kind) -> tuple[str, ...]:
    """The settings behind a number."""
    return f"{kind}_format", f"{kind}_bits", f"{kind}_enabled"


def default_number(defaults: LayerSettings, target: Target, kind: Kind) -> str:
    """`int8`: what layers have that no rule, pattern or setting of their own concerns."""
    from studio.sim.choices import OFF, number_text

    rule = target.weights if kind == "weight" else target.activations
    fields = ("format", "bits", "enabled")
    given = {name: getattr(defaults, f"{kind}_{name}") for name in fields}
    values = {name: getattr(rule, name) if given[name] is None else given[name] for name in fields}
    return number_text(values["format"], values["bits"]) if values["enabled"] else OFF


def wrapped(words: str) -> str:
    """`words` in lines that fit a tooltip."""
    return "\n".join(textwrap.wrap(words, 72))


def _choice(menu: QMenu, group: QActionGroup, text: str, checked: bool) -> QAction:
    action = menu.addAction(text)
    action.setCheckable(True)
    action.setChecked(checked)
    group.addAction(action)
    return action


def build_menu(actions: Actions, parent: QWidget) -> QMenu:
    """All commands, one submenu for each group of the table."""
    menu = QMenu(parent)
    for title in MENUS:
        fill_menu(menu.addMenu(title), actions, (c.id for c in COMMANDS if c.menu == title))
    return menu


def fill_menu(menu: QMenu, actions: Actions, names: Iterable[str]) -> None:
    menu.setToolTipsVisible(True)
    for name in names:
        menu.addAction(actions[name])
