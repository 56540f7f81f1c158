"""The quantized graph: QuantizeLinear / DequantizeLinear around every quantized tensor.

What is exported is what is simulated: `Constants.FLOAT` gives the same graph with its constants
already rounded and written in float, which runs faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from studio.errors import ExportError
from studio.graph.edit import bypass
from studio.graph.model import ModelGraph
from studio.graph.opset import convert_opset
from studio.graph.quantized.activations import BRANCH
from studio.graph.quantized.found import BITS_NOTE
from studio.quant.encoding import Encoding
from studio.sim.found import constant_integers
from studio.sim.plan import Plan, Role, TensorPlan

_CONTAINERS = {
    (2, True): (ir.DataType.INT2, ml_dtypes.int2),
    (2, False): (ir.DataType.UINT2, ml_dtypes.uint2),
    (4, True): (ir.DataType.INT4, ml_dtypes.int4),
    (4, False): (ir.DataType.UINT4, ml_dtypes.uint4),
    (8, True): (ir.DataType.INT8, np.int8),
    (8, False): (ir.DataType.UINT8, np.uint8),
    (16, True): (ir.DataType.INT16, np.int16),
    (16, False): (ir.DataType.UINT16, np.uint16),
    (32, True): (ir.DataType.INT32, np.int32),
}


class Constants(Enum):
    """How quantized constants are written: integers behind DequantizeLinear, or rounded floats."""

    INTEGER = "integer"
    FLOAT = "float"


def quantized_name(tensor: str) -> str:
    """Name of the integer tensor made from `tensor`."""
    return f"{tensor}_quantized"


def dequantized_name(tensor: str, is_output: bool) -> str:
    """Name of the rounded float tensor made from `tensor`; a model output keeps its own name."""
    return tensor if is_output else f"{tensor}_dequantized"


def required_opset(plan: Plan, weight_storage_bits: int) -> int:
    """Lowest opset with the integer types `plan` needs: 13; 21 for 4 and 16 bits, 25 for 2.

    (ONNX operators QuantizeLinear-13, QuantizeLinear-21, QuantizeLinear-25.)
    """
    containers = {
        _container(tensor, weight_storage_bits)
        for tensor in plan.tensors.values()
        if tensor.spec is not None
    }
    if 2 in containers:
        return 25
    return 21 if containers & {4, 16} else 13


def insert_qdq(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    *,
    constants: Constants,
    weight_storage_bits: int = 8,
) -> ir.Model:
    """A copy of `graph` with Q/DQ at every tensor that `plan` quantizes.

    Sub-8-bit activations go through uint8/int8 with a Clip between Q and DQ (QCDQ); 9 to 15 bits
    through 16-bit types with a Clip before Q. Raises ExportError if an encoding is missing.
    """
    missing = [name for name in plan.quantized if name not in encodings]
    if missing:
        raise ExportError(
            f"{len(missing)} tensors have no encoding yet, the first is {missing[0]}.",
            "Calibrate first.",
        )
    needed = required_opset(plan, weight_storage_bits)
    copy = convert_opset(graph.ir.clone(), needed) if graph.opset < needed else graph.ir.clone()
    builder = _Builder(copy)
    for name in plan.quantized:
        encoding = encodings[name]
        value = builder.values[name]
        row = plan.tensors[name]
        bits = _container(row, weight_storage_bits)
        if not _is_constant(row.role):
            builder.quantize_activation(value, encoding, bits)
            continue
        integers = constant_integers(graph, row, encoding)
        if constants is Constants.FLOAT:
            _replace_constant(value, encoding.dequantize(integers))
        else:
            builder.dequantize_constant(value, encoding, bits, integers)
    builder.finish()
    return copy


def _is_constant(role: Role) -> bool:
    return role in (Role.WEIGHT, Role.BIAS, Role.CONSTANT)


def _container(row: TensorPlan, weight_storage_bits: int) -> int:
    """Bits of the ONNX integer type that holds the integers of `row`; as in the file it came in."""
    assert row.spec is not None
    if row.spec.storage_bits is not None:
        return row.spec.storage_bits
    smallest = weight_storage_bits if _is_constant(row.role) else 8
    return next(size for size in (4, 8, 16, 32) if size >= row.spec.grid.bits and size >= smallest)


def _replace_constant(value: ir.Value, array: np.ndarray) -> None:
    value.const_value = ir.tensor(array, name=value.name)


class _Builder:
    """Adds nodes to one model."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.values = {value.name: value for value in self.graph.inputs}
        self.values.update({value.name: value for value in self.graph.initializers.values()})
        for node in self.graph:
            self.values.update({value.name: value for value in node.outputs})

    def constant(self, name: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
        """A new initializer."""
        value = ir.val(
            name,
            dtype=dtype,
            shape=array.shape,
            const_value=ir.Tensor(array, dtype=dtype, name=name),
        )
        self.graph.register_initializer(value)
        return value

    def _parameters(self, name: str, encoding: Encoding, bits: int) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point of tensor `name`, the latter in the integer type of `bits` bits."""
        dtype, array_type = _CONTAINERS[bits, encoding.grid.signed]
        return (
            self.constant(f"{name}_scale", encoding.scale, ir.DataType.FLOAT),
            self.constant(f"{name}_zero_point", encoding.zero_point.astype(array_type), dtype),
        )

    def dequantize_constant(
        self, value: ir.Value, encoding: Encoding, bits: int, integers: np.ndarray
    ) -> None:
        """Replace a float constant by its integers and a DequantizeLinear."""
        name = value.name or ""
        dtype, array_type = _CONTAINERS[bits, encoding.grid.signed]
        quantized = self.constant(quantized_name(name), integers.astype(array_type), dtype)
        scale, zero_point = self._parameters(name, encoding, bits)
        # A bias has no zero point: onnxruntime's fused kernels do not look for one.
        inputs = [quantized, scale] if bits == 32 else [quantized, scale, zero_point]
        if bits == 32:
            del self.graph.initializers[zero_point.name or ""]
        node = ir.node("DequantizeLinear", inputs, _axis(encoding), name=f"{name}_DequantizeLinear")
        if encoding.grid.bits < bits:
            node.metadata_props[BITS_NOTE] = str(encoding.grid.bits)
        _describe(node.outputs[0], dequantized_name(name, False), ir.DataType.FLOAT, value.shape)
        value.replace_all_uses_with(node.outputs[0])
        self.graph.insert_before(self.graph[0], node)
        del self.graph.initializers[name]

    def quantize_activation(self, value: ir.Value, encoding: Encoding, bits: int) -> None:
        """Put Q (Clip) DQ behind `value`; every reader gets the rounded tensor."""
        name = value.name or ""
        grid = encoding.grid
        dtype, array_type = _CONTAINERS[bits, grid.signed]
        uses = list(value.uses())
        is_output = value.is_graph_output()
        scale, zero_point = self._parameters(name, encoding, bits)
        nodes: list[ir.Node] = []

        def add(op: str, inputs: list[ir.Value], dtype: ir.DataType, output: str) -> ir.Value:
            attributes = {} if op == "Clip" else _axis(encoding)
            node = ir.node(op, inputs, attributes, name=f"{name}_{op}")
            _describe(node.outputs[0], output, dtype, value.shape)
            nodes.append(node)
            return node.outputs[0]

        def bounds(low: Any, high: Any, dtype: ir.DataType, kind: Any) -> list[ir.Value]:
            return [
                self.constant(f"{name}_clip_min", np.array(low, dtype=kind), dtype),
                self.constant(f"{name}_clip_max", np.array(high, dtype=kind), dtype),
            ]

        result = value
        if 8 < grid.bits < bits:
            limits = bounds(encoding.minimum, encoding.maximum, ir.DataType.FLOAT, np.float32)
            result = add("Clip", [result, *limits], ir.DataType.FLOAT, f"{name}_clipped")
        if grid.bits < bits == 8:
            result = add("QuantizeLinear", [result, scale, zero_point], dtype, f"{name}_saturated")
            limits = bounds(grid.qmin, grid.qmax, dtype, array_type)
            result = add("Clip", [result, *limits], dtype, quantized_name(name))
        else:
            result = add("QuantizeLinear", [result, scale, zero_point], dtype, quantized_name(name))
        result = add("DequantizeLinear", [result, scale, zero_point], ir.DataType.FLOAT, "")
        for use in uses:
            use.node.replace_input_with(use.idx, result)
        if is_output and value.producer() is not None:
            position = [output is value for output in self.graph.outputs].index(True)
            self.graph.outputs[position] = result
            value.name = f"{name}_unquantized"
            result.name = name
        else:
            result.name = dequantized_name(name, False)
        producer = value.producer()
        if producer is None:
            for node in reversed(nodes):
                self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, nodes)

    def finish(self) -> None:
        """Order the nodes. An Identity that only stands for a Q/DQ pair has done its work."""
        for node in list(self.graph):
            if BRANCH in node.metadata_props and not node.outputs[0].is_graph_output():
                source = node.inputs[0]
                readers = [use.node.op_type for use in node.outputs[0].uses()]
                if source is not None and "QuantizeLinear" in readers:
                    bypass(node, source)
        self.graph.sort()


def _axis(encoding: Encoding) -> dict[str, int]:
    """The axis attribute; none for a single scale (some parsers refuse it there)."""
    return {} if encoding.axis is None else {"axis": encoding.axis}


def _describe(value: ir.Value, name: str, dtype: ir.DataType, shape: ir.Shape | None) -> None:
    value.name = name
    value.dtype = dtype
    value.shape = shape
