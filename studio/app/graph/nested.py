"""Layout of boxes inside frames: each frame is laid out by itself and then is a box of its own.

Lines into a frame come in at its top and part inside; lines out of it leave at its bottom.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from studio.app.graph.model import (
    GAP_X,
    GAP_Y,
    Arrange,
    CanvasEdge,
    CanvasNode,
    Point,
    node_size,
)

HEADER, PADDING = 30.0, 14.0
ENTRY, EXIT = "\0entry", "\0exit"  # the ports of a frame; no box is called so
PORT = (2.0, 0.0)


@dataclass
class Arranged:
    """Centres and sizes of all boxes and frames, and a polyline for each edge."""

    centres: dict[str, Point] = field(default_factory=dict)
    sizes: dict[str, tuple[float, float]] = field(default_factory=dict)
    routes: dict[tuple[str, str], Sequence[Point]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Inside:
    """A frame's content, the top left corner at (0, 0)."""

    centres: Mapping[str, Point]
    routes: Mapping[tuple[str, str], Sequence[Point]]
    size: tuple[float, float]


def arrange_nested(
    nodes: Sequence[CanvasNode], edges: Sequence[CanvasEdge], arrange: Arrange
) -> Arranged:
    """Lay out `nodes`, each within the frame that its `parent` names; edges join boxes."""
    return _Nesting(nodes, edges, arrange).run()


class _Nesting:
    def __init__(
        self, nodes: Sequence[CanvasNode], edges: Sequence[CanvasEdge], arrange: Arrange
    ) -> None:
        self.nodes = nodes
        self.arrange = arrange
        self.edges = list(dict.fromkeys((edge.source, edge.target) for edge in edges))
        self.members: dict[str, list[CanvasNode]] = defaultdict(list)
        self.path: dict[str, tuple[str, ...]] = {}  # frames around a box, outermost first, and it
        for node in nodes:  # a frame comes before what is in it
            self.members[node.parent].append(node)
            self.path[node.id] = (*self.path.get(node.parent, ()), node.id)
        self.inner: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
        for source, target in self.edges:
            for frame, first, last in self._legs(source, target):
                self.inner[frame][first, last] = None
        self.inside: dict[str, _Inside] = {}
        self.legs: dict[tuple[str, str, str], list[Point]] = {}  # by frame, first and last
        self.result = Arranged()

    def run(self) -> Arranged:
        for node in reversed(self.nodes):
            if node.shape == "frame":
                self.inside[node.id] = self._lay_out(node.id)
        top = self._lay_out("")
        self._put("", top, (0.0, 0.0))
        for source, target in self.edges:
            points: list[Point] = []
            for leg in self._legs(source, target):
                points += self.legs.get(leg, ())
            self.result.routes[source, target] = points
        return self.result

    def _legs(self, source: str, target: str) -> list[tuple[str, str, str]]:
        """(frame, from, to) for each frame an edge runs through, "" being the whole drawing."""
        up, down = self.path[source], self.path[target]
        shared = 0
        while shared < min(len(up), len(down)) - 1 and up[shared] == down[shared]:
            shared += 1
        leaving = [(up[i - 1], up[i], EXIT) for i in range(len(up) - 1, shared, -1)]
        entering = [(down[i - 1], ENTRY, down[i]) for i in range(shared + 1, len(down))]
        across = (up[shared - 1] if shared else "", up[shared], down[shared])
        return [*leaving, across, *entering]

    def _size(self, node: CanvasNode) -> tuple[float, float]:
        inside = self.inside.get(node.id)
        return node_size(node) if inside is None else inside.size

    def _lay_out(self, frame: str) -> _Inside:
        """The content of `frame`, whose own frames have been laid out."""
        edges = [(first, last) for first, last in self.inner[frame] if first != last]
        ports = {end for edge in edges for end in edge if end in (ENTRY, EXIT)}
        sizes = {node.id: self._size(node) for node in self.members[frame]}
        sizes.update(dict.fromkeys(sorted(ports), PORT))
        boxes = [(name, *size) for name, size in sizes.items()]
        layout = self.arrange(boxes, edges, gap_x=GAP_X, gap_y=GAP_Y)
        if not frame:
            return _Inside(layout.centres, layout.routes, (0.0, 0.0))
        xs = [
            layout.centres[name][0] + side * size[0] / 2
            for name, size in sizes.items()
            for side in (-1, 1)
        ]
        ys = [
            layout.centres[name][1] + side * size[1] / 2
            for name, size in sizes.items()
            for side in (-1, 1)
        ]
        xs += [x for line in layout.routes.values() for x, _ in line]
        left, top = PADDING - min(xs), HEADER - min(ys)
        return _Inside(
            {name: (x + left, y + top) for name, (x, y) in layout.centres.items()},
            {edge: [(x + left, y + top) for x, y in line] for edge, line in layout.routes.items()},
            (max(xs) - min(xs) + 2 * PADDING, max(ys) - min(ys) + HEADER + PADDING),
        )

    def _put(self, frame: str, inside: _Inside, corner: Point) -> None:
        """Move the content of `frame` to where the frame is."""
        x0, y0 = corner
        for node in self.members[frame]:
            x, y = inside.centres[node.id]
            size = self._size(node)
            self.result.centres[node.id] = (x + x0, y + y0)
            self.result.sizes[node.id] = size
            if node.id in self.inside:
                corner = (x + x0 - size[0] / 2, y + y0 - size[1] / 2)
                self._put(node.id, self.inside[node.id], corner)
        for (first, last), line in inside.routes.items():
            self.legs[frame, first, last] = [(x + x0, y + y0) for x, y in line]
