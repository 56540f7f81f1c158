"""Activation functions that quantizers drop because saturation does their work.

onnxruntime's quantizer removes a Relu or Clip whose result it quantizes with the zero point at the
lowest integer: QuantizeLinear cuts off below zero by itself. The float graph needs them back, else
it would compute something else than the model the file was made from, and calibrate on it.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from studio.graph.edit import Names, add_constant, array_of, is_op
from studio.graph.quantized.constants import Records
from studio.graph.quantized.found import FoundQuantization

TWO_SIDED_OPS = (
    "Add",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
)
"""Operators that an activation function stands behind."""

RELU6_ERROR = 1e-5
"""Relative; a scale of 6 / 255 in float32 reaches 6 to 1e-7."""


def restore_activations(graph: ir.Graph, names: Names, records: Records) -> Counter[str]:
    """Put a Relu (a Clip to 6 where the range ends there) before each tensor that is rounded to
    numbers from zero on; which changes nothing behind the rounding. Returns how many of each."""
    restored: Counter[str] = Counter()
    for value, record in list(records.items()):
        producer = value.producer()
        if (
            producer is None
            or producer.graph is not graph
            or not is_op(producer, *TWO_SIDED_OPS)
            or not _from_zero_on(record)
            or all(_never_negative(operand, records) for operand in producer.inputs)
        ):
            continue
        op = "Clip" if _ends_at_six(record) else "Relu"
        _insert(graph, producer, op, names, records)
        restored[op] += 1
    return restored


def _from_zero_on(record: FoundQuantization) -> bool:
    if record.axis is not None or record.dynamic or record.float_format is not None:
        return False
    return int(record.zero_point) == (-(2 ** (record.bits - 1)) if record.signed else 0)


def _never_negative(value: ir.Value | None, records: Records) -> bool:
    if value is None:
        return True
    array = array_of(value)
    if array is not None:
        return bool((array >= 0).all())
    return value in records and _from_zero_on(records[value])


def _ends_at_six(record: FoundQuantization) -> bool:
    largest = (2**record.bits - 1) * float(record.scale)
    return abs(largest - 6) < 6 * RELU6_ERROR


def _insert(graph: ir.Graph, producer: ir.Node, op: str, names: Names, records: Records) -> None:
    """The new operator's result takes over the name, the readers and the record."""
    value = producer.outputs[0]
    record = records.pop(value)
    name = value.name or ""
    inputs = [value]
    if op == "Clip":
        inputs += [
            add_constant(graph, names.fresh(f"{name}_{end}"), np.asarray(number, np.float32))
            for end, number in (("min", 0), ("max", 6))
        ]
    node = ir.node(op, inputs, name=names.fresh(f"{producer.name}_{op}"))
    result = node.outputs[0]
    result.type, result.shape = value.type, value.shape
    for use in list(value.uses()):
        if use.node is not node:
            use.node.replace_input_with(use.idx, result)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = result
    value.name = names.fresh(f"{name}_unsaturated")
    result.name = name
    graph.insert_after(producer, node)
    records[result] = record
