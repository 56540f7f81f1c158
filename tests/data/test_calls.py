"""Data of models whose inputs have no batch axis in common: one call a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import studio
from studio.data.calls import Calls
from studio.data.dataset import InputSpec
from studio.data.opening import open_data, reads_pictures
from studio.errors import DataError
from tests.small_models import INT64, build, numbers

SPECS = (
    InputSpec("nodes", (None, 3), np.dtype(np.float32), None),
    InputSpec("edges", (2, None), np.dtype(np.int64), None),
)


def call(nodes: int, edges: int) -> dict[str, np.ndarray]:
    ends = np.random.default_rng(edges).integers(0, nodes, (2, edges))
    return {"nodes": numbers(nodes, nodes, 3), "edges": ends}


def test_every_batch_is_one_whole_call() -> None:
    data = Calls("graphs", [call(4, 5), call(7, 2), call(3, 9)], SPECS)
    batches = list(data.batches(64))
    assert [len(batch) for batch in batches] == [1, 1, 1]
    assert [batch.inputs["nodes"].shape for batch in batches] == [(4, 3), (7, 3), (3, 3)]
    assert [batch.inputs["edges"].shape for batch in batches] == [(2, 5), (2, 2), (2, 9)]
    assert [int(batch.indices[0]) for batch in data.subset(2).batches(1)] == [0, 1]
    assert next(data.subset(2).batches(1)).inputs["nodes"].shape == (4, 3)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"edges": np.zeros((3, 5), np.int64)}, "3×5"),
        ({"edges": np.zeros((2, 5), np.float32)}, "float32"),
        ({"nodes": np.full((4, 3), np.nan, np.float32)}, "NaN"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(change: dict, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        Calls("graphs", [call(4, 5), {**call(4, 5), **change}], SPECS)
    assert "call 1" in caught.value.message


def test_a_missing_input_is_named() -> None:
    with pytest.raises(DataError, match="'edges'"):
        Calls("graphs", [{"nodes": numbers(0, 4, 3)}], SPECS)


def test_a_folder_of_npz_files_holds_calls(tmp_path: Path) -> None:
    for index in range(3):
        np.savez(tmp_path / f"{index}.npz", **call(4 + index, 5))
    assert not reads_pictures(tmp_path)
    data = open_data(tmp_path, SPECS)
    assert [b.inputs["nodes"].shape[0] for b in data.batches(8)] == [4, 5, 6]
    alone = open_data(tmp_path / "1.npz", SPECS)
    assert len(alone) == 1


def test_sequences_of_different_lengths_are_calibrated_each_alone(tmp_path: Path) -> None:
    path = build(
        tmp_path / "text.onnx",
        [
            helper.make_node("Gather", ["table", "tokens"], ["x"], "embedding"),
            helper.make_node("MatMul", ["x", "w"], ["y"], "head"),
        ],
        {"tokens": (INT64, ["N", "T"])},
        {"y": (TensorProto.FLOAT, ["N", "T", 2])},
        {"table": numbers(3, 9, 4), "w": numbers(4, 4, 2)},
    )
    sim = studio.QuantSim(studio.open_model(path))
    sim.calibrate([np.ones((2, 5), np.int64), np.full((1, 7), 8, np.int64)])
    assert len(sim.data or ()) == 2
    assert set(sim.plan.observed) <= set(sim.statistics)
