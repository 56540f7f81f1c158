"""A model of one op, run by the torch engine and by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx import helper

from studio.graph.model import ModelGraph, ModelSource
from studio.runtime.executor import Executor

Arrays = Sequence[np.ndarray | None]


def one_op(
    op: str,
    inputs: Arrays,
    attributes: dict[str, Any],
    outputs: Sequence[bool] = (True,),
    *,
    domain: str = "",
    opset: int = 21,
) -> onnx.ModelProto:
    """The model: inputs x0, x1, ... (None: left out), outputs y0, y1, ... (False: left out)."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    results = [f"y{i}" if wanted else "" for i, wanted in enumerate(outputs)]
    node = helper.make_node(op, names, results, name="node", domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.asarray(x).dtype), np.shape(x)
            )
            for name, x in zip(names, inputs, strict=True)
            if x is not None
        ],
        [helper.make_empty_tensor_value_info(name) for name in results if name],
    )
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def feeds_of(inputs: Arrays) -> dict[str, np.ndarray]:
    return {f"x{i}": np.asarray(x) for i, x in enumerate(inputs) if x is not None}


def by_torch(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    graph = ModelGraph(ir.from_proto(model), ModelSource(Path("model.onnx")))
    with torch.inference_mode():
        return [x.numpy() for x in Executor(graph).run(feeds_of(inputs)).values()]


def by_onnxruntime(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    return session.run(None, feeds_of(inputs))


def assert_equal_to_onnxruntime(
    model: onnx.ModelProto, inputs: Arrays, *, rtol: float = 1e-5, atol: float = 1e-6
) -> None:
    """Same number of outputs, dtypes and shapes; values within the tolerance."""
    for result, wanted in zip(by_torch(model, inputs), by_onnxruntime(model, inputs), strict=True):
        assert result.dtype == wanted.dtype
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result, wanted, rtol=rtol, atol=atol)
