"""The quantized graph of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import onnx_ir as ir

from studio.errors import ExportError
from studio.graph.model import ModelGraph
from studio.graph.older_opset import older_opset
from studio.graph.opset import convert_opset
from studio.quant.encoding import Encoding
from studio.quant.grid import Grid
from studio.sim.found import constant_integers
from studio.sim.plan import Plan, Role, TensorPlan
from studio.sim.qdq.builder import Builder
from studio.sim.qdq.storage import (
    BYTES,
    Storage,
    check_opset,
    container_bits,
    is_constant,
    required_opset,
)

DYNAMIC_GRID = Grid(8, signed=False, symmetric=False)
"""What DynamicQuantizeLinear rounds to (ONNX operator DynamicQuantizeLinear-11)."""


class Constants(Enum):
    """How quantized constants are written: integers behind DequantizeLinear, rounded floats, or the
    floats they were in front of QuantizeLinear and DequantizeLinear."""

    INTEGER = "integer"
    FLOAT = "float"
    PAIR = "pair"


def insert_qdq(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    *,
    constants: Constants,
    storage: Storage = BYTES,
) -> ir.Model:
    """A copy of `graph` with Q/DQ at every tensor that `plan` quantizes.

    Floating-point formats of 16 bits are a pair of Cast, ranges taken at every inference a
    DynamicQuantizeLinear. `Constants.FLOAT` is the simulation: it holds what onnxruntime can run
    alone. Raises ExportError if an encoding is missing, if `storage.opset` is below what the types
    need or the graph cannot be converted to it.
    """
    missing = [name for name in plan.quantized if name not in encodings]
    if missing:
        raise ExportError(
            f"{len(missing)} tensors have no encoding yet, the first is {missing[0]}.",
            "Calibrate first.",
        )
    check_opset(plan, storage)
    builder = Builder(_at_opset(graph, plan, storage), contrib=storage.contrib)
    for name, row in plan.tensors.items():
        if row.spec is None or (is_constant(row.role) and row.dynamic):
            continue
        value = builder.values[name]
        if row.dynamic:
            _check_dynamic(row)
            builder.quantize_dynamically(value, row.read_by)
        elif is_constant(row.role):
            _write_constant(builder, graph, row, encodings[name], constants, storage)
        else:
            builder.quantize_activation(
                value,
                encodings[name],
                container_bits(row, storage),
                row.read_by,
                as_operators=constants is Constants.FLOAT,
            )
    builder.finish()
    return builder.model


def _write_constant(
    builder: Builder,
    graph: ModelGraph,
    row: TensorPlan,
    encoding: Encoding,
    constants: Constants,
    storage: Storage,
) -> None:
    value, bits = builder.values[row.name], container_bits(row, storage)
    integers = constant_integers(graph, row, encoding)
    if constants is Constants.FLOAT or (row.role is Role.BIAS and storage.float_bias):
        builder.replace_constant(value, encoding.dequantize(integers))
        return
    # QuantizeLinear makes no int32, and no integers but those that its own rounding gives.
    found = graph.found.get(row.name)
    stored = row.role is Role.BIAS or (found is not None and found.integers is not None)
    narrow = isinstance(encoding.grid, Grid) and (encoding.grid.bits < bits or encoding.grid.strict)
    if constants is Constants.PAIR and not stored:
        if narrow:
            builder.replace_constant(value, encoding.dequantize(integers))
        builder.quantize_constant(value, encoding, bits, row.read_by)
    else:
        builder.dequantize_constant(value, encoding, bits, integers, row.read_by)


def _at_opset(graph: ModelGraph, plan: Plan, storage: Storage) -> ir.Model:
    """A copy of the graph at the opset asked for, or at the lowest that has the types."""
    needed = required_opset(plan, storage)
    target = max(graph.opset, needed) if storage.opset is None else storage.opset
    if target == graph.opset:
        return graph.ir.clone()
    if target < graph.opset:
        return older_opset(graph.ir, target)
    try:
        return convert_opset(graph.ir, target)
    except Exception as error:  # the C++ library throws RuntimeError, ValueError, IndexError, ...
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"The graph cannot be converted from opset {graph.opset} to {target}: "
            f"{reason[0] if reason else type(error).__name__}",
            "Choose number formats or storage that need no later opset than the model has.",
        ) from error


def _check_dynamic(row: TensorPlan) -> None:
    assert row.spec is not None
    grid = row.spec.grid
    if not isinstance(grid, Grid) or (grid.bits, grid.signed, grid.symmetric) != (8, False, False):
        raise ExportError(
            f"{row.name} is to be ranged at every inference as {grid}, which ONNX cannot express.",
            "Dynamic ranges are unsigned asymmetric integers of 8 bits.",
        )
