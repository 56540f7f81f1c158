"""The layout: nothing overlaps, chains are straight, odd graphs are tolerated."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from studio.graph.layout import Layout, layout

Nodes = list[tuple[str, float, float]]
Edges = list[tuple[str, str]]


def residual_network(count: int) -> tuple[Nodes, Edges]:
    nodes: Nodes = [("n0", 120, 40)]
    edges: Edges = []
    last = "n0"
    while len(nodes) < count:
        start = last
        for width in (80, 160, 120, 100, 60):
            nodes.append((f"n{len(nodes)}", width, 40))
            edges.append((last, nodes[-1][0]))
            last = nodes[-1][0]
        edges.append((start, last))
    return nodes, edges


def check(nodes: Nodes, edges: Edges, result: Layout) -> None:
    """Every node inside the drawing, none on another, every edge from its node to its node."""
    assert set(result.centres) == {node for node, _, _ in nodes}
    for node, width, height in nodes:
        x, y = result.centres[node]
        assert -1e-6 <= x - width / 2 <= x + width / 2 <= result.width + 1e-6
        assert -1e-6 <= y - height / 2 <= y + height / 2 <= result.height + 1e-6
    for (a, aw, ah), (b, bw, bh) in combinations(nodes, 2):
        (ax, ay), (bx, by) = result.centres[a], result.centres[b]
        assert abs(ax - bx) >= (aw + bw) / 2 - 1e-6 or abs(ay - by) >= (ah + bh) / 2 - 1e-6
    known = {node for node, _, _ in nodes}
    assert set(result.routes) == {(a, b) for a, b in edges if a != b and a in known and b in known}
    for (a, b), route in result.routes.items():
        assert len(route) >= 2
        assert route[0][0] == result.centres[a][0]
        assert route[-1][0] == result.centres[b][0]


def test_main_chain_is_straight_with_the_skips_beside_it() -> None:
    nodes, edges = residual_network(41)
    result = layout(nodes, edges)
    check(nodes, edges, result)
    assert len({x for x, _ in result.centres.values()}) == 1
    chain = [result.centres[f"n{i}"][1] for i in range(41)]
    assert chain == sorted(chain)
    for (a, b), route in result.routes.items():
        if int(b[1:]) - int(a[1:]) > 1:
            beside = [x for x, _ in route[1:-1]]
            assert all(abs(x - result.centres[a][0]) > 30 for x in beside)
        else:
            assert len(route) == 2


def test_edges_do_not_run_through_nodes() -> None:
    nodes, edges = residual_network(41)
    result = layout(nodes, edges)
    for (a, b), route in result.routes.items():
        for (x0, y0), (x1, y1) in pairwise(route):
            for node, width, height in nodes:
                x, y = result.centres[node]
                inside = abs((x0 + x1) / 2 - x) < width / 2 and abs((y0 + y1) / 2 - y) < height / 2
                assert not inside or node in (a, b)


def test_two_branches_lie_side_by_side() -> None:
    nodes = [(name, 100.0, 40.0) for name in "abcd"]
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
    result = layout(nodes, edges, gap_x=20, gap_y=30)
    check(nodes, edges, result)
    (bx, by), (cx, cy) = result.centres["b"], result.centres["c"]
    assert by == cy
    assert abs(bx - cx) >= 120
    assert result.height == 3 * 40 + 2 * 30


def test_crossings_are_avoided() -> None:
    nodes = [(name, 50.0, 20.0) for name in ("a", "b", "c", "p", "q", "r")]
    edges = [("a", "r"), ("b", "q"), ("c", "p")]
    result = layout(nodes, edges)
    top = sorted("abc", key=lambda n: result.centres[n][0])
    assert [dict(edges)[n] for n in top] == sorted("pqr", key=lambda n: result.centres[n][0])


def test_nothing_and_one() -> None:
    assert layout([], []) == Layout({}, {}, 0.0, 0.0)
    assert layout([("a", 10, 4)], [("a", "a")]) == Layout({"a": (5, 2)}, {}, 10, 4)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.lists(st.tuples(st.integers(10, 200), st.integers(10, 60)), min_size=n, max_size=n),
            st.lists(st.tuples(st.integers(0, n), st.integers(0, n)), max_size=30),
        )
    )
)
def test_any_graph(
    graph: tuple[list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    """Loops, cycles, duplicates, unknown ends, separate parts."""
    nodes = [(str(i), float(w), float(h)) for i, (w, h) in enumerate(graph[0])]
    edges = [(str(a), str(b)) for a, b in graph[1]]
    result = layout(nodes, edges)
    check(nodes, edges, result)
    assert result == layout(nodes, edges)
