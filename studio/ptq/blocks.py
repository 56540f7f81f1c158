"""Where a network can be cut: blocks of layers that hand on a single tensor."""

from __future__ import annotations

from studio.graph.model import ModelGraph
from studio.sim.plan import Layer, Plan

MOST_WEIGHTS = 3
"""Layers with weights that a block of a chain takes: those of an inverted residual."""


def blocks_of(graph: ModelGraph, plan: Plan) -> list[tuple[Layer, ...]]:
    """The layers of `plan` in order: what lies between a branch and where it joins again is one
    block (a residual block, attention), of a plain chain `MOST_WEIGHTS` layers are. (Li et al.
    2021, "BRECQ", arXiv 2102.05426, section 3.3.)"""
    blocks: list[tuple[Layer, ...]] = []
    chain: list[Layer] = []
    for part in _parts(graph, plan):
        if len(part) > 1:
            blocks += [tuple(chain)] if chain else []
            chain = []
            blocks.append(part)
            continue
        chain += part
        if sum(1 for layer in chain if layer.weights) == MOST_WEIGHTS:
            blocks.append(tuple(chain))
            chain = []
    return [*blocks, tuple(chain)] if chain else blocks


def _parts(graph: ModelGraph, plan: Plan) -> list[tuple[Layer, ...]]:
    """The layers, cut wherever one tensor at most is still needed."""
    end = len(plan.layers)
    last = {value.name or "": end for value in graph.outputs}
    for place, layer in enumerate(plan.layers):
        for name in layer.inputs:
            last[name] = max(last.get(name, -1), place)
    parts: list[tuple[Layer, ...]] = []
    current: list[Layer] = []
    needed: set[str] = set()
    for place, layer in enumerate(plan.layers):
        current.append(layer)
        needed = {name for name in (*needed, *layer.outputs) if last.get(name, -1) > place}
        if len(needed) <= 1:
            parts.append(tuple(current))
            current = []
    return [*parts, tuple(current)] if current else parts
