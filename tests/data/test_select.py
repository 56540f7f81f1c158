"""Choosing samples by position, and keeping some apart, of every kind of data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.data.arrays import ArrayData
from studio.data.calls import Calls
from studio.data.dataset import Dataset, InputSpec
from studio.data.images import ImageFolder
from studio.data.preprocess import Preprocess
from studio.data.random import RandomData
from studio.data.split import kept_apart
from studio.project.whole_batches import WholeBatches

FLOAT = np.dtype(np.float32)
SPEC = InputSpec("x", (None, 3), FLOAT)
VALUES = np.arange(30, dtype=np.float32).reshape(10, 3)


def arrays() -> ArrayData:
    return ArrayData("a", {"x": VALUES}, np.arange(10), [SPEC])


def calls() -> Calls:
    specs = [InputSpec("x", (None, 3), FLOAT, None)]
    return Calls("c", [{"x": row[None]} for row in VALUES], specs)


def pictures(folder: Path) -> ImageFolder:
    for index in range(10):
        label = folder / f"class{index % 2}"
        label.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (index * 20, 0, 0)).save(label / f"{index}.png")
    return ImageFolder(folder, Preprocess(size=(4, 4)), "x")


@pytest.mark.parametrize("kind", ["arrays", "calls", "pictures", "random", "whole"])
def test_the_samples_at_positions_in_that_order(kind: str, tmp_path: Path) -> None:
    data: Dataset = {
        "arrays": arrays,
        "calls": calls,
        "pictures": lambda: pictures(tmp_path),
        "random": lambda: RandomData([SPEC], 10),
        "whole": lambda: WholeBatches(arrays(), 2),
    }[kind]()
    everything = [batch.inputs["x"][i] for batch in data.batches(2) for i in range(len(batch))]
    part = data.select(np.array([7, 2, 4])).select(np.array([1, 0]))
    assert isinstance(part, type(data))
    found = [batch.inputs["x"][i] for batch in part.batches(2) for i in range(len(batch))]
    np.testing.assert_array_equal(found, [everything[2], everything[7]])
    assert len(data) == 10


def test_labels_go_with_their_samples(tmp_path: Path) -> None:
    for data in (arrays(), pictures(tmp_path)):
        whole = next(data.batches(10))
        (batch,) = data.select(np.array([9, 0])).batches(2)
        assert batch.labels is not None
        assert whole.labels is not None
        assert batch.labels.tolist() == whole.labels[[9, 0]].tolist()
        assert batch.indices.tolist() == [0, 1]


def rows(data: Dataset) -> set[float]:
    return {float(row[0]) for batch in data.batches(4) for row in batch.inputs["x"]}


def test_a_share_is_kept_apart() -> None:
    rest, kept = kept_apart(arrays(), 0.3)
    assert (len(rest), len(kept)) == (7, 3)
    assert not rows(rest) & rows(kept)
    assert rows(rest) | rows(kept) == rows(arrays())


def test_whole_batches_are_kept_apart() -> None:
    rest, kept = kept_apart(WholeBatches(arrays(), 3), 0.1, 3)
    assert (len(rest), len(kept)) == (6, 3)
    assert not rows(rest) & rows(kept)


@pytest.mark.parametrize(("share", "batch_size"), [(0.0, 1), (0.5, 6)])
def test_nothing_is_kept_apart_of_too_little(share: float, batch_size: int) -> None:
    data = arrays()
    assert kept_apart(data, share, batch_size) == (data, data)
