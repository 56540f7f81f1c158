"""Rounding to float4e2m1 by arithmetic: onnxruntime has no kernels for that type.

Magnitudes are 0, 0.5, 1, 1.5, 2, 3, 4 and 6 (OCP MX v1.0, section 5.3.3): steps of 0.5 below 2, of
1 below 4, of 2 above; ties go to the even mantissa, which in each part is the even multiple of its
step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from studio.quant.encoding import Encoding
from studio.sim.qdq.names import quantized_name

FLOAT = ir.DataType.FLOAT
LARGEST = 6.0

Constant = Callable[[str, np.ndarray, ir.DataType], ir.Value]


def float4_nodes(
    constant: Constant, value: ir.Value, scale: ir.Value, encoding: Encoding
) -> list[ir.Node]:
    """Nodes that compute `value` rounded to float4 times `scale`; the last result has no name."""
    name = value.name or ""
    nodes: list[ir.Node] = []

    def add(op: str, ending: str, *inputs: ir.Value) -> ir.Value:
        node = ir.node(op, list(inputs), name=f"{name}_float4_{ending}")
        result = node.outputs[0]
        result.name = f"{name}_float4_{ending}"
        result.dtype = ir.DataType.BOOL if op == "Less" else FLOAT
        result.shape = value.shape
        nodes.append(node)
        return result

    def number(ending: str, x: float) -> ir.Value:
        return constant(f"{name}_float4_{ending}", np.array(x, np.float32), FLOAT)

    if encoding.axis is not None:
        assert value.shape is not None
        assert encoding.block_size is None
        aligned = [1] * len(value.shape)
        aligned[encoding.axis] = -1
        spread = encoding.scale.reshape(aligned)
        scale = constant(f"{name}_scale_aligned", spread, FLOAT)
    scaled = add("Div", "scaled", value, scale)
    limits = number("min", -LARGEST), number("max", LARGEST)
    clipped = add("Clip", "clipped", scaled, *limits)
    size = add("Abs", "size", clipped)
    small = add("Less", "small", size, number("two", 2.0))
    middle = add("Less", "middle", size, number("four", 4.0))
    coarse = add("Where", "coarse", middle, number("one", 1.0), number("double", 2.0))
    step = add("Where", "step", small, number("half", 0.5), coarse)
    whole = add("Round", "whole", add("Div", "steps", clipped, step))
    rounded = add("Mul", "rounded", whole, step)
    rounded.name = quantized_name(name)
    result = add("Mul", "result", rounded, scale)
    result.name = ""
    return nodes
