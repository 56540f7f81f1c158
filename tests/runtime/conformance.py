"""ONNX's own node tests, run on the torch engine."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from studio.graph.model import ModelGraph, ModelSource
from studio.runtime.executor import Executor
from studio.runtime.ops.dtypes import TORCH_DTYPES, from_numpy

NOT_COVERED = Path(__file__).with_name("not_covered.txt")
NOT_APPLICABLE = "not applicable: "


@dataclass(frozen=True)
class Outcome:
    """One case: its name, the ops (domain, type) of its model, and why it failed (empty: it did
    not)."""

    name: str
    ops: tuple[tuple[str, str], ...]
    failure: str


def listed() -> dict[str, str]:
    """Case -> reason, as `not_covered.txt` has them."""
    reasons, reason = {}, ""
    for line in NOT_COVERED.read_text().splitlines():
        if line.startswith("## "):
            reason = line[3:]
        elif line.strip() and not line.startswith("#"):
            reasons[line.strip()] = reason
    return reasons


@cache
def outcomes() -> tuple[Outcome, ...]:
    """Every node test of the installed `onnx`, in its order."""
    return tuple(
        Outcome(
            case.name,
            tuple(dict.fromkeys((n.domain or "ai.onnx", n.op_type) for n in case.model.graph.node)),
            _failure(case),
        )
        for case in cases()
    )


@cache
def cases() -> tuple[Any, ...]:
    """The node tests as `onnx` has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX computes infinities on purpose
        from onnx.backend.test.loader import load_model_tests

        return tuple(load_model_tests(kind="node"))


def _failure(case: Any) -> str:
    try:
        executor = Executor(_graph(case.model))
        for inputs, outputs in case.data_sets:
            names = [value.name for value in case.model.graph.input]
            feeds = {name: value_of(x) for name, x in zip(names, inputs, strict=False)}
            with torch.inference_mode():
                results = executor.run(feeds)
            types = [value.type for value in case.model.graph.output]
            for (name, result), wanted, kind in zip(results.items(), outputs, types, strict=True):
                _compare(name, result, value_of(wanted), case, kind)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def value_of(data: Any) -> Any:
    """Tensors, lists of tensors and None for the arrays and protos of a data set."""
    if data is None:
        return None
    if isinstance(data, list):
        return [value_of(x) for x in data]
    if isinstance(data, onnx.TensorProto):
        data = ir.from_proto(data).numpy()
    return from_numpy(np.array(data))


def _compare(name: str, result: Any, wanted: Any, case: Any, kind: onnx.TypeProto) -> None:
    if not isinstance(wanted, Tensor) or not isinstance(result, Tensor):
        assert type(result) is type(wanted), f"{name} is a {type(result).__name__}"
        for i, pair in enumerate(zip(result or (), wanted or (), strict=True)):
            _compare(f"{name}[{i}]", *pair, case, onnx.TypeProto())
        return
    assert result.dtype == wanted.dtype, f"{name} is {result.dtype}, not {wanted.dtype}"
    if kind.HasField("tensor_type"):
        declared = TORCH_DTYPES[ir.DataType(kind.tensor_type.elem_type)]
        assert result.dtype == declared, f"{name} is {result.dtype}, not {declared}"
    assert result.shape == wanted.shape, f"{name}: {list(result.shape)}, not {wanted.shape}"
    wide = torch.complex128 if result.dtype.is_complex else torch.float64
    expected = wanted.to(torch.float32) if result.dtype.itemsize == 1 else wanted
    actual = result.to(torch.float32) if result.dtype.itemsize == 1 else result
    np.testing.assert_allclose(
        actual.to(wide).numpy(),
        expected.to(wide).numpy(),
        rtol=case.rtol,
        atol=case.atol,
        err_msg=name,
    )


def _graph(model: onnx.ModelProto) -> ModelGraph:
    graph = ir.from_proto(model)
    for i, node in enumerate(graph.graph):
        node.name = f"{node.op_type}_{i}"
    return ModelGraph(graph, ModelSource(Path("case.onnx")))
