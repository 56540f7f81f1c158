"""The arrays equal those of torchvision's transforms, written out here with torch operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from studio.data import Preprocess
from studio.errors import ConfigError, DataError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(width * 1000 + height)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def torchvision_reference(image: Image.Image, resize: int, crop: int) -> np.ndarray:
    """Resize(resize), CenterCrop(crop), ToTensor(), Normalize(ImageNet) of torchvision 0.20."""
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = resize, int(resize * long / short)
    new_size = (new_short, new_long) if width <= height else (new_long, new_short)
    image = image.resize(new_size, Image.Resampling.BILINEAR)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    height, width = x.shape[1:]
    if crop > width or crop > height:
        left = (crop - width) // 2 if crop > width else 0
        top = (crop - height) // 2 if crop > height else 0
        right = (crop - width + 1) // 2 if crop > width else 0
        bottom = (crop - height + 1) // 2 if crop > height else 0
        x = torch.nn.functional.pad(x, [left, right, top, bottom])
        height, width = x.shape[1:]
    top, left = round((height - crop) / 2.0), round((width - crop) / 2.0)
    x = x[:, top : top + crop, left : left + crop].to(torch.float32).div(255)
    mean = torch.tensor(IMAGENET["mean"]).view(-1, 1, 1)
    std = torch.tensor(IMAGENET["std"]).view(-1, 1, 1)
    return x.sub_(mean).div_(std).numpy()


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (257, 259), (31, 90), (256, 256)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (33, 32), (20, 25), (48, 37)])
def test_equals_torchvision(size: tuple[int, int], resize: int, crop: int) -> None:
    image = photo(*size)
    found = Preprocess(resize=resize, crop=(crop, crop), **IMAGENET).apply(image)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, torchvision_reference(image, resize, crop))


def test_exact_size_keeps_no_aspect_ratio() -> None:
    found = Preprocess(size=(20, 30)).apply(photo(90, 90))
    assert found.shape == (3, 20, 30)
    image = photo(90, 90).resize((30, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.transpose(1, 2, 0), np.asarray(image, np.float32) / 255)


@pytest.mark.parametrize("name", ["nearest", "bicubic", "lanczos", "box", "hamming"])
def test_interpolation_is_pillows(name: str) -> None:
    image = photo(50, 40)
    found = Preprocess(size=(16, 16), interpolation=name, scale=1).apply(image)
    wanted = image.resize((16, 16), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(found, np.asarray(wanted, np.float32).transpose(2, 0, 1))


def test_bgr_reverses_channels_and_normalises_in_that_order() -> None:
    image = Image.new("RGB", (2, 2), (10, 20, 30))
    found = Preprocess(channels="BGR", scale=1, mean=(1, 2, 3), std=(1, 2, 4)).apply(image)
    np.testing.assert_array_equal(found[:, 0, 0], [29, 9, 1.75])


def test_gray_is_one_plane() -> None:
    image = photo(9, 7)
    found = Preprocess(channels="GRAY").apply(image)
    np.testing.assert_array_equal(found[0], np.asarray(image.convert("L"), np.float32) / 255)


def test_nhwc_puts_the_channels_last() -> None:
    image = photo(9, 7)
    found = Preprocess(layout="NHWC").apply(image)
    assert found.shape == (7, 9, 3)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found.transpose(2, 0, 1), Preprocess().apply(image))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    np.testing.assert_array_equal(Preprocess().apply(image), np.ones((3, 4, 4), np.float32))


def test_sixteen_bit_pictures_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.full((2, 2), 0x8000, np.uint16))
    np.testing.assert_array_equal(Preprocess(scale=1).apply(image), np.full((3, 2, 2), 128))


def test_half_precision() -> None:
    found = Preprocess(dtype="float16").apply(photo(3, 3))
    assert found.dtype == np.float16


def test_json_round_trip() -> None:
    settings = Preprocess(resize=256, crop=(224, 200), channels="BGR", input="data", **IMAGENET)
    assert Preprocess.from_json(settings.to_json()) == settings


def test_one_number_stands_for_all_channels() -> None:
    assert Preprocess.from_json('{"mean": 0.5, "std": 0.25}').mean == (0.5,)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"reszie": 256}', "'reszie'"),
        ('{"mean": [1, 2]}', "mean has 2 numbers, RGB needs 3"),
        ('{"channels": "GRAY", "std": [1, 2, 3]}', "std has 3 numbers, GRAY needs 1"),
        ('{"std": 0}', "std"),
        ('{"mean": NaN}', "mean"),
        ('{"resize": 2, "size": [3, 4]}', "exclude each other"),
        ('{"crop": [0, 4]}', "crop"),
        ('{"crop": 224}', "crop"),
        ('{"interpolation": "fancy"}', "interpolation"),
        ("[1]", "not a JSON object"),
        ("{", "not valid JSON"),
    ],
)
def test_wrong_settings_are_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Preprocess.from_json(text)
    assert named in caught.value.message
    assert caught.value.hint


def test_load_names_the_file(tmp_path) -> None:
    file = tmp_path / "settings.json"
    with pytest.raises(ConfigError, match=r"settings\.json cannot be read"):
        Preprocess.load(file)
    file.write_text('{"sise": 3}')
    with pytest.raises(ConfigError, match=r"settings\.json: .*'sise'"):
        Preprocess.load(file)
    file.write_text('{"resize": 3}')
    assert Preprocess.load(file).resize == 3


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((None, 3, 224, 224), {"resize": 256, "crop": (224, 224)}),
        ((1, 3, None, None), {"resize": 256, "crop": (224, 224)}),
        ((1, 3, 299, 299), {"resize": 342, "crop": (299, 299)}),
        ((1, 3, 48, 320), {"size": (48, 320)}),
        ((None, 3, 32, 32), {"size": (32, 32)}),
        ((1, 160, 160, 3), {"resize": 183, "crop": (160, 160), "layout": "NHWC"}),
    ],
)
def test_guess(shape: tuple[int | None, ...], wanted: dict) -> None:
    assert Preprocess.guess(shape) == Preprocess(**wanted, **IMAGENET)


def test_guess_for_one_channel_is_gray_without_imagenets_numbers() -> None:
    assert Preprocess.guess((None, 1, 8, 8)) == Preprocess(size=(8, 8), channels="GRAY")


@pytest.mark.parametrize("shape", [(1, 10), (1, 64, 56, 56), (1, 3, 4), ()])
def test_guess_refuses_what_is_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="does not take pictures"):
        Preprocess.guess(shape)


def test_summary_is_one_line() -> None:
    line = Preprocess(resize=256, crop=(224, 224), interpolation="bicubic", **IMAGENET).summary()
    assert line == (
        "shorter side to 256, centre crop 224×224, bicubic, RGB, / 255, "
        "− 0.485/0.456/0.406, ÷ 0.229/0.224/0.225, NCHW"
    )
    assert Preprocess(scale=1, layout="NHWC", dtype="float16").summary() == "RGB, NHWC, float16"
