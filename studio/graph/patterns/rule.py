"""A rule of recognition: finds its layers in a graph and marks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

import onnx_ir as ir

from studio.graph.model import Change
from studio.graph.patterns import marks
from studio.graph.patterns.marks import LAYER, Mark
from studio.graph.patterns.match import Found, Pattern
from studio.graph.scopes import scope


@dataclass(frozen=True)
class Group:
    """Operators that are one layer; `last` makes its result.

    Without a module or path that they share, the layer is called `name`, or after `last`.
    """

    kind: str
    nodes: frozenset[ir.Node]
    last: ir.Node
    name: str = ""


Finder = Callable[[ir.Node], Group | None]


@dataclass(frozen=True)
class Rule:
    """A step of preparation that marks layers without changing the graph.

    `find` is asked for every operator of the types `roots` whether it is the last of a layer,
    if the graph has an operator of one of the types `needs` at all.
    """

    name: str
    description: str
    needs: frozenset[str]
    roots: frozenset[str]
    find: Finder

    def run(self, model: ir.Model) -> list[Change]:
        """Mark the layers of this rule anew; says which were not marked so before."""
        graph = model.graph
        before = marks.clear(graph, self.name)
        nodes = list(graph)
        if not any(node.op_type in self.needs for node in nodes):
            return []
        groups: list[Group] = []
        taken: set[ir.Node] = set()
        for node in reversed(nodes):  # the largest first: it ends last
            if node.op_type not in self.roots or node in taken:
                continue
            group = self.find(node) if marks.layer_of(node) is None else None
            if group is not None and is_closed(group) and not group.nodes & taken:
                groups.append(group)
                taken |= group.nodes
        naming = Naming(graph)
        changes: list[Change] = []
        for group in reversed(groups):
            changes += mark_group(group, LAYER, self.name, naming, before)
        return changes


def mark_group(
    group: Group,
    key: str,
    rule: str,
    naming: Naming,
    before: dict[ir.Node, tuple[str, ...]],
) -> list[Change]:
    """Mark `group`; a Change unless all its nodes said the same `before`."""
    mark = Mark(group.kind, naming.name(group), rule)
    text = "\n".join(mark)
    known = all(text in before.get(node, ()) for node in group.nodes)
    for node in group.nodes:
        marks.write(node, key, mark)
    if known:
        return []
    types = sorted(Counter(node.op_type for node in group.nodes).items())
    listed = ", ".join(f"{count} {op}" if count > 1 else op for op, count in types)
    unit = "layer" if key == LAYER else "block"
    detail = f"{len(group.nodes)} operators are one {group.kind} {unit}: {listed}."
    return [Change(rule, mark.name, detail)]


def is_closed(group: Group) -> bool:
    """True if only the last operator's result leaves the group, and all its operators are free."""
    for node in group.nodes:
        if marks.layer_of(node) is not None or node.graph is not group.last.graph:
            return False
        if node is group.last:
            continue
        for value in node.outputs:
            if value.is_graph_output():
                return False
            if any(use.node not in group.nodes for use in value.uses()):
                return False
    return True


def pattern_finder(*spellings: tuple[str, Pattern]) -> Finder:
    """A finder for (kind, pattern): the first closed match counts."""

    def find(node: ir.Node) -> Group | None:
        for kind, pattern in spellings:
            for found in pattern.matches(node.outputs[0], Found()):
                group = Group(kind, found.nodes, node)
                if is_closed(group):
                    return group
        return None

    return find


class Naming:
    """Names for groups: the PyTorch module or the path that their operators share."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._taken: Counter[str | None] = Counter()
        self._members: Counter[str] = Counter()  # nodes in a module or path, those below it too

    def _count(self) -> None:
        self._taken.update(value.name for value in self._graph.inputs)
        groups: set[str] = set()
        for node in self._graph:
            self._taken[node.name] += 1
            self._members.update(_prefixes(scope(node), "."))
            self._members.update(_prefixes(_folder(node), "/"))
            groups.update(m.name for m in (marks.layer_of(node), marks.block_of(node)) if m)
        self._taken.update(groups - self._taken.keys())

    def name(self, group: Group) -> str:
        """A unique name; it may be that of a node of the group."""
        if not self._taken:
            self._count()
        wanted = self._wanted(group)
        own = Counter(node.name for node in group.nodes)
        name, count = wanted, 0
        while self._taken[name] > own[name]:
            count += 1
            name = f"{wanted}_{count}"
        self._taken[name] += 1
        return name

    def _wanted(self, group: Group) -> str:
        for separator, where in ((".", scope), ("/", _folder)):
            paths = [where(node).split(separator) for node in group.nodes]
            levels = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
            shared = separator.join(parts[0] for parts in levels)
            if shared:
                alone = self._members[shared] == len(group.nodes)
                return shared if alone else f"{shared}{separator}{group.kind}"
        return group.name or group.last.name or group.kind


def _prefixes(path: str, separator: str) -> list[str]:
    """`a.b.c` -> a, a.b, a.b.c."""
    parts = path.split(separator) if path else []
    return [separator.join(parts[:count]) for count in range(1, len(parts) + 1)]


def _folder(node: ir.Node) -> str:
    """`/encoder/norm` of a node named `/encoder/norm/Sub`."""
    return (node.name or "").rpartition("/")[0]
