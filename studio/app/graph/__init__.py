"""The canvas that shows a graph of boxes. It knows boxes and lines, not models."""

from studio.app.graph.model import CanvasEdge, CanvasNode, node_size
from studio.app.graph.view import GraphView

__all__ = ["CanvasEdge", "CanvasNode", "GraphView", "node_size"]
