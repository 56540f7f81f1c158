"""Which settings hold for a layer, and where each comes from.

From low to high: the target's weights and activations, its rules for ops, the defaults of the
configuration, then the matching entries of `QuantConfig.layers` in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.target import Target

BY_NAME = "set for this layer"


@dataclass(frozen=True)
class LayerNames:
    """What a layer can be addressed by: its name; the ops in it (types and kinds), those of the
    first that has the weights, of the last that makes the output; the blocks it belongs to (kinds
    and names)."""

    name: str
    ops: frozenset[str] = frozenset()
    first: frozenset[str] = frozenset()
    last: frozenset[str] = frozenset()
    blocks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ResolvedSettings:
    """All settings of one layer, filled in.

    changed: keys set for the layer itself, by name or pattern. patterns: the entries of the
    configuration that matched. origins: where a key comes from, for people.
    """

    values: LayerSettings
    changed: frozenset[str]
    patterns: frozenset[str]
    origins: Mapping[str, str]
    asked: frozenset[str]

    def origin(self, key: str) -> str:
        """Where the setting `key` comes from, for people."""
        return self.origins[key]

    def is_named(self, key: str) -> bool:
        """True if `key` is set for the layer by its very name, no pattern."""
        return self.origins[key] == BY_NAME

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

    def under_user(self, rule: LayerSettings, origin: str) -> ResolvedSettings:
        """These settings with those of `rule` (a target's) for all keys the user has not set."""
        given = {key: value for key, value in rule.given().items() if key not in self.asked}
        if not given:
            return self
        return replace(
            self,
            values=self.values.merged(LayerSettings(**given)),
            origins={**self.origins, **dict.fromkeys(given, origin)},
        )


class SettingsResolver:
    """Settings of layers; remembers what it has resolved."""

    def __init__(self, config: QuantConfig, target: Target) -> None:
        self._config = config
        self._target = target
        self._order = {pattern: index for index, pattern in enumerate(config.layers)}
        # Thousands of layers may be set by name: only true patterns are tried on every layer.
        self._patterns = [pattern for pattern in config.layers if _is_pattern(pattern)]
        self._known: dict[str, ResolvedSettings] = {}
        self._alike: dict[tuple[object, ...], ResolvedSettings] = {}

    def resolve(self, names: LayerNames) -> ResolvedSettings:
        """Settings of the layer called `names`."""
        if names.name not in self._known:
            self._known[names.name] = self._resolve(names)
        return self._known[names.name]

    def asked(self, layer: str) -> frozenset[str]:
        """Keys that the user has set for the layer or in the defaults."""
        known = self._known.get(layer)
        return frozenset(self._config.defaults.given()) if known is None else known.asked

    def _resolve(self, names: LayerNames) -> ResolvedSettings:
        matching = {pattern for pattern in self._patterns if _matches(pattern, names)}
        if names.name in self._order:
            matching.add(names.name)
        alike = (frozenset(matching), names.first, names.last, names.blocks)
        if alike not in self._alike:
            self._alike[alike] = self._merged(names, matching)
        return self._alike[alike]

    def _merged(self, names: LayerNames, matching: set[str]) -> ResolvedSettings:
        """The settings of all layers that `matching` entries and the same rules hold for."""
        target = self._target
        values = _target_values(target)
        origins = dict.fromkeys(values, f"target {target.name}")
        for op, given in _op_rules(target, names):
            values.update(given)
            origins.update(dict.fromkeys(given, f"target {target.name}, rule for {op}"))
        defaults = self._config.defaults.given()
        values.update(defaults)
        origins.update(dict.fromkeys(defaults, "default of this configuration"))
        changed: set[str] = set()
        for pattern in sorted(matching, key=self._order.__getitem__):
            given = self._config.layers[pattern].given()
            origin = BY_NAME if pattern == names.name else f"{BY_NAME} by {pattern!r}"
            values.update(given)
            origins.update(dict.fromkeys(given, origin))
            changed |= given.keys()
        return ResolvedSettings(
            values=LayerSettings(**values),
            changed=frozenset(changed),
            patterns=frozenset(matching),
            origins=origins,
            asked=frozenset({*defaults, *changed}),
        )


def _target_values(target: Target) -> dict[str, Any]:
    weights, activations = target.weights, target.activations
    return {
        **{f"weight_{key}": value for key, value in weights if key != "signed"},
        **{f"act_{key}": value for key, value in activations if key != "signed"},
    }


def _op_rules(target: Target, names: LayerNames) -> Iterable[tuple[str, dict[str, Any]]]:
    """(op, settings) of the target's rules that concern the layer."""
    for op, rule in target.ops.items():
        whole = op in names.blocks
        given = {
            key: value
            for key, value in rule.given().items()
            if whole or op in (names.first if _is_of_reader(key) else names.last)
        }
        if given:
            yield op, given


def _is_of_reader(key: str) -> bool:
    """True for settings of what the layer's first op reads: its weights, and dynamic ranges."""
    return key.startswith("weight_") or key == "act_dynamic"


def _is_pattern(pattern: str) -> bool:
    return bool(set(pattern) & set("*?[")) or pattern.startswith(("op:", "block:"))


def _matches(pattern: str, names: LayerNames) -> bool:
    kind, _, rest = pattern.partition(":")
    if kind == "op":
        return any(fnmatchcase(op, rest) for op in names.ops)
    if kind == "block":
        return any(fnmatchcase(block, rest) for block in names.blocks)
    return fnmatchcase(names.name, pattern)
