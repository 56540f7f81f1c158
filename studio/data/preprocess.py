"""From a picture to the array a model expects.

The steps and their rounding are those of torchvision's `Resize`, `CenterCrop`, `ToTensor` and
`Normalize` on PIL images, so that a model sees the numbers it was trained on:

* `resize` s: the shorter side becomes s, the longer one int(s * longer / shorter).
* `size` (H, W): exactly that, the aspect ratio is not kept.
* `crop` (H, W): top = round((h - H) / 2), left = round((w - W) / 2), halves to the even number.
  A picture smaller than the crop is first padded with zeros: (H - h) // 2 rows above,
  (H - h + 1) // 2 below, columns likewise.
* x = pixel / scale, then (x - mean) / std for each channel, in float32.

Interpolation is Pillow's, whose filters widen when shrinking (antialiasing).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from studio.errors import ConfigError, DataError

Side = Annotated[int, Field(ge=1, le=16384)]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DYNAMIC_SIDE = 224


class Preprocess(BaseModel):
    """Settings of the steps above; immutable, read from and written to JSON.

    `mean` and `std` are in units of pixel / `scale`, one number for each channel in the order of
    `channels`, or one for all. `input` names the model input that is fed (None: the first).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: Side | None = None
    size: tuple[Side, Side] | None = None
    crop: tuple[Side, Side] | None = None
    interpolation: Filter = "bilinear"
    channels: Literal["RGB", "BGR", "GRAY"] = "RGB"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 255.0
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "float16"] = "float32"
    input: str | None = None

    def __init__(self, **values: Any) -> None:
        """Raises ConfigError that names every wrong or unknown setting."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _as_config_error(error) from None

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _one_for_all(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Preprocess:
        if self.resize is not None and self.size is not None:
            raise ValueError("resize and size exclude each other: give one of them")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channel_count):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} numbers, "
                    f"{self.channels} needs {self.channel_count} (or 1 for all)"
                )
        return self

    @property
    def channel_count(self) -> int:
        return 1 if self.channels == "GRAY" else 3

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(H, W) of the result; None if it depends on the picture."""
        return self.crop or self.size

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of one sample as the model gets it, without the batch dimension."""
        height, width = self.output_size or (None, None)
        if self.layout == "NHWC":
            return (height, width, self.channel_count)
        return (self.channel_count, height, width)

    def apply(self, image: Image.Image) -> np.ndarray:
        """One sample of shape (C, H, W), or (H, W, C) if `layout` is NHWC, and type `dtype`."""
        image = _eight_bits(image)
        mode = "L" if self.channels == "GRAY" else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        image = self._geometry(image)
        pixels = np.asarray(image)
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if self.channels == "BGR":
            planes = planes[::-1]
        x = np.ascontiguousarray(planes, dtype=np.float32)
        x /= np.float32(self.scale)
        x -= np.array(self.mean, np.float32).reshape(-1, 1, 1)
        x /= np.array(self.std, np.float32).reshape(-1, 1, 1)
        if self.layout == "NHWC":
            x = np.ascontiguousarray(x.transpose(1, 2, 0))
        return x.astype(self.dtype, copy=False)

    def _geometry(self, image: Image.Image) -> Image.Image:
        wanted = None
        if self.size is not None:
            wanted = (self.size[1], self.size[0])
        elif self.resize is not None:
            short, long = sorted(image.size)
            other = max(1, int(self.resize * long / short))
            portrait = image.width <= image.height
            wanted = (self.resize, other) if portrait else (other, self.resize)
        if wanted is not None and wanted != image.size:
            image = image.resize(wanted, Image.Resampling[self.interpolation.upper()])
        return image if self.crop is None else _center_crop(image, *self.crop)

    def summary(self) -> str:
        """One line for people: what happens to a picture, in order."""
        steps = []
        if self.resize is not None:
            steps.append(f"shorter side to {self.resize}")
        if self.size is not None:
            steps.append(f"resize to {self.size[0]}×{self.size[1]}")
        if self.crop is not None:
            steps.append(f"centre crop {self.crop[0]}×{self.crop[1]}")
        if steps and self.interpolation != "bilinear":
            steps.append(self.interpolation)
        steps.append(self.channels)
        if self.scale != 1:
            steps.append(f"/ {self.scale:g}")
        if any(self.mean):
            steps.append("− " + _short(self.mean))
        if any(value != 1 for value in self.std):
            steps.append("÷ " + _short(self.std))
        return ", ".join([*steps, self.layout, *([] if self.dtype == "float32" else [self.dtype])])

    def to_json(self) -> str:
        return self.model_dump_json(indent=2, exclude_none=True)

    @classmethod
    def from_json(cls, text: str) -> Preprocess:
        """The inverse of `to_json`; raises ConfigError that names what is wrong."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(
                f"The preprocessing is not valid JSON: {error}.", "Correct the file."
            ) from None
        if not isinstance(values, dict):
            raise ConfigError(
                "The preprocessing is not a JSON object.", 'Write it as {"resize": 256, ...}.'
            )
        return cls(**values)

    @classmethod
    def load(cls, path: Path) -> Preprocess:
        """Read the JSON file `path`."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}.", "Check the path.") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.message}", error.hint) from None

    @classmethod
    def guess(cls, shape: Sequence[int | None]) -> Preprocess:
        """A first proposal for a model input of `shape` (None: a dynamic dimension).

        Channels are looked for at axis 1, then at axis 3. A dynamic height or width becomes 224.
        Three channels get ImageNet's mean and std, one channel plain pixel / 255. Square inputs of
        96 and more are resized to round(side * 256 / 224) and cropped as ImageNet models are;
        others are resized exactly. Raises DataError if `shape` is not that of a picture.
        """
        layout: Literal["NCHW", "NHWC"]
        if len(shape) == 4 and shape[1] in (1, 3):
            layout, count, height, width = "NCHW", shape[1], shape[2], shape[3]
        elif len(shape) == 4 and shape[3] in (1, 3):
            layout, height, width, count = "NHWC", shape[1], shape[2], shape[3]
        else:
            raise DataError(
                f"An input of shape {format_shape(shape)} does not take pictures.",
                "Give the data as .npy or .npz arrays.",
            )
        crop = (height or DYNAMIC_SIDE, width or DYNAMIC_SIDE)
        square = crop[0] == crop[1] >= 96
        return cls(
            resize=round(crop[0] * 256 / 224) if square else None,
            size=None if square else crop,
            crop=crop if square else None,
            channels="RGB" if count == 3 else "GRAY",
            mean=IMAGENET_MEAN if count == 3 else (0.0,),
            std=IMAGENET_STD if count == 3 else (1.0,),
            layout=layout,
        )


def format_shape(shape: Sequence[int | None]) -> str:
    """`1×3×?×?`: how shapes are shown to people."""
    return "×".join("?" if side is None else str(side) for side in shape) or "scalar"


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pictures of 16 bits a pixel, scaled to 8; Pillow itself would clip them at 255."""
    if not image.mode.startswith("I"):
        return image
    deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    return Image.fromarray((deep >> 8).astype(np.uint8))


def _center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.width < width or image.height < height:
        padded = (max(image.width, width), max(image.height, height))
        left = max(0, width - image.width) // 2
        top = max(0, height - image.height) // 2
        canvas = Image.new(image.mode, padded)
        canvas.paste(image, (left, top))
        image = canvas
    top = round((image.height - height) / 2)
    left = round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def _short(values: Sequence[float]) -> str:
    return "/".join(f"{value:.4g}" for value in values)


def _as_config_error(error: ValidationError) -> ConfigError:
    known = ", ".join(Preprocess.model_fields)
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown setting {name!r}")
        else:
            text = item["msg"].removeprefix("Value error, ")
            problems.append(f"{name}: {text}" if name else text)
    return ConfigError("Preprocessing: " + "; ".join(problems) + ".", f"The settings are {known}.")
