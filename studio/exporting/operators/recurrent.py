"""DynamicQuantizeLSTM of onnxruntime: an LSTM that ranges input and state at every step.

(docs/ContribOperators.md, com.microsoft.DynamicQuantizeLSTM.) Weights are stored transposed and in
integers, as in ONNX's LSTM otherwise. There is no such operator for GRU and RNN.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.exporting.operators.integers import (
    CONTRIB,
    Integers,
    dequantized,
    note_bits,
    plain_attributes,
    take_place,
)
from studio.graph.edit import add_constant, array_of, input_of


def use_dynamic_lstm(graph: ir.Graph, node: ir.Node) -> bool:
    """Replace an LSTM whose input is quantized dynamically; False if its operands do not fit.

    The operator rounds the recurrent state as well, which the simulation keeps in float.
    """
    source = dequantized(node.inputs[0])
    producer = None if source is None else source.value.producer()
    weights = [dequantized(value) for value in node.inputs[1:3]]
    layout = node.attributes.get("layout")
    if (
        source is None
        or producer is None
        or producer.op_type != "DynamicQuantizeLinear"
        or (layout is not None and layout.as_int())
    ):
        return False
    operands: list[ir.Value | None] = [producer.inputs[0]]
    scales: list[ir.Value | None] = []
    for found in weights:
        written = None if found is None else _weight(graph, found)
        if written is None:
            return False
        operands.append(written[0])
        scales += written[1:]
    bits = {found.bits for found in weights if found is not None}
    if len(bits) == 1 and weights[0] is not None:
        note_bits(node, weights[0])
    bias = input_of(node, 3)
    operands += [bias, *(input_of(node, index) for index in range(4, 8))]
    new = ir.node(
        "DynamicQuantizeLSTM",
        [*operands, *scales],
        plain_attributes(node),
        domain=CONTRIB,
        num_outputs=len(node.outputs),
        name=node.name,
    )
    new.metadata_props.update(node.metadata_props)
    graph.insert_before(node, new)
    for old, made in zip(node.outputs, new.outputs, strict=True):
        take_place(old, made)
    graph.remove(node, safe=True)
    return True


def _weight(graph: ir.Graph, found: Integers) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Integers (directions, inputs, 4 * hidden), scales and zero points by direction or column."""
    integers, scale = array_of(found.value), array_of(found.scale)
    if integers is None or scale is None or not found.bytes or found.axis not in (None, 1):
        return None
    zero = array_of(found.zero_point)
    zeros = np.zeros(scale.shape, integers.dtype) if zero is None else zero
    if found.axis is not None and zeros.any():
        return None  # the operator refuses zero points for each column
    directions, columns = integers.shape[:2]
    shape = (directions,) if found.axis is None else (directions, columns)
    name = found.value.name or ""
    return (
        add_constant(
            graph, f"{name}_transposed", np.ascontiguousarray(integers.transpose(0, 2, 1))
        ),
        add_constant(graph, f"{found.scale.name}_spread", np.broadcast_to(scale, shape).copy()),
        add_constant(graph, f"{name}_zero_points", np.broadcast_to(zeros, shape).copy()),
    )
