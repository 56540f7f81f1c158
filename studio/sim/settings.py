"""Which settings hold for a layer, and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.target import Target


@dataclass(frozen=True)
class ResolvedSettings:
    """All settings of one layer, filled in. `changed`: those set for the layer itself (by name or
    pattern). `patterns`: the entries of the configuration that matched."""

    values: LayerSettings
    changed: frozenset[str]
    patterns: frozenset[str]
    config: QuantConfig
    target: Target

    def origin(self, key: str) -> str:
        """Where the setting `key` comes from, for people."""
        if key in self.changed:
            return "set for this layer"
        if getattr(self.config.defaults, key) is not None:
            return "default of this configuration"
        return f"target {self.target.name}"

    @cached_property
    def weight(self) -> LayerSettings:
        """The settings of weights alone."""
        return self._only("weight_")

    @cached_property
    def activation(self) -> LayerSettings:
        """The settings of the output alone."""
        return self._only("act_")

    def _only(self, prefix: str) -> LayerSettings:
        given = self.values.given().items()
        return LayerSettings(**{key: value for key, value in given if key.startswith(prefix)})


class SettingsResolver:
    """Settings of layers: the target's, then the defaults, then matching entries in order."""

    def __init__(self, config: QuantConfig, target: Target) -> None:
        weights, activations = target.weights, target.activations
        values = LayerSettings(
            weight_bits=weights.bits,
            weight_symmetric=weights.symmetric,
            weight_per_channel=weights.per_channel,
            weight_enabled=True,
            weight_observer=weights.observer,
            act_bits=activations.bits,
            act_symmetric=activations.symmetric,
            act_enabled=True,
            act_observer=activations.observer,
        ).merged(config.defaults)
        self._config = config
        self._common = ResolvedSettings(values, frozenset(), frozenset(), config, target)
        self._order = {pattern: index for index, pattern in enumerate(config.layers)}
        # Thousands of layers may be set by name: only true patterns are tried on every layer.
        self._wildcards = [pattern for pattern in config.layers if set(pattern) & set("*?[")]

    def resolve(self, layer: str) -> ResolvedSettings:
        """Settings of the layer named `layer`."""
        matching = {pattern for pattern in self._wildcards if fnmatchcase(layer, pattern)}
        if layer in self._order:
            matching.add(layer)
        if not matching:
            return self._common
        values = self._common.values
        changed: set[str] = set()
        for pattern in sorted(matching, key=self._order.__getitem__):
            given = self._config.layers[pattern]
            values = values.merged(given)
            changed |= given.given().keys()
        return ResolvedSettings(
            values, frozenset(changed), frozenset(matching), self._config, self._common.target
        )
