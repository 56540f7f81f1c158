"""A technique that was applied to a model, as projects, the window and the report tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.sim.config import QuantConfig
from studio.techniques.history import TrainingHistory
from studio.techniques.technique import Chart, Row


@dataclass(frozen=True)
class Applied:
    """What was applied: a technique by name and its options, what it did, for people, how the
    training went, if it was one, and what it has to show as a plot.

    `title` is the technique's own, `changed` names the options that were not the defaults then,
    `seconds` is how long it took (None: not known), `configs` the settings before and after.
    """

    technique: str
    options: Mapping[str, Any]
    summary: str
    measure: str = ""
    rows: tuple[Row, ...] = ()
    training: TrainingHistory | None = None
    chart: Chart | None = None
    title: str = ""
    changed: tuple[str, ...] = ()
    seconds: float | None = None
    configs: tuple[QuantConfig, QuantConfig] | None = None

    @property
    def heading(self) -> str:
        """The title, else the technique's name."""
        return self.title or self.technique

    @property
    def options_text(self) -> str:
        """The options that are not the defaults: `epochs 8 · ranges fixed`."""
        return " · ".join(
            f"{name.replace('_', ' ')} {_words(self.options.get(name))}" for name in self.changed
        )


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
