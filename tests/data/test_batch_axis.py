"""Models whose batch is not axis 0 of every input: recurrent states, single numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import studio
from studio.data.arrays import ArrayData
from studio.data.batch_axis import Size, batch_axes
from studio.data.dataset import InputSpec
from studio.data.opening import open_data
from studio.data.random import RandomData
from studio.errors import DataError
from studio.project import steps
from studio.project.document import DataSettings
from tests.small_models import FLOAT, build, numbers


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([["N", 3, 8, 8]], [0]),
        ([[None, 3], ["M", 2]], [0, 0]),
        ([[4, 3], [4, 7]], [0, 0]),
        ([["batch", "sequence"], [2, "batch", 128]], [0, 1]),
        ([["batch", "sequence"], [], [2, "batch", 128]], [0, None, 1]),
        ([["N", 3], [1]], [0, None]),
        ([[1, 3], [1]], [0, 0]),
        ([[1, 3], []], [0, None]),
        ([["time", "batch", 8], ["batch", "time"]], [1, 0]),
        ([["N", "T"], ["N", 1, "T", "T"]], [0, 0]),
        ([["T", "N"], ["N", "T"]], [1, 0]),
        ([["time", "B", 8], [1, "B", 4]], [1, 1]),
        ([[1], [1, 1]], [0, 0]),
        # not to be told
        ([["P", "Q"], ["Q", "P"]], [None, None]),
        ([["sequence_length", 576], [1, "sequence_length"]], [None, None]),
        ([["N", 3], [2, "E"]], [None, None]),  # nodes and edges
        ([["N", 3], ["N", "N"], [2, 5]], [None, None, None]),
        ([["N", 3], [1, "N", "N"]], [None, None]),
        ([[None, None], [2, None, 128]], [None, None]),
        ([["N", 3], [2, 1, 128]], [None, None]),
        ([[1, 576], [2, 1, 128]], [None, None]),
        ([[], []], [None, None]),
    ],
)
def test_the_batch_axis(shapes: list[list[Size]], axes: list[int | None]) -> None:
    assert batch_axes(shapes) == axes


def recurrent_step(path: Path) -> Path:
    """y (N, 4), next (1, N, 4) of x (N, 3), state (1, N, 4) and a number."""
    return build(
        path,
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "input"),
            helper.make_node("Mul", ["state", "gain"], ["scaled"], "gained"),
            helper.make_node("MatMul", ["scaled", "r"], ["b"], "recurrent"),
            helper.make_node("Add", ["a", "b"], ["sum"], "add"),
            helper.make_node("Tanh", ["sum"], ["next"], "tanh"),
            helper.make_node("Squeeze", ["next", "axis"], ["y"], "squeeze"),
        ],
        {"x": (FLOAT, ["N", 3]), "state": (FLOAT, [1, "N", 4]), "gain": (FLOAT, [])},
        {"y": (FLOAT, ["N", 4]), "next": (FLOAT, [1, "N", 4])},
        {"w": numbers(1, 3, 4), "r": numbers(2, 4, 4), "axis": np.array([0], np.int64)},
    )


SPECS = (
    InputSpec("x", (None, 3), np.dtype(np.float32)),
    InputSpec("state", (1, None, 4), np.dtype(np.float32), 1),
    InputSpec("gain", (), np.dtype(np.float32), None),
)


def arrays(count: int) -> dict[str, np.ndarray]:
    gain = np.array(0.5, np.float32)
    return {"x": numbers(1, count, 3), "state": numbers(2, 1, count, 4), "gain": gain}


def test_specs_of_the_model(tmp_path: Path) -> None:
    assert steps.input_specs(studio.open_model(recurrent_step(tmp_path / "a.onnx"))) == list(SPECS)


def test_an_npz_file_is_cut_into_samples_along_each_batch_axis(tmp_path: Path) -> None:
    whole = arrays(5)
    np.savez(tmp_path / "data.npz", **whole)
    data = open_data(tmp_path / "data.npz", SPECS)
    assert len(data) == 5
    first, second, last = data.batches(2)
    assert [len(batch) for batch in (first, second, last)] == [2, 2, 1]
    np.testing.assert_array_equal(second.inputs["x"], whole["x"][2:4])
    np.testing.assert_array_equal(second.inputs["state"], whole["state"][:, 2:4])
    assert second.inputs["gain"].shape == () and second.inputs["gain"] == 0.5
    (picked,) = data.subset(2).batches(8)
    np.testing.assert_array_equal(picked.inputs["state"], whole["state"][:, [0, 2]])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"state": numbers(2, 5, 1, 4)}, "axis 1"),
        ({"state": numbers(2, 1, 4)}, r"array\[:, None\]"),
        ({"state": numbers(2, 1, 4, 4)}, "x 5, state 4"),
        ({"gain": np.ones(5, np.float32)}, "one number"),
        ({"gain": np.array(np.nan, np.float32)}, "one finite number"),
        ({"gain": np.array(3)}, "int64"),
    ],
)
def test_data_that_do_not_fit(change: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(DataError, match=says):
        ArrayData("data.npz", {**arrays(5), **change}, None, SPECS)


def test_a_sample_with_nan_is_named_by_its_place_on_its_own_axis() -> None:
    state = arrays(5)["state"].copy()
    state[0, 3, 1] = np.nan
    data = ArrayData("data.npz", {**arrays(5), "state": state}, None, SPECS)
    with pytest.raises(DataError, match="sample 3 of 'state'"):
        list(data.batches(5))


def test_random_data() -> None:
    data = RandomData(SPECS[:2], 5)
    (whole,) = data.batches(8)
    assert whole.inputs["x"].shape == (5, 3)
    assert whole.inputs["state"].shape == (1, 5, 4)
    parts = [batch.inputs["state"] for batch in data.batches(2)]
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole.inputs["state"])
    with pytest.raises(DataError, match=r"'gain'.*single number") as caught:
        RandomData(SPECS, 5)
    assert "--fix gain=VALUE" in caught.value.hint


def test_random_data_of_a_model_that_takes_no_batches() -> None:
    specs = [
        InputSpec("nodes", (None, 3), np.dtype(np.float32), None),
        InputSpec("edges", (2, None), np.dtype(np.int64), None),
    ]
    batches = list(RandomData(specs, 2).batches(8))
    assert [b.inputs["edges"].shape for b in batches] == [(2, 16), (2, 16)]
    assert [b.inputs["nodes"].shape for b in batches] == [(16, 3), (16, 3)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_calibrated_evaluated_exported_and_verified(batch_size: int, tmp_path: Path) -> None:
    whole = arrays(6)
    np.savez(tmp_path / "data.npz", **whole)
    document = steps.open_document(recurrent_step(tmp_path / "step.onnx"))
    settings = DataSettings(path=tmp_path / "data.npz", batch_size=batch_size)
    document = steps.evaluate(steps.calibrate(document.with_data(settings)))
    assert document.calibration is not None and document.evaluation is not None
    assert document.calibration.samples == document.evaluation.samples == 6
    found = document.calibration.statistics["state"]
    assert (found.minimum, found.maximum) == (whole["state"].min(), whole["state"].max())
    done = steps.export(document, tmp_path / "out").export
    assert done is not None and done.verification is not None
    assert done.verification.passed and done.verification.samples == 6


def test_batches_given_in_python(tmp_path: Path) -> None:
    sim = studio.QuantSim(studio.open_model(recurrent_step(tmp_path / "step.onnx")))
    batches = [arrays(2), arrays(5), arrays(3)]
    sim.calibrate(batches)
    assert sim.data is not None and len(sim.data) == 10
    found = sim.statistics["state"]
    states = np.concatenate([batch["state"] for batch in batches], 1)
    assert (found.minimum, found.maximum) == (states.min(), states.max())
    summary = studio.export(sim, tmp_path / "out")
    assert summary.verification is not None
    assert summary.verification.passed
    other = {**arrays(2), "gain": np.array(2, np.float32)}
    sim.calibrate([arrays(2), other])  # a number that is not the same: call by call
    assert len(sim.data) == 2
