"""Edits of a document: pure functions, and the command that makes them undoable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PySide6.QtGui import QUndoCommand

if TYPE_CHECKING:
    from studio.app.session import Session
    from studio.project.document import Document
    from studio.sim.choices import Choice, Kind, Question
    from studio.sim.plan import Layer


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

    Statistics of a graph that was prepared by other rules or improved are not those of `wanted`.
    """
    calibrated = current.calibration is not wanted.calibration
    same = current.graph is wanted.graph and current.applied is wanted.applied
    if not calibrated or not same:
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


def choose(document: Document, names: list[str], choice: Choice) -> Document:
    """`document` with the settings of `choice` for the layers `names`."""
    return set_layers(document, names, **dict(choice.settings))


def reset_keys(document: Document, names: list[str], keys: Iterable[str]) -> Document:
    """The layers `names` without own values of the settings `keys`."""
    return document.with_config(document.config.with_layers(names, **dict.fromkeys(keys)))


def reset_layers(document: Document, names: list[str]) -> Document:
    """The layers `names` without any setting of their own."""
    from studio.sim.config import LayerSettings

    return reset_keys(document, names, LayerSettings.model_fields)


def questions_of(document: Document, layer: Layer, kind: Kind) -> tuple[Question, ...]:
    """What can be chosen for `layer` of `document`."""
    from studio.sim.choices import questions
    from studio.sim.target import load_target

    target = load_target(document.config.target)
    return questions(document.graph, document.plan, target, layer, kind)


def layers_with(document: Document, names: Iterable[str], key: str) -> list[str]:
    """Those of `names` for whose layer the setting `key` means something, in execution order."""
    wanted = set(names)
    return [
        layer.name
        for layer in document.plan.layers
        if layer.name in wanted and getattr(layer.settings, key) is not None
    ]


def describe_edit(names: list[str], what: str, value: str) -> str:
    """`Set weight number of 3 layers to int4`."""
    target = names[0] if len(names) == 1 else f"{len(names)} layers"
    return f"Set {what} of {target} to {value}"


def answer(session: Session, names: Iterable[str], question: Question, choice: Choice) -> bool:
    """One undoable edit: `choice` for those of the layers `names` that are offered it."""
    document = session.document
    if document is None:
        return False
    fitting = [
        name
        for name in layers_with(document, names, f"{question.kind}_bits")
        if _is_offered(document, name, question, choice)
    ]
    if not fitting:
        return False
    words = describe_edit(fitting, question.noun, choice.text)
    return session.edit(words, lambda document: choose(document, fitting, choice))


def _is_offered(document: Document, name: str, question: Question, choice: Choice) -> bool:
    asked = questions_of(document, document.plan.layer(name), question.kind)
    return any(item.name == question.name and choice in item.choices for item in asked)
