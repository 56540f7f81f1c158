"""Opening a model, whatever it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from graph_models import assert_same_outputs, make_model, node
from onnx import helper

from studio.errors import UnsupportedOpsError
from studio.graph.model import ModelGraph
from studio.graph.open import open_model


def foreign(graph: ModelGraph) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for layer in graph.nodes():
        if layer.domain or layer.op_type == "Erf":
            found.setdefault(f"{layer.domain}::{layer.op_type}", []).append(layer.name or "")
    return found


def test_all_unsupported_operators_at_once(tmp_path: Path) -> None:
    model = make_model(
        [
            helper.make_node("Magic", ["x"], ["a"], name="one", domain="my.domain"),
            helper.make_node("Magic", ["a"], ["b"], name="two", domain="my.domain"),
            node("Erf", ["b"], ["y"], name="three"),
        ],
        {},
        x=("N", 3),
    )
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedOpsError) as caught:
        open_model(path, check=foreign)
    assert caught.value.ops == {"my.domain::Magic": ["one", "two"], "::Erf": ["three"]}
    assert [n.name for n in open_model(path).nodes()] == ["one", "two", "three"]


def test_an_onnx_file_is_opened_and_prepared(tmp_path: Path) -> None:
    model = make_model([node("Identity", ["x"], ["a"]), node("Relu", ["a"], ["y"])], {}, x=(3,))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    graph = open_model(str(path), check=foreign)
    assert [n.op_type for n in graph.nodes()] == ["Relu"]
    assert graph.source.name == "net"
    assert_same_outputs(model, graph)


def test_opening_onnx_needs_no_torch() -> None:
    code = (
        "import sys, studio.graph.open, studio.graph.onnx_file, studio.graph.describe\n"
        "print([name for name in ('torch', 'onnxruntime', 'PySide6') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
