from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.data import ImageFolder, InputSpec, Preprocess, open_data
from studio.errors import DataError

FLOAT = np.dtype("float32")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    Image.new("RGB", (300, 260), (255, 0, 0)).save(tmp_path / "a.jpg")
    return tmp_path


def spec(*shape: int | None, dtype: np.dtype = FLOAT) -> InputSpec:
    return InputSpec("x", shape, dtype)


def test_pictures_without_settings_are_prepared_as_guessed(pictures) -> None:
    data = open_data(pictures, [spec(None, 3, 224, 224)])
    assert isinstance(data, ImageFolder)
    assert data.preprocess == Preprocess.guess((None, 3, 224, 224))
    (batch,) = data.batches(1)
    assert batch.inputs["x"].shape == (1, 3, 224, 224)


def test_a_half_precision_model_gets_half_precision(pictures) -> None:
    data = open_data(str(pictures), [spec(None, 3, 8, 8, dtype=np.dtype("float16"))])
    (batch,) = data.batches(1)
    assert batch.inputs["x"].dtype == np.float16


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        ({"crop": (32, 32)}, (1, 1, 32, 32), ["3×32×32", "1×1×32×32", 'channels to "GRAY"']),
        ({"channels": "GRAY", "crop": (8, 8)}, (1, 3, 8, 8), ["1×8×8", 'channels to "RGB"']),
        ({"crop": (8, 8)}, (1, 8, 8, 3), ["3×8×8", "1×8×8×3", 'layout to "NHWC"']),
        ({"crop": (8, 8), "layout": "NHWC"}, (1, 3, 8, 8), ["8×8×3", 'layout to "NCHW"']),
        ({"crop": (8, 8)}, (1, 4, 8, 8), ["3×8×8", "1×4×8×8", ".npz"]),
        ({"resize": 256}, (1, 3, 224, 224), ["3×?×?", "1×3×224×224", "[224, 224]"]),
        ({"resize": 256}, (1, 3, 48, None), ["crop or size to [48, 224]"]),
        ({"crop": (224, 224)}, (1, 3, 192, 192), ["3×224×224", "[192, 192]"]),
        ({"size": (32, 64)}, (1, 3, 64, 32), ["3×32×64", "[64, 32]"]),
        ({"crop": (8, 8)}, (1, 10), ["1×10", ".npy"]),
        ({"crop": (8, 8), "dtype": "float16"}, (1, 3, 8, 8), ['dtype to "float32"']),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(pictures, settings, shape, said) -> None:
    with pytest.raises(DataError) as caught:
        open_data(pictures, [spec(*shape)], Preprocess(**settings))
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"resize": 40}, (None, 3, None, None)),
        ({"crop": (32, 48)}, (None, 3, None, 48)),
        ({"size": (32, 48), "layout": "NHWC"}, (1, 32, 48, None)),
    ],
)
def test_settings_that_fit_are_used(pictures, settings, shape) -> None:
    data = open_data(pictures, [spec(*shape)], Preprocess(**settings))
    (batch,) = data.batches(1)
    wanted = [(found if side is None else side) for found, side in
              zip(batch.inputs["x"].shape, shape, strict=True)]  # fmt: skip
    assert list(batch.inputs["x"].shape[1:]) == wanted[1:]


def test_pictures_cannot_feed_two_inputs(pictures) -> None:
    specs = [spec(1, 3, 8, 8), InputSpec("mask", (1, 3, 8, 8), FLOAT)]
    with pytest.raises(DataError, match=r"2 inputs.*'mask'"):
        open_data(pictures, specs)


def test_pictures_cannot_feed_whole_numbers(pictures) -> None:
    with pytest.raises(DataError, match="takes uint8"):
        open_data(pictures, [spec(1, 3, 8, 8, dtype=np.dtype("uint8"))])


def test_the_input_named_in_the_settings_must_exist(pictures) -> None:
    with pytest.raises(DataError, match="for the input 'data'; the model has 'x'"):
        open_data(pictures, [spec(1, 3, 8, 8)], Preprocess(size=(8, 8), input="data"))


def test_unusable_paths_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_data(tmp_path / "nowhere", [spec(1, 3, 8, 8)])
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="neither a folder"):
        open_data(tmp_path / "a.txt", [spec(1, 3, 8, 8)])


def test_imports_neither_qt_nor_torch() -> None:
    code = "import sys, studio.data; print(sorted({'torch', 'PySide6', 'onnx'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
