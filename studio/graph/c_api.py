"""Calls into onnx's C++ library, which serialises the whole model: weights stay behind."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_ir as ir

# Shape inference needs the small constants (shapes, axes, sizes), never the weights.
LARGEST_CONSTANT = 1024


def call_without_weights(
    model: ir.Model, function: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> ir.Model:
    """`function(model as a proto)` with every large initializer turned into a graph input.

    `model` is as before afterwards, whatever happens. In the result, initializers have come back
    as constants and the graph's inputs are those of `model`.
    """
    graph = model.graph
    inputs = list(graph.inputs)
    kept = dict(graph.initializers)
    tensors = {name: value.const_value for name, value in kept.items()}
    try:
        for name, value in kept.items():
            tensor = tensors[name]
            assert tensor is not None
            value.type = value.type or ir.TensorType(tensor.dtype)
            value.shape = value.shape or ir.Shape(tensor.shape.numpy())
            if value not in inputs:
                graph.inputs.append(value)
            if tensor.size > LARGEST_CONSTANT:
                graph.initializers.pop(name)
        proto = ir.to_proto(model)
    finally:
        for value in kept.values():
            if value.name not in graph.initializers:
                graph.register_initializer(value)
        added = len(graph.inputs) - len(inputs)
        for _ in range(added):
            graph.inputs.pop()
    result = ir.from_proto(function(proto))
    given = {value.name for value in inputs}
    for value in list(result.graph.inputs):
        name = value.name or ""
        if name in tensors:
            value.const_value = tensors[name]
            if name not in result.graph.initializers:
                result.graph.register_initializer(value)
    remaining = [value for value in result.graph.inputs if value.name in given]
    result.graph.inputs.clear()
    result.graph.inputs.extend(remaining)
    return result
