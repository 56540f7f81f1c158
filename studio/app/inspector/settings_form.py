"""The settings of the selected layers as combo boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox, QGridLayout, QWidget

from studio.app.edits import SETTING_NAMES
from studio.app.layers.columns import BITS
from studio.app.layers.model import edit_layers
from studio.app.session import Session
from studio.app.widgets import label, set_role

if TYPE_CHECKING:
    from studio.sim.plan import Layer

OBSERVERS = (("min-max", "minmax"), ("MSE", "mse"))
FIELDS = (
    ("weight_bits", "Bitwidth"),
    ("weight_per_channel", "Granularity"),
    ("weight_symmetric", "Symmetric"),
    ("weight_observer", "Observer"),
    ("act_bits", "Bitwidth"),
    ("act_symmetric", "Symmetric"),
    ("act_observer", "Observer"),
)


def choices(key: str) -> tuple[tuple[str, Any], ...]:
    """(shown, value) of the setting `key`; the value None means off."""
    if key.endswith("bits"):
        return (*((str(bits), bits) for bits in BITS), ("off", None))
    if key.endswith("per_channel"):
        return (("per channel", True), ("per tensor", False))
    if key.endswith("observer"):
        return OBSERVERS
    return (("yes", True), ("no", False))


class SettingsForm(QWidget):
    """Rows for `kind` ("weight" or "act"); edits apply to all selected layers that have them."""

    def __init__(self, session: Session, kind: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.kind = kind
        self.boxes: dict[str, QComboBox] = {}
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(5)
        layout.setHorizontalSpacing(8)
        layout.setColumnStretch(1, 1)
        layout.setColumnMinimumWidth(0, 104)
        for row, (key, title) in enumerate(f for f in FIELDS if f[0].startswith(kind)):
            box = QComboBox()
            box.setAccessibleName(SETTING_NAMES[key].capitalize())
            for shown, value in choices(key):
                box.addItem(shown, value)
            box.activated.connect(lambda _row, key=key: self._edited(key))
            name = label(title, "muted")
            name.setBuddy(box)
            layout.addWidget(name, row, 0)
            layout.addWidget(box, row, 1, Qt.AlignmentFlag.AlignLeft)
            self.boxes[key] = box

    def show_layer(self, layer: Layer) -> None:
        """Show the resolved settings of `layer`."""
        editable = self._session.editable
        reason = "" if editable else f"Cannot be edited while {self._session.job_step.lower()}."
        for key, box in self.boxes.items():
            value = getattr(layer.settings, key)
            enabled = getattr(layer.settings, f"{self.kind}_enabled") is not False
            if key.endswith("bits") and not enabled:
                value = None
            row = next((i for i in range(box.count()) if box.itemData(i) == value), -1)
            if row < 0:
                box.addItem(str(value), value)
                row = box.count() - 1
            box.setCurrentIndex(row)
            box.setEnabled(editable and (enabled or key.endswith("bits")))
            changed = key in layer.changed
            set_role(box, "changed" if changed else "")
            box.setToolTip(reason or ("Set for this layer" if changed else "Default"))

    def _edited(self, key: str) -> None:
        document = self._session.document
        if document is None:
            return
        names = []
        for layer in document.plan.layers:
            if layer.name in self._session.selection and getattr(layer.settings, key) is not None:
                names.append(layer.name)
        if names:
            edit_layers(self._session, names, key, self.boxes[key].currentData())
