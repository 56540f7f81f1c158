"""What is known about tensors that hold shapes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.edit import array_of, input_of, int_attribute, is_op

MAX_RANK = 16

# One entry of a shape: a number, a (tensor, axis) whose size it is, or None for unknown.
Entry = int | tuple[str, int] | None


class ShapeValues:
    """Follows shapes through Shape, Gather, Slice, Concat, Squeeze, Unsqueeze, Reshape and Cast.

    Entries that are not numbers are remembered as "the size of axis k of tensor t", so that a
    Reshape to a shape taken from its own input is recognised. Two axes with the same symbolic name
    are not taken for equal: exporters reuse names such as `?`.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._entries: dict[int, tuple[Entry, ...]] = {}
        self._scalar: dict[int, bool] = {}
        for node in graph:
            if len(node.outputs) == 1 and node.outputs[0].dtype in (
                ir.DataType.INT64, ir.DataType.INT32, None,
            ):  # fmt: skip
                self._follow(node)

    def entries(self, value: ir.Value | None) -> tuple[Entry, ...] | None:
        """Entries of a 1-D (or, one entry, 0-D) integer tensor; None if nothing is known."""
        if value is None:
            return None
        if id(value) in self._entries:
            return self._entries[id(value)]
        array = array_of(value)
        if array is None or array.ndim > 1 or array.size > MAX_RANK or array.dtype.kind not in "iu":
            return None
        return tuple(int(n) for n in array.ravel())

    def known(self, value: ir.Value) -> np.ndarray | None:
        """The tensor itself if all its entries are numbers (and it is not a constant already)."""
        entries = self._entries.get(id(value))
        if entries is None or not all(isinstance(entry, int) for entry in entries):
            return None
        dtype = np.int32 if value.dtype == ir.DataType.INT32 else np.int64
        array = np.array(entries, dtype)
        return array.reshape(()) if self._scalar[id(value)] else array

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        if id(old) in self._entries:
            self._entries[id(new)] = self._entries[id(old)]
            self._scalar[id(new)] = self._scalar[id(old)]

    def _follow(self, node: ir.Node) -> None:
        found = self._evaluate(node)
        if found is not None and len(found[0]) <= MAX_RANK:
            self._entries[id(node.outputs[0])], self._scalar[id(node.outputs[0])] = found

    def _is_scalar(self, value: ir.Value) -> bool:
        if id(value) in self._scalar:
            return self._scalar[id(value)]
        array = array_of(value)
        return array is not None and array.ndim == 0

    def _evaluate(self, node: ir.Node) -> tuple[tuple[Entry, ...], bool] | None:
        """Entries of the output, and whether it is a scalar."""
        source = input_of(node, 0)
        if source is None:
            return None
        if is_op(node, "Shape"):
            return self._shape(node, source)
        if is_op(node, "Concat"):
            parts = [self.entries(value) for value in node.inputs]
            if any(part is None for part in parts):
                return None
            return tuple(entry for part in parts if part is not None for entry in part), False
        entries = self.entries(source)
        if entries is None:
            return None
        if is_op(node, "Identity"):
            return entries, self._is_scalar(source)
        if is_op(node, "Cast"):
            integer = int_attribute(node, "to", 0) in (ir.DataType.INT64, ir.DataType.INT32)
            return (entries, self._is_scalar(source)) if integer else None
        if is_op(node, "Unsqueeze"):
            return (entries, False) if self._is_scalar(source) else None
        if is_op(node, "Reshape"):
            target = array_of(input_of(node, 1))
            flat = target is not None and target.tolist() in ([-1], [len(entries)])
            return (entries, False) if flat else None
        if is_op(node, "Squeeze"):
            return (entries, True) if len(entries) == 1 else None
        if is_op(node, "Gather") and not self._is_scalar(source):
            return self._gather(entries, input_of(node, 1))
        if is_op(node, "Slice"):
            return self._slice(entries, node)
        return None

    def _shape(self, node: ir.Node, source: ir.Value) -> tuple[tuple[Entry, ...], bool] | None:
        if source.shape is None:
            return None
        entries: list[Entry] = [
            size if isinstance(size, int) else (source.name or "", axis)
            for axis, size in enumerate(source.shape)
        ]
        start, end = int_attribute(node, "start", 0), int_attribute(node, "end", len(entries))
        return tuple(entries[start:end]), False

    def _gather(
        self, entries: tuple[Entry, ...], index: ir.Value | None
    ) -> tuple[tuple[Entry, ...], bool] | None:
        array = array_of(index)
        if array is None or array.ndim > 1 or array.size > MAX_RANK:
            return None
        picks = [int(i) for i in array.ravel()]
        if any(not -len(entries) <= i < len(entries) for i in picks):
            return None
        return tuple(entries[i] for i in picks), array.ndim == 0

    def _slice(
        self, entries: tuple[Entry, ...], node: ir.Node
    ) -> tuple[tuple[Entry, ...], bool] | None:
        bounds = [array_of(input_of(node, i)) for i in (1, 2)]
        step = array_of(input_of(node, 4))
        if input_of(node, 4) is not None and step is None:
            return None
        if any(bound is None or bound.size != 1 for bound in bounds):
            return None
        start, end = (int(bound.ravel()[0]) for bound in bounds if bound is not None)
        stride = 1 if step is None else int(step.ravel()[0])
        return (entries[start:end:stride], False) if stride > 0 else None
