"""Every op against ONNX's own node tests.

`not_covered.txt` lists the cases that do not pass, under the reason why. A case that is listed and
passes fails the test as much as one that fails and is not listed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from studio.graph.model import ModelGraph, ModelSource
from studio.runtime.executor import Executor
from studio.runtime.ops.dtypes import from_numpy

NOT_COVERED = Path(__file__).with_name("not_covered.txt")


def test_every_case_passes_or_is_listed() -> None:
    expected = _listed()
    failed: dict[str, str] = {}
    passed = 0
    for case in _cases():
        reason = _outcome(case)
        if reason:
            failed[case.name] = reason
        else:
            passed += 1
    surprises = {name: why for name, why in failed.items() if name not in expected}
    assert not surprises, "\n".join(f"{name}: {why}" for name, why in surprises.items())
    now_passing = sorted(expected - set(failed))
    assert not now_passing, f"listed in {NOT_COVERED.name} but passing: {now_passing}"
    assert passed > 1000


def _listed() -> set[str]:
    lines = NOT_COVERED.read_text().splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def _cases() -> Iterator[Any]:
    """The node tests whose inputs and outputs are tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX computes infinities on purpose
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    for case in cases:
        inputs, outputs = case.data_sets[0]
        values = (*case.model.graph.input, *case.model.graph.output)
        tensors = all(isinstance(x, np.ndarray | np.generic) for x in (*inputs, *outputs))
        if tensors and all(value.type.HasField("tensor_type") for value in values):
            yield case


def _outcome(case: Any) -> str:
    """Empty if the case passes, else why not."""
    try:
        executor = Executor(_graph(case.model))
        for inputs, outputs in case.data_sets:
            names = [value.name for value in case.model.graph.input]
            feeds = {name: np.array(x) for name, x in zip(names, inputs, strict=False)}
            with torch.inference_mode():
                results = executor.run(feeds)
            for (name, result), wanted in zip(results.items(), outputs, strict=True):
                _compare(name, result, np.asarray(wanted), case.rtol, case.atol)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _compare(name: str, result: Tensor, wanted: np.ndarray, rtol: float, atol: float) -> None:
    expected = from_numpy(np.array(wanted))
    assert result.dtype == expected.dtype, f"{name} is {result.dtype}, not {expected.dtype}"
    assert result.shape == expected.shape, f"{name}: {list(result.shape)}, not {expected.shape}"
    complex_ = result.dtype.is_complex
    wide = torch.complex128 if complex_ else torch.float64
    np.testing.assert_allclose(
        result.to(wide).numpy(), expected.to(wide).numpy(), rtol=rtol, atol=atol, err_msg=name
    )


def _graph(model: onnx.ModelProto) -> ModelGraph:
    graph = ir.from_proto(model)
    for i, node in enumerate(graph.graph):
        node.name = f"{node.op_type}_{i}"
    return ModelGraph(graph, ModelSource(Path("case.onnx")))
