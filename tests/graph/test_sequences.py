"""Sequences that only take a tensor apart become a Split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import assert_same_outputs
from onnx import TensorProto, helper, numpy_helper

from studio.graph.open import open_model

ROWS = [("a", 0), ("b", 1), ("c", -1), ("b2", 1)]


def _model(
    path: Path, split: np.ndarray | None, taken: list[tuple[str, int]], **attributes: int
) -> onnx.ModelProto:
    """`taken`: outputs and the position in the sequence each is from, of x (N, 6, 4)."""
    constants = {f"at_{name}": np.array(position) for name, position in taken}
    if split is not None:
        constants["split"] = split
    given = ["x"] if split is None else ["x", "split"]
    nodes = [helper.make_node("SplitToSequence", given, ["parts"], "split_up", **attributes)]
    nodes += [
        helper.make_node("SequenceAt", ["parts", f"at_{name}"], [f"{name}_part"], f"take_{name}")
        for name, _ in taken
    ]
    nodes += [helper.make_node("Relu", [f"{name}_part"], [name]) for name, _ in taken]
    graph = helper.make_graph(
        nodes,
        "parts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name, _ in taken],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return model


@pytest.mark.parametrize(
    ("split", "attributes"),
    [
        (np.array([1, 2, 3]), {"axis": 1}),
        (np.array(4), {"axis": 1}),  # the last part is smaller
        (np.array(2), {"axis": 2}),
        (None, {"axis": 1}),
        (None, {"axis": 2, "keepdims": 0}),
    ],
)
def test_parts_are_made_by_a_split(
    split: np.ndarray | None, attributes: dict[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "parts.onnx"
    model = _model(path, split, ROWS, **attributes)
    graph = open_model(path)
    ops = [node.op_type for node in graph.nodes()]
    assert "Split" in ops
    assert not {"SplitToSequence", "SequenceAt"} & set(ops)
    assert_same_outputs(model, graph)


def test_a_single_part_is_a_slice(tmp_path: Path) -> None:
    path = tmp_path / "parts.onnx"
    model = _model(path, np.array([1, 2, 3]), [("b", 1)], axis=1)
    graph = open_model(path)
    assert [node.op_type for node in graph.nodes()] == ["Slice", "Relu"]
    assert_same_outputs(model, graph)


def test_a_sequence_read_otherwise_stays(tmp_path: Path) -> None:
    path = tmp_path / "parts.onnx"
    model = _model(path, np.array([1, 2, 3]), [("b", 1)], axis=1)
    model.graph.node.append(helper.make_node("SequenceLength", ["parts"], ["count"], "count"))
    model.graph.output.append(helper.make_tensor_value_info("count", TensorProto.INT64, []))
    onnx.save(model, path)
    assert "SplitToSequence" in [node.op_type for node in open_model(path).nodes()]
