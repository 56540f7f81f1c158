"""The model as everything else sees it: one ONNX graph with promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir import Node, Value

from studio.graph.sources.source import ModelSource

if TYPE_CHECKING:
    from studio.graph.quantized.found import FoundQuantization

FLOAT_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Change:
    """One thing preparation did: which rule, to which layer, what was done and why."""

    rule: str
    layer: str
    detail: str


@dataclass(frozen=True)
class ModelGraph:
    """An `onnx_ir.Model` with promises.

    Node and value names are unique, non-empty and stable; constants are initializers; shapes and
    types are inferred where they can be; nodes are in topological order; the opset is at least 13.
    Treat the graph as immutable: passes work on a `copy()`. `captured` is the graph as it was
    before preparation, so that it can be prepared by other rules without reading the source again.
    `found` is the quantization that the file, or an encodings file given with it, states; tensors
    it has nothing for are float, unless it is known `found_partly` only.
    """

    ir: ir.Model
    source: ModelSource
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    captured: ModelGraph | None = field(default=None, repr=False, compare=False)
    found: Mapping[str, FoundQuantization] = field(default_factory=dict, repr=False, compare=False)
    found_partly: bool = False
    _nodes: dict[str, Node] = field(init=False, repr=False, compare=False)
    _positions: dict[str, int] = field(init=False, repr=False, compare=False)
    _values: dict[str, Value] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        nodes = {node.name or "": node for node in self.ir.graph}
        values: dict[str, Value] = {}
        for value in (*self.ir.graph.inputs, *self.ir.graph.initializers.values()):
            values[value.name or ""] = value
        for node in self.ir.graph:
            values.update({value.name: value for value in node.outputs if value.name})
        for body in self.ir.graph.subgraphs():
            inside = [*body.inputs, *body.initializers.values()]
            inside += [value for node in body for value in node.outputs]
            for value in inside:
                values.setdefault(value.name or "", value)
        object.__setattr__(self, "_nodes", nodes)
        positions = {name: position for position, name in enumerate(nodes)}
        object.__setattr__(self, "_positions", positions)
        object.__setattr__(self, "_values", values)

    @property
    def opset(self) -> int:
        """Version of the standard ONNX domain."""
        return self.ir.opset_imports.get("", 0)

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Inputs the caller must feed (initializers excluded)."""
        known = self.ir.graph.initializers
        return tuple(value for value in self.ir.graph.inputs if value.name not in known)

    def example_shape(self, name: str) -> tuple[int | None, ...]:
        """Sizes of the input `name`; an open one is as in the example the model was traced with,
        and None if there was none."""
        shape = self.value(name).shape
        sizes = [] if shape is None else list(shape)
        known = [item for item in self.source.inputs if item.name == name]
        if not known and len(self.inputs) == len(self.source.inputs) == 1:
            known = [item for item in self.source.inputs if item.name is None]
        traced = known[0].shape if known and len(known[0].shape) == len(sizes) else ()
        own = [size if isinstance(size, int) and size > 0 else None for size in sizes]
        return tuple(
            traced[axis] if size is None and traced else size for axis, size in enumerate(own)
        )

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(self.ir.graph.outputs)

    @property
    def initializers(self) -> Mapping[str, Value]:
        return MappingProxyType(self.ir.graph.initializers)

    def nodes(self) -> Iterator[Node]:
        """Nodes in topological order."""
        return iter(self.ir.graph)

    def node(self, name: str) -> Node:
        return self._nodes[name]

    def position(self, name: str) -> int:
        """Place of the node `name` in the topological order."""
        return self._positions[name]

    def value(self, name: str) -> Value:
        """The value `name`, in whichever graph it is."""
        return self._values[name]

    def has_value(self, name: str) -> bool:
        return name in self._values

    def constant(self, name: str) -> np.ndarray:
        """Value of the initializer `name`."""
        tensor = self._values[name].const_value
        assert tensor is not None, f"{name} is not a constant"
        return tensor.numpy()

    def copy(self) -> ModelGraph:
        """A deep copy of the graph; the weights themselves are shared."""
        return replace(self, ir=self.ir.clone())

    def to_proto(self) -> onnx.ModelProto:
        """The model as one protobuf message that holds all weights, external ones too."""
        return ir.to_proto(ir.external_data.load_to_model(self.ir.clone()))


def is_constant(value: ir.Value | None) -> bool:
    """True if `value` is an initializer (and not fed by the caller)."""
    return value is not None and value.const_value is not None and value.producer() is None


def is_float(value: ir.Value) -> bool:
    """True if `value` holds floating-point numbers (or its type is not known)."""
    return value.dtype is None or value.dtype in FLOAT_TYPES
