"""The settings of the selected layers: a row for each question, with what comes from where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.app import edits
from studio.app.icons import icon
from studio.app.session import Session
from studio.app.widgets import label, set_role
from studio.sim.choices import (
    GRANULARITY,
    NUMBER,
    OBSERVER,
    OFF,
    RANGES,
    SCALES,
    SYMMETRY,
    Kind,
    Question,
)

if TYPE_CHECKING:
    from studio.sim.plan import Layer

NAMES: dict[Kind, tuple[str, ...]] = {
    "weight": (NUMBER, GRANULARITY, SYMMETRY, OBSERVER, SCALES),
    "act": (NUMBER, SYMMETRY, OBSERVER, RANGES, SCALES),
}
TITLES = {
    NUMBER: "Number",
    GRANULARITY: "Granularity",
    SYMMETRY: "Symmetry",
    OBSERVER: "Observer",
    RANGES: "Input ranges",
    SCALES: "Scales",
}
NOUNS = {"weight": "Weight", "act": "Activation"}
FIELD_WIDTH = 150
PERCENTILE = "act_percentile"


class SettingRow:
    """Title, combo box and the button that takes the layer's own value back."""

    def __init__(self, form: SettingsForm, name: str, title: str) -> None:
        self.name = name
        self.question: Question | None = None
        noun = f"{NOUNS[form.kind]} {TITLES[name].lower()}"
        self.title = label(title, "muted")
        self.box = QComboBox()
        self.box.setAccessibleName(noun)
        self.box.setFixedWidth(FIELD_WIDTH)
        self.title.setBuddy(self.box)
        self.reset = reset_button(f"Reset {noun.lower()}")
        self.box.activated.connect(lambda _row: form.answered(self))
        self.reset.clicked.connect(lambda: form.take_back(self.keys))

    @property
    def keys(self) -> tuple[str, ...]:
        return self.question.keys if self.question is not None else ()

    def set_visible(self, shown: bool) -> None:
        self.title.setVisible(shown)
        self.box.setVisible(shown)
        if not shown:
            self.reset.hide()


