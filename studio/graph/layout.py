"""Where to draw the nodes of a graph: layers from top to bottom, straight chains, few crossings.

Sugiyama's method: break cycles, rank by longest path, put dummy vertices on edges that span
several ranks, order each rank by barycentres, then choose x so that chains stay straight
(the priority method: the more a vertex belongs to a long chain, the sooner it gets its way).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

SWEEPS = 8
STRAIGHTENING = 4

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Centres of the nodes, a polyline for each edge (source's bottom to target's top), the size.

    All coordinates are in the units of the node sizes; the drawing begins at (0, 0).
    """

    centres: dict[str, Point]
    routes: dict[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float


class _Drawing:
    """Vertices are numbers: first the nodes, then a dummy for each rank an edge crosses."""

    def __init__(self, sizes: list[tuple[float, float]], edges: list[tuple[int, int]]) -> None:
        self.sizes = sizes
        self.nodes = len(sizes)
        self.edges = edges
        self.rank: list[int] = []
        self.up: list[list[int]] = [[] for _ in sizes]
        self.down: list[list[int]] = [[] for _ in sizes]
        self.chains: list[list[int]] = []
        self.layers: list[list[int]] = []
        self.x: list[float] = []


def layout(
    nodes: Sequence[tuple[str, float, float]],
    edges: Sequence[tuple[str, str]],
    *,
    gap_x: float = 24.0,
    gap_y: float = 32.0,
) -> Layout:
    """Lay out `nodes` (id, width, height), `edges` pointing downwards.

    Tolerates self-loops (left out), duplicate edges (drawn once), edges to unknown nodes (left
    out), cycles (some edge of it points upwards), parts without connection, and nothing at all.
    The result depends on the order of nodes and edges, and on nothing else.
    """
    number = {node: index for index, (node, _, _) in enumerate(nodes)}
    wanted = dict.fromkeys(
        (number[a], number[b]) for a, b in edges if a in number and b in number and a != b
    )
    if not number:
        return Layout({}, {}, 0.0, 0.0)
    sizes = [(width, height) for _, width, height in nodes]
    forward = _without_cycles(len(sizes), list(wanted))
    drawing = _Drawing(sizes, forward)
    _assign_ranks(drawing)
    _add_dummies(drawing)
    _order(drawing)
    _place(drawing, gap_x)
    return _result(drawing, [node for node, _, _ in nodes], wanted.keys(), gap_y)


def _without_cycles(count: int, edges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The edges, with those that close a cycle turned round."""
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        after[a].append(b)
    state = [0] * count  # 1 while on the current path, 2 when done
    backward: set[tuple[int, int]] = set()
    for root in range(count):
        if state[root]:
            continue
        state[root] = 1
        path = [(root, iter(after[root]))]
        while path:
            vertex, rest = path[-1]
            for target in rest:
                if state[target] == 1:
                    backward.add((vertex, target))
                elif not state[target]:
                    state[target] = 1
                    path.append((target, iter(after[target])))
                    break
            else:
                state[vertex] = 2
                path.pop()
    turned = dict.fromkeys((b, a) if (a, b) in backward else (a, b) for a, b in edges)
    return list(turned)


def _assign_ranks(drawing: _Drawing) -> None:
    """Longest path from the top; sources stand just above their first reader."""
    count = drawing.nodes
    after: list[list[int]] = [[] for _ in range(count)]
    before: list[list[int]] = [[] for _ in range(count)]
    for a, b in drawing.edges:
        after[a].append(b)
        before[b].append(a)
    waiting = [len(sources) for sources in before]
    order = [vertex for vertex in range(count) if not waiting[vertex]]
    rank = [0] * count
    for vertex in order:
        for target in after[vertex]:
            rank[target] = max(rank[target], rank[vertex] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                order.append(target)
    for vertex in reversed(order):
        if after[vertex] and not before[vertex]:
            rank[vertex] = min(rank[target] for target in after[vertex]) - 1
    drawing.rank = rank


def _add_dummies(drawing: _Drawing) -> None:
    """Edges leave a node together and part where they have to: its edges share dummies."""
    columns: dict[tuple[int, int], int] = {}  # (node, rank) -> dummy
    joined: set[tuple[int, int]] = set()
    for a, b in drawing.edges:
        chain = [a]
        for rank in range(drawing.rank[a] + 1, drawing.rank[b]):
            if (a, rank) not in columns:
                columns[a, rank] = len(drawing.rank)
                drawing.rank.append(rank)
                drawing.up.append([])
                drawing.down.append([])
            chain.append(columns[a, rank])
        chain.append(b)
        for pair in pairwise(chain):
            if pair not in joined:
                joined.add(pair)
                drawing.down[pair[0]].append(pair[1])
                drawing.up[pair[1]].append(pair[0])
        drawing.chains.append(chain)


def _order(drawing: _Drawing) -> None:
    """Order within ranks: depth first to begin with, then barycentre sweeps; the best is kept."""
    layers: list[list[int]] = [[] for _ in range(max(drawing.rank) + 1)]
    seen = [False] * len(drawing.rank)
    roots = sorted(range(len(drawing.rank)), key=lambda v: drawing.rank[v])
    for root in roots:
        stack = [root]
        while stack:
            vertex = stack.pop()
            if not seen[vertex]:
                seen[vertex] = True
                layers[drawing.rank[vertex]].append(vertex)
                stack.extend(v for v in reversed(drawing.down[vertex]) if not seen[v])
    drawing.layers = layers
    if all(len(layer) < 2 for layer in layers):
        return
    best, fewest = [list(layer) for layer in layers], _crossings(drawing)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        downwards = sweep % 2 == 0
        _sweep(drawing, downwards)
        crossings = _crossings(drawing)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in drawing.layers], crossings
    drawing.layers = best


def _sweep(drawing: _Drawing, downwards: bool) -> None:
    layers = drawing.layers if downwards else drawing.layers[::-1]
    neighbours = drawing.up if downwards else drawing.down
    position = [0.0] * len(drawing.rank)
    for index, vertex in enumerate(layers[0]):
        position[vertex] = index
    for layer in layers[1:]:
        if len(layer) > 1:
            keys = {}
            for index, vertex in enumerate(layer):
                near = neighbours[vertex]
                keys[vertex] = sum(position[v] for v in near) / len(near) if near else index
            layer.sort(key=keys.__getitem__)
        for index, vertex in enumerate(layer):
            position[vertex] = index


def _crossings(drawing: _Drawing) -> int:
    """Edge crossings between neighbouring ranks, counted with a Fenwick tree."""
    total = 0
    for upper, lower in zip(drawing.layers, drawing.layers[1:], strict=False):
        if len(upper) < 2 or len(lower) < 2:
            continue
        place = {vertex: index + 1 for index, vertex in enumerate(lower)}
        tree = [0] * (len(lower) + 1)
        passed = 0
        for vertex in upper:
            ends = [place[target] for target in drawing.down[vertex]]
            for end in ends:
                total += passed
                index = end
                while index:
                    total -= tree[index]
                    index &= index - 1
            for end in ends:
                passed += 1
                while end < len(tree):
                    tree[end] += 1
                    end += end & -end
    return total


def _place(drawing: _Drawing, gap: float) -> None:
    """x of every vertex. Dummies of long edges and the main chain get their way first."""
    count = len(drawing.rank)
    widths = [size[0] for size in drawing.sizes] + [0.0] * (count - drawing.nodes)
    drawing.x = [0.0] * count
    weight = _priorities(drawing)
    for layer in drawing.layers:
        left = 0.0
        for vertex in layer:
            drawing.x[vertex] = left + widths[vertex] / 2
            left += widths[vertex] + gap
        shift = (left - gap) / 2
        for vertex in layer:
            drawing.x[vertex] -= shift
    for _ in range(STRAIGHTENING):
        for layers, neighbours in (
            (drawing.layers[1:], drawing.up),
            (drawing.layers[-2::-1], drawing.down),
        ):
            for layer in layers:
                _straighten(drawing, layer, neighbours, weight, widths, gap)


def _priorities(drawing: _Drawing) -> list[int]:
    """How soon a vertex gets its way: the length of the straight chain it is part of.

    The main chain is a longest path of real nodes; it goes first of all.
    """
    count = len(drawing.rank)
    weight = [len(drawing.up[v]) + len(drawing.down[v]) for v in range(count)]
    for chain in drawing.chains:
        for vertex in chain[1:-1]:
            weight[vertex] = 10 + len(chain)
    for vertex in _main_chain(drawing):
        weight[vertex] = count + 100
    return weight


def _main_chain(drawing: _Drawing) -> list[int]:
    """A longest path through neighbouring ranks."""
    length = [1] * len(drawing.rank)
    following = [-1] * len(drawing.rank)
    for layer in reversed(drawing.layers):
        for vertex in layer:
            for target in drawing.down[vertex]:
                # a real node counts far more than a dummy: the chain follows the layers
                gain = length[target] + (1000 if vertex < drawing.nodes else 1)
                if gain > length[vertex]:
                    length[vertex], following[vertex] = gain, target
    chain = []
    vertex = max(range(len(length)), key=length.__getitem__)
    while vertex >= 0:
        chain.append(vertex)
        vertex = following[vertex]
    return chain


def _straighten(
    drawing: _Drawing,
    layer: list[int],
    neighbours: list[list[int]],
    weight: list[int],
    widths: list[float],
    gap: float,
) -> None:
    """Move each vertex of `layer` towards its neighbours' median, the weightiest first.

    A vertex pushes lighter ones aside, and stops at those that have been moved before it.
    """
    x = drawing.x
    if len(layer) == 1:
        if neighbours[layer[0]]:
            x[layer[0]] = _goal(neighbours[layer[0]], x, weight)
        return
    fixed = [False] * len(layer)
    spots = sorted(range(len(layer)), key=lambda i: -weight[layer[i]])
    for spot in spots:
        vertex = layer[spot]
        fixed[spot] = True
        if not neighbours[vertex]:
            continue
        goal = _goal(neighbours[vertex], x, weight)
        step = 1 if goal > x[vertex] else -1
        goal = _reachable(layer, spot, step, goal, fixed, x, widths, gap)
        x[vertex] = goal
        edge, here = goal, spot
        while 0 <= here + step < len(layer):  # push the lighter ones
            other = layer[here + step]
            nearest = edge + step * ((widths[layer[here]] + widths[other]) / 2 + gap)
            if (x[other] - nearest) * step >= 0:
                break
            x[other] = edge = nearest
            here += step


def _goal(near: list[int], x: list[float], weight: list[int]) -> float:
    """Where a vertex wants to be: below the weightiest neighbour, else the median of all."""
    if len(near) == 1:
        return x[near[0]]
    heaviest = max(near, key=weight.__getitem__)
    others = [v for v in near if v != heaviest]
    if weight[heaviest] > 2 * max(weight[v] for v in others):
        return x[heaviest]
    return float(median(x[v] for v in near))


def _reachable(
    layer: list[int],
    spot: int,
    step: int,
    goal: float,
    fixed: list[bool],
    x: list[float],
    widths: list[float],
    gap: float,
) -> float:
    """How far `layer[spot]` can go towards `goal` before the row is jammed at a fixed vertex."""
    room, here = 0.0, spot
    while 0 <= here + step < len(layer):
        room += (widths[layer[here]] + widths[layer[here + step]]) / 2 + gap
        here += step
        if fixed[here]:
            limit = x[layer[here]] - step * room
            return min(goal, limit) if step > 0 else max(goal, limit)
    return goal


def _result(
    drawing: _Drawing, names: list[str], wanted: Collection[tuple[int, int]], gap: float
) -> Layout:
    widths, x = [size[0] for size in drawing.sizes], drawing.x
    left = min(x[v] - (widths[v] / 2 if v < drawing.nodes else 0) for v in range(len(x)))
    right = max(x[v] + (widths[v] / 2 if v < drawing.nodes else 0) for v in range(len(x)))
    top, middles, heights = 0.0, [], []
    for layer in drawing.layers:
        height = max((drawing.sizes[v][1] for v in layer if v < drawing.nodes), default=0.0)
        middles.append(top + height / 2)
        heights.append(height)
        top += height + gap
    centres = {name: (x[v] - left, middles[drawing.rank[v]]) for v, name in enumerate(names)}
    routes: dict[tuple[str, str], tuple[Point, ...]] = {}
    for chain in drawing.chains:
        points = _route(drawing, chain, left, middles, heights)
        a, b = chain[0], chain[-1]
        if (a, b) in wanted:
            routes[names[a], names[b]] = tuple(points)
        if (b, a) in wanted:  # was turned round
            routes[names[b], names[a]] = tuple(reversed(points))
    return Layout(centres, routes, right - left, top - gap)


def _route(
    drawing: _Drawing, chain: list[int], left: float, middles: list[float], heights: list[float]
) -> list[Point]:
    """From the bottom of the first to the top of the last; straight through each rank between."""
    first, last = chain[0], chain[-1]
    start = middles[drawing.rank[first]] + drawing.sizes[first][1] / 2
    end = middles[drawing.rank[last]] - drawing.sizes[last][1] / 2
    points = [(drawing.x[first] - left, start)]
    for vertex in chain[1:-1]:
        rank, x = drawing.rank[vertex], drawing.x[vertex] - left
        points.append((x, middles[rank] - heights[rank] / 2))
        points.append((x, middles[rank] + heights[rank] / 2))
    points.append((drawing.x[last] - left, end))
    kept = points[:1]
    for before, point, after in zip(points, points[1:], points[2:], strict=False):
        if not before[0] == point[0] == after[0]:
            kept.append(point)
    return [*kept, points[-1]]
