"""The onnxruntime engine: errors, optimisation levels, reading within a budget, no telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from studio.errors import ModelError
from studio.graph.model import ModelGraph, ModelSource
from studio.runtime.budget import BudgetedReader
from studio.runtime.session import Optimizations, Session, float_session


@pytest.fixture
def graph() -> ModelGraph:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) {
            a = Exp(x)
            b = Neg(a)
            y = Abs(b)
        }"""
    )
    for node in proto.graph.node:
        node.name = node.op_type
    return ModelGraph(ir.from_proto(proto), ModelSource(Path("test.onnx")))


def test_inner_tensors_are_readable(graph: ModelGraph) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    values = float_session(graph, ["a", "b"]).run({"x": x}, ["b", "a"])
    np.testing.assert_allclose(values["a"], np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(values["b"], -np.exp(x), rtol=1e-6)


def test_model_outputs_come_first(graph: ModelGraph) -> None:
    assert float_session(graph, ["a"]).outputs == ("y", "a")


@pytest.mark.parametrize("budget", [1, 40, 10**9])
def test_reader_delivers_every_tensor_of_every_sample_once(graph: ModelGraph, budget: int) -> None:
    x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    reader = BudgetedReader(float_session(graph, ["a", "b"]), ["a", "b"], budget, budget)
    seen: dict[str, list[np.ndarray]] = {"a": [], "b": []}
    for part, values in reader.read({"x": x}):
        for name, array in values.items():
            assert len(array) == len(part["x"])
            seen[name].append(array.copy())
    np.testing.assert_allclose(np.concatenate(seen["a"]), np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(seen["b"]), -np.exp(x), rtol=1e-6)


def test_wrong_shape_is_an_error_that_names_it(graph: ModelGraph) -> None:
    with pytest.raises(ModelError, match=r"x \(2, 5\)"):
        float_session(graph).run({"x": np.zeros((2, 5), np.float32)})


def test_model_onnxruntime_refuses_is_an_error() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "nobody" : 1]>
        g (float[n, 4] x) => (float[n, 4] y) { y = nobody.Mystery(x) }"""
    )
    with pytest.raises(ModelError, match="Mystery"):
        Session(ir.from_proto(proto), optimizations=Optimizations.NONE)


def test_no_usage_report_is_prepared(tmp_path: Path) -> None:
    """onnxruntime's telemetry writes a device id into the home folder before it reports."""
    home = tmp_path / "home"
    home.mkdir()
    code = "import studio.runtime.session"
    environment = {**os.environ, "HOME": str(home)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    environment.pop("XDG_CACHE_HOME", None)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert [str(path) for path in home.rglob("*") if path.is_file()] == []
