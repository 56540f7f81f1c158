"""What the canvas draws, and which box is beside which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PySide6.QtGui import QColor

LAYER_SIZE = (232.0, 48.0)
IO_SIZE = (168.0, 32.0)
GAP_X = 36.0
GAP_Y = 26.0

Point = tuple[float, float]


@dataclass(frozen=True)
class CanvasNode:
    """One box. `color` is the overlay's colour (stripe at the left), `badge` a short text.

    `mark` is a short warning, drawn as a word in a frame. `value` is what the colour stands for.
    A frame is drawn around the boxes that name it as their `parent`; it comes before them.
    `toggle`: the box can be opened into a frame, the frame closed again.
    """

    id: str
    title: str
    subtitle: str = ""
    badge: str = ""
    color: QColor | None = None
    shape: Literal["layer", "io", "frame"] = "layer"
    tooltip: str = ""
    parent: str = ""
    toggle: bool = False
    mark: str = ""
    value: str = ""


@dataclass(frozen=True)
class CanvasEdge:
    """A line from one box to another; `label` is shown when either end is selected."""

    source: str
    target: str
    label: str = ""


class Layout(Protocol):
    """Where the boxes are: centres by id, and a polyline for each edge (source, target)."""

    @property
    def centres(self) -> Mapping[str, Point]: ...

    @property
    def routes(self) -> Mapping[tuple[str, str], Sequence[Point]]: ...


class Arrange(Protocol):
    """The function that lays out: nodes as (id, width, height), edges as (source, target)."""

    def __call__(
        self,
        nodes: Sequence[tuple[str, float, float]],
        edges: Sequence[tuple[str, str]],
        *,
        gap_x: float,
        gap_y: float,
    ) -> Layout: ...


def node_size(node: CanvasNode) -> tuple[float, float]:
    """Width and height of the box in scene units (pixels at 100 %)."""
    return IO_SIZE if node.shape == "io" else LAYER_SIZE


class Neighbours:
    """Steps from box to box: along edges, and sideways within a row."""

    def __init__(self, edges: Sequence[CanvasEdge], positions: Mapping[str, Point]) -> None:
        self._positions = positions
        self._down: dict[str, list[str]] = defaultdict(list)
        self._up: dict[str, list[str]] = defaultdict(list)
        for edge in edges:
            self._down[edge.source].append(edge.target)
            self._up[edge.target].append(edge.source)
        rows: dict[int, list[str]] = defaultdict(list)
        for name, (_, y) in positions.items():
            rows[round(y)].append(name)
        self._rows = {y: sorted(row, key=lambda n: positions[n][0]) for y, row in rows.items()}

    def below(self, name: str) -> str | None:
        """The consumer nearest in x."""
        return self._nearest(name, self._down[name])

    def above(self, name: str) -> str | None:
        """The producer nearest in x."""
        return self._nearest(name, self._up[name])

    def beside(self, name: str, step: int) -> str | None:
        """The box `step` places to the right in the same row."""
        if name not in self._positions:  # a frame
            return None
        row = self._rows[round(self._positions[name][1])]
        index = row.index(name) + step
        return row[index] if 0 <= index < len(row) else None

    def _nearest(self, name: str, candidates: Sequence[str]) -> str | None:
        x, y = self._positions.get(name, (0.0, 0.0))
        return min(
            candidates,
            key=lambda n: (
                abs(self._positions[n][0] - x) + 0.25 * abs(self._positions[n][1] - y),
                n,
            ),
            default=None,
        )


class _NoLayout:
    centres: Mapping[str, Point] = {}
    routes: Mapping[tuple[str, str], Sequence[Point]] = {}


def no_layout(
    nodes: Sequence[tuple[str, float, float]],
    edges: Sequence[tuple[str, str]],
    *,
    gap_x: float,
    gap_y: float,
) -> _NoLayout:
    """Arranges a graph without boxes."""
    return _NoLayout()


def searchable(node: CanvasNode) -> str:
    """What a search looks at, in lower case."""
    return f"{node.id} {node.title} {node.subtitle} {node.badge} {node.mark}".lower()
