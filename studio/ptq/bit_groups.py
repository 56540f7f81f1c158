"""Which layers must share their bits, and what each candidate is for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.graph.model import ModelGraph
from studio.quant.grid import Grid
from studio.sim.config import QuantConfig
from studio.sim.overrides import with_settings
from studio.sim.placement import place
from studio.sim.plan import Layer, Plan, Role

FLOAT = "float"
Settings = Mapping[str, Mapping[str, Any]]
"""Layer name -> key -> value."""


@dataclass(frozen=True)
class Candidate:
    """Bits of weights and of the output; None both: the layer stays in float."""

    weight: int | None
    act: int | None

    @property
    def name(self) -> str:
        """`W4A8`, `float`."""
        return FLOAT if self.weight is None else f"W{self.weight}A{self.act}"


def parse_candidate(text: str) -> Candidate:
    """`w4a8` or `float`; ValueError for other words and for bits that are not 2 to 16."""
    word = text.strip().lower()
    if word == FLOAT:
        return Candidate(None, None)
    found = re.fullmatch(r"w(\d+)a(\d+)", word)
    if not found or not all(2 <= int(bits) <= 16 for bits in found.groups()):
        raise ValueError(f"{text!r} is neither of the form w4a8, with 2 to 16 bits, nor float")
    return Candidate(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class Group:
    """Layers that get the same candidate. `choices` are the candidates that differ for them, each
    an index into all candidates; `choice_of` says for each candidate which of them it comes to."""

    layers: tuple[str, ...]
    choices: tuple[int, ...]
    choice_of: tuple[int, ...]


@dataclass(frozen=True)
class Groups:
    """The groups of a model, and the settings of each of their layers under each candidate."""

    candidates: tuple[Candidate, ...]
    groups: tuple[Group, ...]
    settings: tuple[Settings, ...]

    def settings_of(self, chosen: Sequence[int]) -> dict[str, dict[str, Any]]:
        """Settings of all layers where group i has the candidate chosen[i]."""
        return {
            layer: dict(self.settings[candidate][layer])
            for group, candidate in zip(self.groups, chosen, strict=True)
            for layer in group.layers
        }

    def uniform(self, candidate: int) -> tuple[int, ...]:
        """The candidate of each group where all have the same."""
        return tuple(group.choices[group.choice_of[candidate]] for group in self.groups)

    @property
    def free(self) -> tuple[int, ...]:
        """Indices of the groups with a choice."""
        return tuple(i for i, group in enumerate(self.groups) if len(group.choices) > 1)


@dataclass(frozen=True)
class Special:
    """Layers whose weights, and whose outputs, have other bits than most by a rule of the target or
    a pattern of the configuration: somebody knows why, so they are left alone."""

    weight: frozenset[str]
    act: frozenset[str]


def special_layers(graph: ModelGraph, config: QuantConfig) -> Special:
    """The special layers under `config`, whatever bits are set by a layer's name."""
    names = [layer.name for layer in place(graph, config).layers if layer.name in config.layers]
    plan = place(graph, config.with_layers(names, weight_bits=None, act_bits=None))

    def unlike(kind: str) -> frozenset[str]:
        bits = {
            layer.name: getattr(layer.settings, f"{kind}_bits")
            for layer in plan.layers
            if getattr(layer.settings, f"{kind}_bits") is not None
        }
        ((usual, _),) = Counter(bits.values()).most_common(1) or [(None, 0)]
        return frozenset(name for name, own in bits.items() if own != usual)

    return Special(unlike("weight"), unlike("act"))


