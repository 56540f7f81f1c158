"""Which settings hold for a layer, and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

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

    def only(self, prefix: str) -> LayerSettings:
        """The settings whose name starts with `prefix` (`weight_` or `act_`)."""
        given = self.values.given().items()
        return LayerSettings(**{key: value for key, value in given if key.startswith(prefix)})


def resolve(config: QuantConfig, target: Target, layer: str) -> ResolvedSettings:
    """Settings of `layer`: the target's, then the defaults, then matching entries in order."""
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
    matching = {
        pattern: given
        for pattern, given in config.layers.items()
        if layer == pattern or fnmatchcase(layer, pattern)
    }
    changed: frozenset[str] = frozenset()
    for given in matching.values():
        values = values.merged(given)
        changed |= given.given().keys()
    return ResolvedSettings(values, changed, frozenset(matching), config, target)
