from __future__ import annotations

import numpy as np
import pytest

from studio.data import Dataset, InputSpec, RandomData, open_data
from studio.errors import CancelledError, DataError
from studio.jobs import CancelToken

FLOAT = np.dtype("float32")
SPEC = InputSpec("x", (None, 1, 2, 2), FLOAT)
SAMPLES = np.arange(5 * 4, dtype=np.float32).reshape(5, 1, 2, 2)


def stacked(data: Dataset, name: str = "x", **options) -> np.ndarray:
    return np.concatenate([batch.inputs[name] for batch in data.batches(2, **options)])


def test_npy_feeds_the_only_input(tmp_path) -> None:
    np.save(tmp_path / "a.npy", SAMPLES)
    data = open_data(tmp_path / "a.npy", [SPEC])
    assert len(data) == 5
    assert not data.has_labels
    assert not data.synthetic
    assert [len(batch) for batch in data.batches(2)] == [2, 2, 1]
    np.testing.assert_array_equal(stacked(data), SAMPLES)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("key", ["labels", "y"])
def test_npz_with_labels(tmp_path, save, key: str) -> None:
    labels = np.array([3, 1, 4, 1, 5], np.int32)
    save(tmp_path / "a.npz", x=np.asfortranarray(SAMPLES), **{key: labels})
    data = open_data(tmp_path / "a.npz", [SPEC])
    batches = list(data.batches(3))
    np.testing.assert_array_equal(np.concatenate([b.inputs["x"] for b in batches]), SAMPLES)
    assert np.concatenate([b.labels for b in batches]).tolist() == labels.tolist()
    assert batches[0].labels.dtype == np.int64
    assert data.warnings == ()


def test_uncompressed_arrays_are_mapped_not_read(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=SAMPLES, labels=np.arange(5))
    np.save(tmp_path / "a.npy", SAMPLES)
    for name in ("a.npz", "a.npy"):
        assert isinstance(open_data(tmp_path / name, [SPEC])._arrays["x"], np.memmap)


def test_npz_feeds_every_input_by_name(tmp_path) -> None:
    specs = [SPEC, InputSpec("ids", (None, 3), np.dtype("int64"))]
    ids = np.arange(15, dtype=np.int32).reshape(5, 3)
    np.savez(tmp_path / "a.npz", ids=ids, x=SAMPLES.astype(np.float64), extra=np.zeros(2))
    data = open_data(tmp_path / "a.npz", specs)
    (batch,) = data.batches(9)
    assert batch.inputs["x"].dtype == np.float32
    assert batch.inputs["ids"].dtype == np.int64
    np.testing.assert_array_equal(batch.inputs["ids"], ids)
    assert "'extra'" in data.warnings[0]


def test_a_single_array_of_another_name_is_taken_and_said(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", images=SAMPLES, labels=np.arange(5))
    data = open_data(tmp_path / "a.npz", [SPEC])
    assert data.has_labels
    np.testing.assert_array_equal(stacked(data), SAMPLES)
    assert data.warnings == ("The array 'images' of a.npz is used for the input 'x'.",)


def test_order_limit_seed_and_subset(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=SAMPLES, labels=np.arange(5))
    data = open_data(tmp_path / "a.npz", [SPEC])
    np.testing.assert_array_equal(stacked(data, limit=3), SAMPLES[:3])
    (batch,) = data.batches(5, seed=1)
    assert sorted(batch.indices) == [0, 1, 2, 3, 4] != list(batch.indices)
    np.testing.assert_array_equal(batch.inputs["x"], SAMPLES[batch.indices])
    np.testing.assert_array_equal(batch.labels, batch.indices)
    np.testing.assert_array_equal(stacked(data.subset(2)), SAMPLES[[0, 2]])
    np.testing.assert_array_equal(stacked(data.subset(4).subset(2)), SAMPLES[[0, 2]])


@pytest.mark.parametrize(
    ("array", "shape", "said"),
    [
        (np.zeros((4, 2, 2, 3)), (1, 3, 2, 2), ["4×2×2×3", "1×3×2×2", "transpose(0, 3, 1, 2)"]),
        (np.zeros((4, 3, 2, 5)), (1, 2, 5, 3), ["4×3×2×5", "1×2×5×3", "transpose(0, 2, 3, 1)"]),
        (np.zeros((3, 2, 2)), (None, 3, 2, 2), ["3×2×2", "?×3×2×2", "array[None]"]),
        (np.zeros((4, 1, 2, 2)), (None, 3, 2, 2), ["4×1×2×2", "?×3×2×2"]),
        (np.zeros(()), (None, 3), ["scalar", "?×3"]),
    ],
)
def test_wrong_shapes_are_named(tmp_path, array, shape, said: list[str]) -> None:
    np.save(tmp_path / "a.npy", array.astype(np.float32))
    with pytest.raises(DataError) as caught:
        open_data(tmp_path / "a.npy", [InputSpec("x", shape, FLOAT)])
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [("uint8", "float32", "/ 255"), ("float32", "int64", "astype"), ("<U3", "float32", "astype")],
)
def test_wrong_types_are_named(tmp_path, found: str, wanted: str, said: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 2)).astype(found))
    with pytest.raises(DataError, match=f"holds {found}, the model input takes {wanted}") as caught:
        open_data(tmp_path / "a.npy", [InputSpec("x", (None, 2), np.dtype(wanted))])
    assert said in caught.value.hint


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_the_sample(tmp_path, value: float) -> None:
    samples = SAMPLES.copy()
    samples[3, 0, 1, 1] = value
    np.save(tmp_path / "a.npy", samples)
    batches = open_data(tmp_path / "a.npy", [SPEC]).batches(2)
    next(batches)
    with pytest.raises(DataError, match="sample 3 of 'x' has NaN or infinite"):
        next(batches)