def possible_candidates(
    graph: ModelGraph, config: QuantConfig, candidates: Iterable[Candidate]
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Those that the target can do in all layers, and why not the others."""
    plan, special = place(graph, config), special_layers(graph, config)
    kept, problems = [], []
    for candidate in dict.fromkeys(candidates):
        settings = _settings(plan, candidate, special, switches=True)
        under = place(graph, with_settings(graph, config, settings))
        new = [text for text in under.impossible if text not in plan.impossible]
        if new:
            problems.append(f"{candidate.name} is left out: {new[0]}")
        else:
            kept.append(candidate)
    return tuple(kept), tuple(problems)


def find_groups(plan: Plan, candidates: Sequence[Candidate], special: Special) -> Groups:
    """The groups of `plan`, in execution order of their first layers.

    Layers share their bits where they share an encoding (the inputs of a Concat) or a weight, and
    where they are the products of one block on the same input, which run as one (query, key and
    value). Left alone are `special` layers and those that are switched off (unless float is a
    candidate), have floating-point or dynamic numbers, or come quantized.
    """
    switches = any(candidate.weight is None for candidate in candidates)
    settings = tuple(_settings(plan, each, special, switches) for each in candidates)
    together = _Union(settings[0])
    layer_of = {name: row.layer for name, row in plan.tensors.items()}
    products: dict[object, str] = {}
    for layer in plan.layers:
        for name in (*layer.weights, *layer.outputs):
            together.join(layer.name, layer_of.get(name, ""))
            together.join(layer.name, layer_of.get(plan.tensors[name].tied_to or name, ""))
        if layer.block is not None and _has_weight(plan, layer):
            together.join(layer.name, products.setdefault((layer.block, layer.inputs), layer.name))
    groups = []
    for layers in together.sets():
        kinds: list[tuple[Any, ...]] = []
        choices: list[int] = []
        choice_of = []
        for index in range(len(candidates)):
            kind = tuple(tuple(settings[index][layer].items()) for layer in layers)
            if kind not in kinds:
                kinds.append(kind)
                choices.append(index)
            choice_of.append(kinds.index(kind))
        groups.append(Group(layers, tuple(choices), tuple(choice_of)))
    return Groups(tuple(candidates), tuple(groups), settings)


def _settings(
    plan: Plan, candidate: Candidate, special: Special, switches: bool
) -> dict[str, dict[str, Any]]:
    """What `candidate` is for each layer that takes part; `switches`: on and off as well."""
    result = {}
    for layer in plan.layers:
        own: dict[str, Any] = {}
        weight = _has_weight(plan, layer) or (switches and _is_off(layer, "weight"))
        if weight and layer.name not in special.weight:
            own.update(_part("weight", candidate.weight, switches))
        act = _has_act(plan, layer) or (switches and _is_off(layer, "act"))
        if act and layer.name not in special.act:
            own.update(_part("act", candidate.act, switches))
        if own:
            result[layer.name] = own
    return result


def _part(kind: str, bits: int | None, switches: bool) -> dict[str, Any]:
    if bits is None:
        return {f"{kind}_enabled": False}
    return {f"{kind}_bits": bits, **({f"{kind}_enabled": True} if switches else {})}


def _is_off(layer: Layer, kind: str) -> bool:
    settings = layer.settings
    integers = getattr(settings, f"{kind}_format") in (None, "int")
    known = getattr(settings, f"{kind}_bits") is not None
    return known and integers and getattr(settings, f"{kind}_enabled") is False


def _has_weight(plan: Plan, layer: Layer) -> bool:
    """True if the layer has a weight of integers whose bits its settings decide."""
    if layer.settings.weight_bits is None:
        return False
    rows = [plan.tensors[name] for name in layer.weights]
    return any(
        row.role is Role.WEIGHT
        and row.spec is not None
        and not row.from_file
        and isinstance(row.spec.grid, Grid)
        for row in rows
    )


def _has_act(plan: Plan, layer: Layer) -> bool:
    """True if the bits of the layer's output are decided by its settings."""
    if layer.settings.act_bits is None:
        return False
    row = plan.tensors[layer.output]
    return (
        row.spec is not None
        and not row.dynamic
        and not row.from_file
        and isinstance(row.spec.grid, Grid)
    )


class _Union:
    """Disjoint sets of layers, in order."""

    def __init__(self, names: Iterable[str]) -> None:
        self._root = {name: name for name in names}

    def join(self, one: str, other: str) -> None:
        """Put both into one set, if both are known."""
        if one in self._root and other in self._root:
            first, second = self._find(one), self._find(other)
            self._root[second] = first

    def sets(self) -> list[tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name in self._root:
            found.setdefault(self._find(name), []).append(name)
        return [tuple(names) for names in found.values()]

    def _find(self, name: str) -> str:
        while self._root[name] != name:
            name = self._root[name]
        return name
