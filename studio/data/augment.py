"""Random changes of pictures while training: mirrored, moved, brighter or darker."""

from __future__ import annotations

import numpy as np


def augment(
    images: np.ndarray, rng: np.random.Generator, *, flip: bool, crop: int, color: float
) -> np.ndarray:
    """A changed copy of `images`, float32 (batch, channels, height, width).

    flip: each mirrored left to right or not. crop: each moved by up to so many pixels, its border
    reflected. color: contrast changed by up to this share, brightness by this share of the spread.
    """
    result = images
    if crop:
        pad = [(0, 0), (0, 0), (crop, crop), (crop, crop)]
        padded = np.pad(images, pad, mode="reflect")
        result = np.empty_like(images)
        height, width = images.shape[2:]
        places = rng.integers(0, 2 * crop + 1, (len(images), 2))
        for index, (top, left) in enumerate(places):
            result[index] = padded[index, :, top : top + height, left : left + width]
    if flip:
        mirrored = rng.random(len(images)) < 0.5
        result = np.where(mirrored[:, None, None, None], result[..., ::-1], result)
    if color:
        size = (len(images), 1, 1, 1)
        contrast = 1 + rng.uniform(-color, color, size)
        brightness = rng.uniform(-color, color, size) * images.std()
        result = result * contrast.astype(np.float32) + brightness.astype(np.float32)
    return np.ascontiguousarray(result)
