"""A folder of pictures as a dataset."""

from __future__ import annotations

import os
import warnings as python_warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from studio.data.dataset import Batch, Cancel, evenly_spaced, reading_order
from studio.data.image_list import list_images
from studio.data.preprocess import Preprocess
from studio.errors import DataError

# Formats Pillow decodes by itself: none that starts another program.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
MAX_PIXELS = 100_000_000

# `load_image` refuses what is too large with a message of its own.
python_warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BrokenImageError(DataError):
    """One picture cannot be decoded; the dataset skips it and says so."""


def load_image(path: str | Path) -> Image.Image:
    """The decoded first frame of `path`, turned upright as its EXIF orientation says.

    Raises BrokenImageError if it is damaged, of another format or above `MAX_PIXELS`.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise ValueError(f"{pixels:,} pixels are more than the {MAX_PIXELS:,} allowed")
            image.load()
            return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise BrokenImageError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "is not a picture of a known format"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class ImageFolder:
    """Pictures found by `list_images(path)`, each turned into a sample by `preprocess`.

    `input_name` is the model input the samples are for. Pictures are decoded by a few threads
    (Pillow releases the interpreter lock) up to one batch ahead of the reader. One that cannot be
    decoded is skipped and named in `warnings`; if none can, `batches` raises DataError.
    """

    synthetic = False

    def __init__(self, path: Path, preprocess: Preprocess, input_name: str) -> None:
        self.path = path
        self.preprocess = preprocess
        self.input_name = input_name
        self.listing = list_images(path)
        self._broken: dict[int, str] = {}

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def has_labels(self) -> bool:
        return self.listing.labels is not None

    @property
    def classes(self) -> dict[int, str]:
        """Class index -> name, where names are known."""
        return self.listing.classes

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.listing.warnings, *self._broken.values())

    def __len__(self) -> int:
        return len(self.listing.paths)

    def subset(self, count: int) -> ImageFolder:
        """`count` pictures spread evenly over the sorted list, hence over the classes."""
        return self.select(evenly_spaced(len(self), count))

    def select(self, positions: np.ndarray) -> ImageFolder:
        """The pictures at `positions`, in that order."""
        labels = self.listing.labels
        part = copy(self)
        part._broken = {}
        part.listing = replace(
            self.listing,
            paths=tuple(self.listing.paths[i] for i in positions),
            labels=None if labels is None else labels[positions],
        )
        return part

    def batches(
        self,
        batch_size: int,
        *,
        limit: int | None = None,
        seed: int | None = None,
        cancel: Cancel | None = None,
    ) -> Iterator[Batch]:
        order = reading_order(len(self), limit, seed)
        samples: list[np.ndarray] = []
        indices: list[int] = []
        delivered = False
        for index, sample in self._decoded(order, ahead=batch_size):
            if not samples and cancel is not None:
                cancel.check()
            samples.append(sample)
            indices.append(index)
            if len(samples) == batch_size:
                yield self._batch(samples, indices)
                samples, indices, delivered = [], [], True
        if samples:
            yield self._batch(samples, indices)
        elif not delivered and len(order):
            raise DataError(
                f"None of the {len(order)} pictures of {self.path} can be used. The first: "
                f"{next(iter(self._broken.values()))}",
                "Choose other data.",
            )

    def _decoded(self, order: np.ndarray, ahead: int) -> Iterator[tuple[int, np.ndarray]]:
        """Position and sample of every usable picture, in `order`."""
        workers = min(4, os.cpu_count() or 1)
        pending: deque[tuple[int, Future[np.ndarray]]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        waiting = iter(order.tolist())
        try:
            while True:
                while (
                    len(pending) <= ahead + workers and (index := next(waiting, None)) is not None
                ):
                    pending.append((index, pool.submit(self._sample, index)))
                if not pending:
                    return
                index, future = pending.popleft()
                try:
                    sample = future.result()
                except BrokenImageError as error:
                    self._broken.setdefault(index, f"Skipped {error.message}")
                else:
                    yield index, sample
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _sample(self, index: int) -> np.ndarray:
        return self.preprocess.apply(load_image(self.listing.paths[index]))

    def _batch(self, samples: list[np.ndarray], indices: list[int]) -> Batch:
        shapes = {sample.shape for sample in samples}
        if len(shapes) > 1:
            raise DataError(
                f"The pictures of {self.path} become samples of different shapes, "
                f"such as {' and '.join(str(shape) for shape in sorted(shapes)[:2])}.",
                "Set size or crop in the preprocessing.",
            )
        chosen = np.array(indices, np.int64)
        labels = self.listing.labels
        return Batch(
            {self.input_name: np.stack(samples)},
            None if labels is None else labels[chosen],
            chosen,
        )
