"""Which boxes the graph shows: layers, blocks of layers, and the operators of recognised layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.app.graph import CanvasEdge

if TYPE_CHECKING:
    import onnx_ir as ir

    from studio.graph.model import ModelGraph
    from studio.sim.plan import Layer, Plan


@dataclass(frozen=True)
class Box:
    """A block, a layer or an operator of a recognised layer.

    `id` is the layer's name; blocks and operators have a prefix, for a layer may be called alike.
    `layers` are the names of the layers it stands for. `parent` is the id of the block or layer it
    is inside of, "" for none.
    """

    id: str
    title: str
    subtitle: str
    layers: tuple[str, ...]
    parent: str = ""
    opens: bool = False


class Boxes:
    """The boxes of a plan as a tree, in execution order: a parent comes before its parts.

    The layers `hidden` have none.
    """

    def __init__(self, plan: Plan, graph: ModelGraph, hidden: Collection[str] = ()) -> None:
        self.plan = plan
        self._layers = [layer for layer in plan.layers if layer.name not in hidden]
        self._graph = graph
        self.all: dict[str, Box] = {}
        members: dict[str, list[str]] = {}
        for layer in self._layers:
            if layer.block is not None:
                members.setdefault(f"block:{layer.block[1]}", []).append(layer.name)
        for layer in self._layers:
            parent = f"block:{layer.block[1]}" if layer.block is not None else ""
            if layer.block is not None and parent not in self.all:
                kind, name = layer.block
                self._add(Box(parent, kind, name, tuple(members[parent]), "", True))
            opens = bool(layer.kind)
            self._add(Box(layer.name, layer.title, layer.name, (layer.name,), parent, opens))
            for name in layer.nodes if opens else ():
                title = graph.node(name).op_type
                self._add(Box(f"op:{name}", title, name, (layer.name,), layer.name))

    def _add(self, box: Box) -> None:
        self.all[box.id] = box

    def around(self, name: str) -> Iterator[str]:
        """Ids of the boxes that the box `name` is inside of, innermost first."""
        parent = self.all[name].parent
        while parent:
            yield parent
            parent = self.all[parent].parent

    def visible(self, opened: Collection[str]) -> list[Box]:
        """The boxes to draw while the boxes `opened` are open, frames before what is in them."""
        return [
            box
            for box in self.all.values()
            if all(outer in opened for outer in self.around(box.id))
        ]

    def box_of(self, name: str) -> str:
        """Id of the box of a layer, else of the operator or block of that name; "" for none."""
        ids = (name, f"op:{name}", f"block:{name}")
        return next((known for known in ids if known in self.all), "")

    def find(self, words: str) -> list[str]:
        """Ids of boxes whose texts hold every word, the outermost that do."""
        wanted = words.lower().split()
        found: set[str] = set()
        for box in self.all.values():
            text = f"{box.id} {box.title} {box.subtitle}".lower()
            outer = any(name in found for name in self.around(box.id))
            if wanted and not outer and all(word in text for word in wanted):
                found.add(box.id)
        return [name for name in self.all if name in found]

    def edges(self, opened: Collection[str]) -> list[CanvasEdge]:
        """A line for every activation from the drawn box that makes it to one that reads it."""
        makers: dict[str, str] = {}
        readers: list[tuple[str, str]] = []
        for layer in self._layers:
            for box, reads, makes in self._flows(layer, opened):
                makers.update(dict.fromkeys(makes, box))
                readers += [(tensor, box) for tensor in reads]
        edges = [
            CanvasEdge(makers[tensor], box, tensor)
            for tensor, box in readers
            if makers.get(tensor, box) != box
        ]
        return list(dict.fromkeys(edges))

    def _flows(
        self, layer: Layer, opened: Collection[str]
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        """(box, tensors read, tensors made) of the boxes that stand for `layer`."""
        box = self.all[layer.name]
        if box.parent and box.parent not in opened:
            yield box.parent, list(layer.inputs), list(layer.outputs)
        elif not (box.opens and box.id in opened):
            yield box.id, list(layer.inputs), list(layer.outputs)
        else:
            for node in map(self._graph.node, layer.nodes):
                yield f"op:{node.name}", _names(node.inputs), _names(node.outputs)


def _names(values: Collection[ir.Value | None]) -> list[str]:
    return [value.name for value in values if value is not None and value.name]