def test_objects_are_refused(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}, []], dtype=object))
    np.savez_compressed(tmp_path / "b.npz", x=np.array([{}, []], dtype=object))
    np.save(tmp_path / "a.npy", np.array([{}, []], dtype=object))
    for name in ("a.npz", "b.npz", "a.npy"):
        with pytest.raises(DataError, match="not a readable NumPy file"):
            open_data(tmp_path / name, [SPEC])


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("keep", [0, 30, 150])
def test_damaged_files_are_refused(tmp_path, suffix: str, keep: int) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(file, SAMPLES)
    else:
        np.savez(file, x=SAMPLES)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match="not a readable NumPy file"):
        open_data(file, [SPEC])


def test_a_missing_input_is_named(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=SAMPLES, other=SAMPLES)
    specs = [SPEC, InputSpec("mask", (None, 2), FLOAT)]
    with pytest.raises(DataError, match=r"no array for the model input 'mask'.*'x', 'other'"):
        open_data(tmp_path / "a.npz", specs)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(4), "different numbers of samples: x 5, the labels 4"),
        (np.array(["cat"] * 5), "labels are <U3 of shape 5"),
        (np.array([0, 1, np.nan, 0, 1]), "labels of sample 2 are NaN"),
    ],
)
def test_wrong_labels_are_named(tmp_path, labels: np.ndarray, said: str) -> None:
    np.savez(tmp_path / "a.npz", x=SAMPLES, labels=labels)
    with pytest.raises(DataError, match=said):
        next(open_data(tmp_path / "a.npz", [SPEC]).batches(5))


@pytest.mark.parametrize("labels", [np.ones((5, 2, 3)), np.arange(10).reshape(5, 2)])
def test_labels_of_any_shape(tmp_path, labels: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", x=SAMPLES, labels=labels)
    (batch,) = open_data(tmp_path / "a.npz", [SPEC]).select(np.array([3, 1])).batches(5)
    np.testing.assert_array_equal(batch.labels, labels[[3, 1]])
    assert batch.labels.dtype == (np.float32 if labels.dtype.kind == "f" else np.int64)


def test_no_sample_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=SAMPLES[:0])
    with pytest.raises(DataError, match="holds no sample"):
        open_data(tmp_path / "a.npz", [SPEC])


def test_random_data_is_marked_and_repeatable() -> None:
    specs = [
        InputSpec("x", (None, 3, None, 8), FLOAT),
        InputSpec("ids", (1, None), np.dtype("int64")),
        InputSpec("half", (1, 2), np.dtype("float16")),
    ]
    data = RandomData(specs, 5, seed=3)
    assert data.synthetic
    assert "random" in data.warnings[0]
    (whole,) = data.batches(5)
    assert whole.inputs["x"].shape == (5, 3, 224, 8)
    assert whole.inputs["ids"].shape == (5, 16)
    assert set(np.unique(whole.inputs["ids"])) == {0, 1}
    assert whole.inputs["half"].dtype == np.float16
    np.testing.assert_array_equal(stacked(data), whole.inputs["x"])
    assert abs(whole.inputs["x"].mean()) < 0.02
    assert abs(whole.inputs["x"].std() - 1) < 0.02
    assert not np.array_equal(stacked(RandomData(specs, 5, seed=4)), whole.inputs["x"])
    assert len(data.subset(2)) == 2


def test_cancel_is_checked_before_every_batch(tmp_path) -> None:
    np.save(tmp_path / "a.npy", SAMPLES)
    for data in (open_data(tmp_path / "a.npy", [SPEC]), RandomData([SPEC], 5)):
        cancel = CancelToken()
        batches = data.batches(2, cancel=cancel)
        next(batches)
        cancel.cancel()
        with pytest.raises(CancelledError):
            next(batches)
