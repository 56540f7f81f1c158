"""Edits of a document: pure functions, and the command that makes them undoable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PySide6.QtGui import QUndoCommand

if TYPE_CHECKING:
    from studio.app.session import Session
    from studio.project.document import Document

SETTING_NAMES = {
    "weight_bits": "weight bits",
    "weight_symmetric": "weight symmetry",
    "weight_per_channel": "weight granularity",
    "weight_enabled": "weight quantization",
    "weight_observer": "weight observer",
    "act_bits": "activation bits",
    "act_symmetric": "activation symmetry",
    "act_enabled": "activation quantization",
    "act_observer": "activation observer",
}


class EditCommand(QUndoCommand):
    """Goes from one document to another and back."""

    def __init__(self, session: Session, text: str, before: Document, after: Document) -> None:
        super().__init__(text)
        self._session = session
        self._before = before
        self._after = after
        self._first = True

    def redo(self) -> None:
        if self._first:
            self._first = False
            self._session.replace_document(self._after)
            return
        current = self._session.document
        assert current is not None
        self._before = current
        self._session.replace_document(restored(current, self._after))

    def undo(self) -> None:
        current = self._session.document
        assert current is not None
        self._after = current
        self._session.replace_document(restored(current, self._before))


def restored(current: Document, wanted: Document) -> Document:
    """`wanted` as it was, or, if calibration ran in between, its settings on today's statistics.

    Statistics of a graph prepared by other rules are not those of `wanted`.
    """
    if current.calibration is wanted.calibration or current.graph is not wanted.graph:
        return replace(wanted, path=current.path)
    return current.with_config(wanted.config).with_data(wanted.data)


def set_layers(document: Document, names: list[str], **settings: Any) -> Document:
    """`document` with `settings` for the layers `names`.

    A value that is the layer's default anyway is not written down as an override, so that a layer
    set back to 8 bits by hand is no longer marked as changed.
    """
    nothing = dict.fromkeys(settings)
    cleared = document.with_config(document.config.with_layers(names, **nothing))
    defaults = {layer.name: layer.settings for layer in cleared.plan.layers}
    config = cleared.config
    for key, value in settings.items():
        chosen = [name for name in names if getattr(defaults[name], key) != value]
        if value is not None and chosen:
            config = config.with_layers(chosen, **{key: value})
    return document.with_config(config)


def set_bits(document: Document, names: list[str], kind: str, bits: int | None) -> Document:
    """Set the bits of `kind` ("weight" or "act"); None turns quantization of it off."""
    if bits is None:
        return set_layers(document, names, **{f"{kind}_enabled": False})
    return set_layers(document, names, **{f"{kind}_bits": bits, f"{kind}_enabled": True})


def reset_layers(document: Document, names: list[str]) -> Document:
    """The layers `names` without any setting of their own."""
    nothing = dict.fromkeys(SETTING_NAMES)
    return document.with_config(document.config.with_layers(names, **nothing))


def describe_edit(names: list[str], key: str, value: Any) -> str:
    """`Set weight bits of 3 layers to 4`."""
    target = names[0] if len(names) == 1 else f"{len(names)} layers"
    shown = {True: "on", False: "off", None: "off"}.get(value, str(value))
    if key.endswith("symmetric"):
        shown = "symmetric" if value else "asymmetric"
    elif key.endswith("per_channel"):
        shown = "per channel" if value else "per tensor"
    return f"Set {SETTING_NAMES[key]} of {target} to {shown}"
