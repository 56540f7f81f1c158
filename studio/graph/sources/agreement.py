"""Whether an exported graph computes what its module does, at the traced size and at others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import onnx_ir as ir

from studio.graph.sources.examples import Examples
from studio.graph.sources.sizes import Axis, OpenSizes, traced_shapes

TOLERANCE = 1e-3
"""Of the largest value of an output: exporters err by far more, or by rounding."""

LARGEST = 2**30
"""Bytes of weights up to which a graph is tried: onnxruntime needs a copy of them."""


class Agreement(Enum):
    """What an exported graph computes, compared with its module in onnxruntime."""

    FULL = "the same, at all sizes that are open"
    TRACED = "the same at the traced size, something else at others"
    NONE = "something else"
    UNKNOWN = "not tried: too large, or onnxruntime cannot run it"


def agreement(model: ir.Model, module: Any, examples: Examples, sizes: OpenSizes) -> Agreement:
    """How far `model` computes what `module` does; only shapes are compared of a module that draws
    random numbers."""
    import onnxruntime

    weights = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    if weights > LARGEST:
        return Agreement.UNKNOWN
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    own = traced_shapes(examples, sizes)
    try:
        content = ir.to_proto(model).SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception:  # it lacks an operator
        return Agreement.UNKNOWN
    compare_values = _repeats(module, examples)
    try:
        if not _same(session, module, examples, own, compare_values):
            return Agreement.NONE
    except Exception:  # it refuses what the graph says
        return Agreement.NONE
    for shapes in _other_shapes(own, sizes, set(shut_axes(model, sizes))):
        try:
            examples.run(module, shapes)
        except Exception:  # the module itself does not take these
            continue
        try:
            same = _same(session, module, examples, shapes, compare_values)
        except Exception:  # a size that has become part of the graph
            return Agreement.TRACED
        if not same:
            return Agreement.TRACED
    return Agreement.FULL


def shut_axes(model: ir.Model, sizes: OpenSizes) -> list[Axis]:
    """Axes that were to be open, and which the exporter made constants nevertheless."""
    shapes = [value.shape for value in model.graph.inputs]
    return sorted(
        (place, axis)
        for place, axis in sizes.axes
        if (shape := shapes[place]) is not None and isinstance(shape[axis], int)
    )


def _repeats(module: Any, examples: Examples) -> bool:
    """True if `module` computes the same twice."""
    first, second = examples.run(module), examples.run(module)
    return all(
        np.array_equal(a.float().numpy(), b.float().numpy(), equal_nan=True)
        for (_, a), (_, b) in zip(first, second, strict=True)
    )


def _same(
    session: Any,
    module: Any,
    examples: Examples,
    shapes: Sequence[tuple[int, ...]],
    compare_values: bool,
) -> bool:
    feeds = dict(zip(examples.names, examples.tensors(shapes), strict=True))
    used = {item.name for item in session.get_inputs()}
    expected = [tensor.float().numpy() for _, tensor in examples.run(module, shapes)]
    found = session.run(None, {k: v.numpy() for k, v in feeds.items() if k in used})
    if len(expected) != len(found) or any(
        a.shape != np.shape(b) for a, b in zip(expected, found, strict=True)
    ):
        return False
    return not compare_values or all(
        np.allclose(
            a,
            np.asarray(b, np.float32),
            rtol=TOLERANCE,
            atol=TOLERANCE * float(np.abs(a).max(initial=0)),
            equal_nan=True,
        )
        for a, b in zip(expected, found, strict=True)
    )


def _other_shapes(
    traced: Sequence[tuple[int, ...]], sizes: OpenSizes, shut: set[Axis]
) -> list[list[tuple[int, ...]]]:
    """Other open sizes: with as many factors of two as traced, and odd ones."""
    axes, batch = sizes.axes - shut, sizes.batch_axes
    if not axes:
        return []

    def changed(step: Callable[[int], int]) -> list[tuple[int, ...]]:
        return [
            tuple(
                size
                if (place, axis) not in axes
                else size + (2 if (place, axis) in batch else step(size))
                for axis, size in enumerate(shape)
            )
            for place, shape in enumerate(traced)
        ]

    steps: list[Callable[[int], int]] = [
        lambda size: min(size & -size, 32),
        lambda size: 1,
        lambda size: 3,
    ]
    tried = [changed(step) for step in steps]
    return [shapes for place, shapes in enumerate(tried) if shapes not in tried[:place]]
