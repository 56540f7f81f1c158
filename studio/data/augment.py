"""Random changes of pictures while training: mirrored, moved, brighter or darker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def augment(
    images: np.ndarray,
    seeds: Sequence[tuple[int, ...]],
    *,
    flip: bool,
    crop: int,
    color: float,
) -> np.ndarray:
    """A changed copy of `images`, float32 (batch, channels, height, width); what happens to each
    depends on its own of the `seeds` alone.

    flip: each mirrored left to right or not. crop: each moved by up to so many pixels, its border
    reflected. color: contrast changed by up to this share, brightness by this share of the spread.
    """
    result = np.array(images)
    height, width = images.shape[2:]
    border = [(0, 0), (min(crop, height - 1),) * 2, (min(crop, width - 1),) * 2]
    for image, seed in zip(result, seeds, strict=True):
        rng = np.random.default_rng(seed)
        if crop:
            top, left = (rng.integers(0, 2 * side + 1) for side, _ in border[1:])
            padded = np.pad(image, border, mode="reflect")
            image[:] = padded[:, top : top + height, left : left + width]
        if flip and rng.random() < 0.5:
            image[:] = image[..., ::-1].copy()
        if color:
            contrast, brightness = rng.uniform(-color, color, 2)
            image *= np.float32(1 + contrast)
            image += np.float32(brightness * image.std())
    return result
