"""Names of operators and layers that rules and patterns refer to."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from studio.graph.patterns import block_of
from studio.sim.fusion import FusedGroup, Unit
from studio.sim.settings import LayerNames

_SAME = (
    ("LayerNorm", "LayerNormalization"),
    ("RMSNorm", "RMSNormalization", "SimplifiedLayerNormalization"),
    ("GroupNorm", "GroupNormalization"),
    ("InstanceNorm", "InstanceNormalization"),
    ("GELU", "Gelu"),
    ("PReLU", "PRelu"),
    ("SiLU", "Swish"),
)
_ALIASES = {name: frozenset(names) for names in _SAME for name in names}


def names_of(name: str) -> frozenset[str]:
    """What an op type or a kind of layer is called in rules: `LayerNorm` is also its ONNX type."""
    return _ALIASES.get(name, frozenset([name]))


def is_one_of(name: str, rules: Collection[str]) -> bool:
    """True if `rules` (names in a rule file) name the op or kind `name`."""
    return any(alias in rules for alias in names_of(name))


def unit_names(unit: Unit) -> frozenset[str]:
    """Names of a unit; a Linear (MatMul + Add) is a MatMul too."""
    own = names_of(unit.label)
    return own | {unit.nodes[0].op_type} if unit.kind == "Linear" else own


def layer_names(group: FusedGroup) -> LayerNames:
    """What the settings of the group's layer may be addressed by."""
    blocks = [mark for node in group.nodes if (mark := block_of(node)) is not None]
    return LayerNames(
        name=group.name,
        ops=_all(names_of(node.op_type) for node in group.nodes)
        | _all(unit_names(unit) for unit in group.units),
        first=unit_names(group.units[0]),
        last=unit_names(group.units[-1]),
        blocks=frozenset(word for mark in blocks for word in (mark.kind, mark.name)),
    )


def _all(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