class SettingsForm(QWidget):
    """Rows for `kind` ("weight" or "act"); edits apply to all selected layers that have them."""

    def __init__(self, session: Session, kind: Kind, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.kind = kind
        self._layer: Layer | None = None
        grid = QGridLayout()
        grid.setVerticalSpacing(5)
        grid.setHorizontalSpacing(6)
        grid.setColumnStretch(3, 1)
        grid.setColumnMinimumWidth(0, 84)
        grid.setColumnMinimumWidth(2, 26)
        self.rows = {name: SettingRow(self, name, TITLES[name]) for name in NAMES[kind]}
        self._place_rows(grid)
        self.more = QToolButton()
        self.more.setText("More")
        self.more.setCheckable(True)
        self.more.setProperty("role", "chip")
        self.more.setAccessibleName(f"More settings: {NOUNS[kind].lower()}")
        self.more.setToolTip("Settings that few need")
        self.more.toggled.connect(lambda _on: self._show_rare())
        self.origin = label("", "muted", wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(grid)
        layout.addWidget(self.more, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self.origin)

    def _place_rows(self, grid: QGridLayout) -> None:
        place = 0
        self.percentile: QDoubleSpinBox | None = None
        for row in self.rows.values():
            grid.addWidget(row.title, place, 0)
            grid.addWidget(row.box, place, 1)
            grid.addWidget(row.reset, place, 2)
            place += 1
            if row.name == OBSERVER and self.kind == "act":
                self._add_percentile(grid, place)
                place += 1

    def _add_percentile(self, grid: QGridLayout, place: int) -> None:
        self.percentile = QDoubleSpinBox()
        self.percentile.setAccessibleName("Percentile")
        self.percentile.setRange(50.0, 100.0)
        self.percentile.setDecimals(4)
        self.percentile.setSingleStep(0.01)
        self.percentile.setSuffix(" %")
        self.percentile.setFixedWidth(FIELD_WIDTH)
        self.percentile.setKeyboardTracking(False)
        self.percentile.setToolTip("Share of the values that the range holds")
        self.percentile.valueChanged.connect(self._percentile_chosen)
        self._percentile_title = label("Percentile", "muted")
        self._percentile_reset = reset_button("Reset percentile")
        self._percentile_reset.clicked.connect(lambda: self.take_back((PERCENTILE,)))
        grid.addWidget(self._percentile_title, place, 0)
        grid.addWidget(self.percentile, place, 1)
        grid.addWidget(self._percentile_reset, place, 2)

    @property
    def boxes(self) -> dict[str, QComboBox]:
        """The combo boxes by the name of their question."""
        return {name: row.box for name, row in self.rows.items()}

    # -- content -------------------------------------------------------------------------------

    def show_layer(self, layer: Layer) -> None:
        """Show the resolved settings of `layer`."""
        document = self._session.document
        if document is None:
            return
        self._layer = layer
        asked = {item.name: item for item in edits.questions_of(document, layer, self.kind)}
        enabled = getattr(layer.settings, f"{self.kind}_enabled") is not False
        for name, row in self.rows.items():
            row.question = asked.get(name)
            if row.question is not None:
                self._fill(row, row.question, layer, enabled)
        self._show_percentile(layer, enabled)
        self._show_rare()
        self.origin.setText(origins_text(layer, [row for row in self.rows.values() if row.keys]))

    def _fill(self, row: SettingRow, question: Question, layer: Layer, enabled: bool) -> None:
        editable = self._session.editable
        answer = question.answer(layer.settings)
        box = row.box
        box.clear()
        for choice in question.choices:
            box.addItem(choice.text)
            box.setItemData(box.count() - 1, choice.tip, Qt.ItemDataRole.ToolTipRole)
        if box.findText(answer) < 0:
            box.addItem(answer)
            tip = "The target cannot do this."
            box.setItemData(box.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        box.setCurrentText(answer)
        box.view().setMinimumWidth(max(FIELD_WIDTH, box.view().sizeHintForColumn(0) + 24))
        box.setEnabled(editable and (enabled or row.name == NUMBER))
        own = [key for key in question.keys if is_own(layer, key)]
        changed = any(key in layer.changed for key in question.keys)
        set_role(box, "changed" if changed else "")
        busy = f"Cannot be edited while {self._session.job_step.lower()}."
        box.setToolTip(origin_of(layer, question) if editable else busy)
        row.reset.setVisible(bool(own))
        row.reset.setEnabled(editable)

    def _show_percentile(self, layer: Layer, enabled: bool) -> None:
        if self.percentile is None:
            return
        shown = layer.settings.act_observer == "percentile" and enabled
        self.percentile.blockSignals(True)
        self.percentile.setValue(layer.settings.act_percentile or 100.0)
        self.percentile.blockSignals(False)
        self.percentile.setEnabled(self._session.editable)
        for widget in (self._percentile_title, self.percentile):
            widget.setVisible(shown)
        self._percentile_reset.setVisible(shown and is_own(layer, PERCENTILE))

    def _show_rare(self) -> None:
        """Rare rows are shown on request, and where they say something else than usual."""
        layer, folded = self._layer, 0
        for row in self.rows.values():
            question = row.question
            shown = question is not None
            if question is not None and question.rare and layer is not None:
                usual = question.choices[0].text == question.answer(layer.settings)
                folded += usual
                shown = self.more.isChecked() or not usual
            row.set_visible(shown)
        self.more.setVisible(folded > 0)
        self.more.setText("Less" if self.more.isChecked() else "More")

    # -- edits ---------------------------------------------------------------------------------

    def answered(self, row: SettingRow) -> None:
        """The user chose something in `row`."""
        question, layer = row.question, self._layer
        text = row.box.currentText()
        if question is None or layer is None or text == question.answer(layer.settings):
            return
        if all(choice.text != text for choice in question.choices):
            return
        edits.answer(self._session, self._session.selection, question, question.choice(text))

    def take_back(self, keys: tuple[str, ...]) -> None:
        """The selected layers have no own values of the settings `keys` any more."""
        names = list(self._session.selection)
        target = names[0] if len(names) == 1 else f"{len(names)} layers"
        self._session.edit(
            f"Reset {keys[0].replace('_', ' ')} of {target}",
            lambda document: edits.reset_keys(document, names, keys),
        )

    def _percentile_chosen(self, value: float) -> None:
        document = self._session.document
        if document is None:
            return
        names = edits.layers_with(document, self._session.selection, PERCENTILE)
        words = edits.describe_edit(names, "percentile", f"{value:g} %")
        self._session.edit(
            words, lambda document: edits.set_layers(document, names, act_percentile=value)
        )


def reset_button(name: str) -> QToolButton:
    result = QToolButton()
    result.setIcon(icon("undo", "link"))
    result.setIconSize(QSize(16, 16))
    result.setProperty("role", "reset")
    result.setFixedSize(26, 26)
    result.setAccessibleName(name)
    result.setToolTip("Set for this layer: back to the default")
    return result


def is_own(layer: Layer, key: str) -> bool:
    """True if the setting is set for the layer by its name, not by a pattern."""
    from studio.sim.settings import BY_NAME

    return layer.origin(key) == BY_NAME


def origin_of(layer: Layer, question: Question) -> str:
    """Where the answer comes from, for people: own settings before patterns before defaults."""
    from studio.sim.settings import BY_NAME

    settings = [key for key in question.keys if getattr(layer.settings, key) is not None]
    own = [key for key in settings if key in layer.changed]
    if question.answer(layer.settings) == OFF:
        own = [key for key in own if key.endswith("_enabled")] or own
        settings = [key for key in settings if key.endswith("_enabled")]
    found = layer.origin((own or settings)[0])
    return f"{found[0].upper()}{found[1:]}" if found != BY_NAME else "Set for this layer"


def origins_text(layer: Layer, rows: list[SettingRow]) -> str:
    """`Number, Observer: set for this layer. The rest: target onnxruntime.`"""
    from studio.sim.settings import BY_NAME

    groups: dict[str, list[str]] = {}
    for row in rows:
        if row.question is not None:
            groups.setdefault(origin_of(layer, row.question), []).append(TITLES[row.name])
    if len(groups) == 1:
        return f"All from: {_lower(next(iter(groups)))}."
    others = [origin for origin in groups if not origin.lower().startswith(BY_NAME)]
    common = max(others or groups, key=lambda origin: len(groups[origin]))
    parts = [
        f"{', '.join(titles)}: {_lower(origin)}."
        for origin, titles in groups.items()
        if origin != common
    ]
    return " ".join([*parts, f"The rest: {_lower(common)}."])


def _lower(words: str) -> str:
    return words[0].lower() + words[1:]
