"""Settings of many layers at once, as overrides of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.errors import ConfigError
from studio.graph.model import ModelGraph
from studio.sim.config import QuantConfig
from studio.sim.placement import place


def with_settings(
    graph: ModelGraph, config: QuantConfig, settings: Mapping[str, Mapping[str, Any]]
) -> QuantConfig:
    """`config` with `settings`, layer name -> key -> value.

    What is a layer's default anyway is not written down, so that only the layers that differ are
    marked as changed. Raises ConfigError on bad values and for a layer that is not there.
    """
    keys = {key for values in settings.values() for key in values}
    cleared = config.with_layers([*settings], **dict.fromkeys(keys))
    defaults = {layer.name: layer.settings for layer in place(graph, cleared).layers}
    unknown = [name for name in settings if name not in defaults]
    if unknown:
        raise ConfigError(
            f"The model has no layer {unknown[0]!r}.", "These settings are those of another model."
        )
    alike: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for name, values in settings.items():
        own = tuple(
            (key, value)
            for key, value in values.items()
            if value is not None and getattr(defaults[name], key) != value
        )
        alike.setdefault(own, []).append(name)
    result = cleared
    for own, names in alike.items():
        if own:
            result = result.with_layers(names, **dict(own))
    return result
