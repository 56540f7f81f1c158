"""How layout and drawing grow with the graph, relative to a graph of 500 nodes.

    QT_QPA_PLATFORM=offscreen python tests/benchmarks/drawing.py

Linear growth is a ratio of 2 for 1,000 and 10 for 5,000 nodes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication

from studio.app.graph.model import CanvasEdge, CanvasNode
from studio.app.graph.view import GraphView
from studio.graph.layout import layout

SIZES = (500, 1000, 5000)
ROUNDS = 3


def best(work: Callable[[], object]) -> float:
    """Seconds of processor time, the least of some rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def chain(count: int) -> list[tuple[str, str]]:
    """Blocks of five with a shortcut around each."""
    edges = [(f"n{i}", f"n{i + 1}") for i in range(count - 1)]
    return edges + [(f"n{i}", f"n{i + 5}") for i in range(0, count - 5, 5)]


def main() -> None:
    QApplication([])
    layouts, drawings = [], []
    for count in SIZES:
        pairs = chain(count)
        boxes = [(f"n{i}", 120.0, 40.0) for i in range(count)]
        layouts.append(best(lambda boxes=boxes, pairs=pairs: layout(boxes, pairs)))
        placed = layout(boxes, pairs)
        nodes = [CanvasNode(name, name) for name, _, _ in boxes]
        edges = [CanvasEdge(source, target) for source, target in pairs]

        def draw(nodes=nodes, edges=edges, placed=placed) -> None:  # type: ignore[no-untyped-def]
            view = GraphView()
            view.resize(900, 600)
            view.show()
            view.set_graph(nodes, edges, lambda *_, **__: placed)
            view.viewport().repaint()

        drawings.append(best(draw))
    for name, seconds in (("layout", layouts), ("draw", drawings)):
        ratios = ", ".join(
            f"{count}: {value / seconds[0]:.1f}"
            for count, value in zip(SIZES, seconds, strict=True)
        )
        print(f"{name} (500 nodes {1000 * seconds[0]:.0f} ms): {ratios}")


if __name__ == "__main__":
    main()
