"""Do the constants in an exported file say what the encodings say?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.sim.found import constant_integers
from studio.sim.plan import Plan, Role
from studio.sim.qdq import quantized_name


def different_constants(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding], path: Path
) -> tuple[str, ...]:
    """Names of constants of the QDQ file at `path` that are missing or differ in any bit.

    Looks at every scale, zero point and integer weight, and at the weights left in float. A weight
    that is one step off may move no output by more than one step, so running cannot show it.
    """
    model = ir.load(path)
    stored = {name: value.const_value for name, value in model.graph.initializers.items()}

    def differs(name: str, expected: np.ndarray) -> bool:
        tensor = stored.get(name)
        if tensor is None:
            return True
        array = tensor.numpy()
        if expected.dtype.kind == "i":
            array = array.astype(np.int64)
        return not np.array_equal(array, expected, equal_nan=array.dtype.kind == "f")

    different = []
    for name in plan.quantized:
        encoding, role = encodings[name], plan.tensors[name].role
        expected: dict[str, np.ndarray] = {f"{name}_scale": encoding.scale}
        if role is not Role.BIAS:
            expected[f"{name}_zero_point"] = encoding.zero_point
        if role in (Role.WEIGHT, Role.BIAS, Role.CONSTANT):
            expected[quantized_name(name)] = constant_integers(graph, plan.tensors[name], encoding)
        different += [key for key, array in expected.items() if differs(key, array)]
    return tuple(
        different
        + [
            name
            for name in graph.initializers
            if name in stored and differs(name, graph.constant(name))
        ]
    )
