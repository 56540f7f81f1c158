"""Which layers an entry of `QuantConfig.layers` is for."""

from __future__ import annotations

from collections.abc import Iterable

from studio.graph.model import ModelGraph
from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.rules.context import Context
from studio.sim.settings import LayerNames, SettingsResolver
from studio.sim.target import load_target


def matching_layers(
    graph: ModelGraph, config: QuantConfig, patterns: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Pattern -> names of the layers it matches, in execution order (model inputs first).

    Raises ConfigError for a target that cannot be loaded.
    """
    wanted = tuple(dict.fromkeys(patterns))
    # Only whether an entry matches is asked, so that every pattern sets the same.
    marks = {pattern: LayerSettings(act_enabled=True) for pattern in wanted}
    probe = config.model_copy(update={"layers": marks})
    target = load_target(config.target)
    context = Context.of(graph, probe, target, ())
    resolver = SettingsResolver(probe, target)
    inputs = frozenset(["Input"])
    names = [LayerNames(value.name or "", inputs, inputs, inputs) for value in graph.inputs]
    names += [context.names_of(group) for group in context.groups]
    found: dict[str, list[str]] = {pattern: [] for pattern in wanted}
    for layer in names:
        for pattern in resolver.resolve(layer).patterns:
            found[pattern].append(layer.name)
    return {pattern: tuple(layers) for pattern, layers in found.items()}
