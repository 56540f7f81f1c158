"""Adds quantizers to one model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from studio.graph.edit import bypass
from studio.graph.quantized.activations import BRANCH
from studio.graph.quantized.found import BITS_NOTE
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid, Grid
from studio.sim.qdq.float4 import float4_nodes
from studio.sim.qdq.names import dequantized_name, quantized_name
from studio.sim.qdq.storage import CONTRIB_BITS, is_cast, types_of

FLOAT = ir.DataType.FLOAT


class Builder:
    """Puts Q and DQ nodes into `model`, which it changes."""

    def __init__(self, model: ir.Model, *, contrib: bool = False) -> None:
        self.model = model
        self.graph = model.graph
        self.contrib = contrib and model.opset_imports.get("", 0) < 21
        self.values = {value.name: value for value in self.graph.inputs}
        self.values.update({value.name: value for value in self.graph.initializers.values()})
        for node in self.graph:
            self.values.update({value.name: value for value in node.outputs})

    def constant(self, name: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
        """A new initializer."""
        tensor = ir.Tensor(array, dtype=dtype, name=name)
        value = ir.val(name, dtype=dtype, shape=array.shape, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    # --- constants ------------------------------------------------------------------------------

    def replace_constant(self, value: ir.Value, array: np.ndarray) -> None:
        """Give the float constant `value` other numbers."""
        value.const_value = ir.tensor(array, name=value.name)

    def dequantize_constant(
        self,
        value: ir.Value,
        encoding: Encoding,
        bits: int,
        integers: np.ndarray,
        readers: frozenset[str] | None,
    ) -> None:
        """Replace a float constant by its integers and a DequantizeLinear."""
        name = value.name or ""
        dtype, array_type = types_of(encoding.grid, bits)
        stored = self.constant(quantized_name(name), integers.astype(array_type), dtype)
        if is_cast(encoding.grid):
            node = _cast(stored, FLOAT, f"{name}_Cast")
        else:
            scale, zero_point = self._parameters(name, encoding, bits)
            inputs = [stored, scale] if zero_point is None else [stored, scale, zero_point]
            node = self._linear("DequantizeLinear", name, inputs, encoding, bits)
        _note_bits(node, encoding.grid, bits)
        self._serve_constant(value, [node], readers)

    def quantize_constant(
        self, value: ir.Value, encoding: Encoding, bits: int, readers: frozenset[str] | None
    ) -> None:
        """Leave a constant in float, with Q and DQ behind it."""
        name = value.name or ""
        dtype, _ = types_of(encoding.grid, bits)
        if is_cast(encoding.grid):
            first = _cast(value, dtype, f"{name}_Cast")
            second = _cast(first.outputs[0], FLOAT, f"{name}_Cast_1")
        else:
            scale, zero_point = self._parameters(name, encoding, bits)
            others = [scale] if zero_point is None else [scale, zero_point]
            first = self._linear("QuantizeLinear", name, [value, *others], encoding, bits)
            second = self._linear(
                "DequantizeLinear", name, [first.outputs[0], *others], encoding, bits
            )
        _describe(first.outputs[0], quantized_name(name), dtype, value.shape)
        _note_bits(second, encoding.grid, bits)
        self._serve_constant(value, [first, second], readers)

    def _serve_constant(
        self, value: ir.Value, nodes: list[ir.Node], readers: frozenset[str] | None
    ) -> None:
        """Readers of the constant `value` get the result of `nodes`."""
        name, result = value.name or "", nodes[-1].outputs[0]
        _describe(result, dequantized_name(name, False), FLOAT, value.shape)
        for use in list(value.uses()):
            if use.node not in nodes and (readers is None or use.node.name in readers):
                use.node.replace_input_with(use.idx, result)
        for node in reversed(nodes):
            self.graph.insert_before(self.graph[0], node)
        if not value.uses() and not value.is_graph_output():
            del self.graph.initializers[name]

    # --- activations ----------------------------------------------------------------------------

    def quantize_activation(
        self,
        value: ir.Value,
        encoding: Encoding,
        bits: int,
        readers: frozenset[str] | None,
        *,
        as_operators: bool = False,
    ) -> None:
        """Put Q (Clip) DQ behind `value`: `readers` (None: all) get the rounded tensor.

        `as_operators` rounds to float4 by arithmetic, for runtimes without that type.
        """
        name, grid = value.name or "", encoding.grid
        dtype, _ = types_of(grid, bits)
        nodes: list[ir.Node] = []

        def add(node: ir.Node, dtype: ir.DataType, output: str) -> ir.Value:
            _describe(node.outputs[0], output, dtype, value.shape)
            nodes.append(node)
            return node.outputs[0]

        def clip(data: ir.Value, low: Any, high: Any, dtype: ir.DataType, output: str) -> ir.Value:
            kind = dtype.numpy()
            limits = [
                self.constant(f"{name}_clip_min", np.array(low, dtype=kind), dtype),
                self.constant(f"{name}_clip_max", np.array(high, dtype=kind), dtype),
            ]
            return add(ir.node("Clip", [data, *limits], name=f"{name}_Clip"), dtype, output)

        result = value
        if is_cast(grid):
            result = add(_cast(result, dtype, f"{name}_Cast"), dtype, quantized_name(name))
            result = add(_cast(result, FLOAT, f"{name}_Cast_1"), FLOAT, "")
        elif as_operators and isinstance(grid, FloatGrid) and grid.bits == 4:
            scale, _ = self._parameters(name, encoding, bits)
            new = float4_nodes(self.constant, value, scale, encoding)
            for node in new:
                output = node.outputs[0].name or ""
                result = add(node, node.outputs[0].dtype or FLOAT, output)
        else:
            scale, zero_point = self._parameters(name, encoding, bits)
            others = [scale] if zero_point is None else [scale, zero_point]
            narrowed = isinstance(grid, Grid) and (grid.bits < bits or grid.strict)
            if narrowed and bits > 8:
                result = clip(result, encoding.minimum, encoding.maximum, FLOAT, f"{name}_clipped")
            limited = isinstance(grid, Grid) and narrowed and bits == 8
            quantized = f"{name}_saturated" if limited else quantized_name(name)
            node = self._linear("QuantizeLinear", name, [result, *others], encoding, bits)
            result = add(node, dtype, quantized)
            if limited and isinstance(grid, Grid):
                result = clip(result, grid.qmin, grid.qmax, dtype, quantized_name(name))
            node = self._linear("DequantizeLinear", name, [result, *others], encoding, bits)
            result = add(node, FLOAT, "")
        self._serve(value, nodes, readers)

    def quantize_dynamically(self, value: ir.Value, readers: frozenset[str] | None) -> None:
        """Put DynamicQuantizeLinear and DequantizeLinear behind `value`."""
        name = value.name or ""
        first = ir.node(
            "DynamicQuantizeLinear", [value], num_outputs=3, name=f"{name}_DynamicQuantizeLinear"
        )
        scalar = ir.Shape(())
        _describe(first.outputs[0], quantized_name(name), ir.DataType.UINT8, value.shape)
        _describe(first.outputs[1], f"{name}_scale", FLOAT, scalar)
        _describe(first.outputs[2], f"{name}_zero_point", ir.DataType.UINT8, scalar)
        second = ir.node("DequantizeLinear", list(first.outputs), name=f"{name}_DequantizeLinear")
        _describe(second.outputs[0], "", FLOAT, value.shape)
        self._serve(value, [first, second], readers)

    def _serve(self, value: ir.Value, nodes: list[ir.Node], readers: frozenset[str] | None) -> None:
        """Readers of `value` get the result of `nodes`; so does who runs the model, if all do."""
        name, result = value.name or "", nodes[-1].outputs[0]
        for use in list(value.uses()):
            if use.node not in nodes and (readers is None or use.node.name in readers):
                use.node.replace_input_with(use.idx, result)
        producer = value.producer()
        if value.is_graph_output() and producer is not None and readers is None:
            position = [output is value for output in self.graph.outputs].index(True)
            self.graph.outputs[position] = result
            value.name = f"{name}_unquantized"
            result.name = name
        else:
            result.name = dequantized_name(name, False)
        if producer is None:
            for node in reversed(nodes):
                self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, nodes)

    # --- nodes ----------------------------------------------------------------------------------

    def _parameters(
        self, name: str, encoding: Encoding, bits: int
    ) -> tuple[ir.Value, ir.Value | None]:
        """Scale and zero point of tensor `name`, the latter in the type of its numbers.

        A bias has no zero point: onnxruntime's fused kernels do not look for one.
        """
        scale = self.constant(f"{name}_scale", encoding.scale, FLOAT)
        if bits == 32:
            return scale, None
        dtype, array_type = types_of(encoding.grid, bits)
        zero_point: np.ndarray = encoding.zero_point.astype(array_type)
        return scale, self.constant(f"{name}_zero_point", zero_point, dtype)

    def _linear(
        self, op: str, name: str, inputs: list[ir.Value], encoding: Encoding, bits: int
    ) -> ir.Node:
        """A QuantizeLinear or DequantizeLinear; no axis for a single scale, which some parsers
        refuse there."""
        attributes: dict[str, int] = {}
        if encoding.axis is not None:
            attributes["axis"] = encoding.axis
        if encoding.block_size is not None:
            attributes["block_size"] = encoding.block_size
        contrib = self.contrib and isinstance(encoding.grid, Grid) and bits in CONTRIB_BITS
        if contrib:
            self.model.opset_imports.setdefault("com.microsoft", 1)
        domain = "com.microsoft" if contrib else ""
        return ir.node(op, inputs, attributes, domain=domain, name=f"{name}_{op}")

    def finish(self) -> None:
        """Order the nodes. An Identity that only stands for a Q/DQ pair has done its work."""
        for node in list(self.graph):
            if BRANCH in node.metadata_props and not node.outputs[0].is_graph_output():
                source = node.inputs[0]
                readers = [use.node for use in node.outputs[0].uses()]
                if source is not None and any(map(_rounds, readers)):
                    bypass(node, source)
        self.graph.sort()


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    """A Cast for rounding, noted as such: others are there for the type."""
    node = ir.node("Cast", [value], {"to": to.value}, name=name)
    node.metadata_props[BITS_NOTE] = "16"
    return node


def _rounds(node: ir.Node) -> bool:
    return "QuantizeLinear" in node.op_type or (
        node.op_type == "Cast" and BITS_NOTE in node.metadata_props
    )


def _note_bits(node: ir.Node, grid: Grid | FloatGrid, bits: int) -> None:
    if grid.bits < bits:
        node.metadata_props[BITS_NOTE] = str(grid.bits)


def _describe(value: ir.Value, name: str, dtype: ir.DataType, shape: ir.Shape | None) -> None:
    value.name = name
    value.dtype = dtype
    value.shape = shape
