"""Random inputs that look like what the model is made for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .registry import Input

Shape = tuple[int, ...]
Maker = Callable[[np.random.Generator, Shape, int], np.ndarray]


def _image(random: np.random.Generator, shape: Shape, below: int) -> np.ndarray:
    """Smooth blobs and an edge, about -2 to 2, different in every sample and channel."""
    count, channels, height, width = shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    pictures = np.zeros(shape, np.float32)
    for index in np.ndindex(count, channels):
        for _ in range(4):
            frequency, phase = random.uniform(0.5, 6, 2), random.uniform(0, 6.3)
            pictures[index] += np.sin(6.3 * (frequency[0] * x + frequency[1] * y) + phase) / 2
        pictures[index] += (x > random.uniform(0.2, 0.8)) * random.normal()
    return pictures + 0.05 * random.standard_normal(shape, np.float32)


def _sound(random: np.random.Generator, shape: Shape, below: int) -> np.ndarray:
    """Three tones and a little noise along the last axis, about -1 to 1."""
    time = np.arange(shape[-1]) / shape[-1]
    sound = 0.02 * random.standard_normal(shape)
    for _ in range(3):
        frequency = random.uniform(2, 40, (*shape[:-1], 1))
        sound += 0.3 * np.sin(6.3 * frequency * time + random.uniform(0, 6.3, (*shape[:-1], 1)))
    return sound.astype(np.float32)


def _normal(random: np.random.Generator, shape: Shape, below: int) -> np.ndarray:
    return random.standard_normal(shape, np.float32)


def _uniform(random: np.random.Generator, shape: Shape, below: int) -> np.ndarray:
    return random.random(shape, np.float32)


def _integers(random: np.random.Generator, shape: Shape, below: int) -> np.ndarray:
    return random.integers(0, below, shape)


def _mask(random: np.random.Generator, shape: Shape, below: int) -> np.ndarray:
    """int64 ones, then zeros: (batch, length) with at least half of each row ones."""
    lengths = random.integers((shape[1] + 1) // 2, shape[1] + 1, (shape[0], 1))
    return (np.arange(shape[1])[None] < lengths).astype(np.int64)


KINDS: dict[str, Maker] = {
    "image": _image,
    "sound": _sound,
    "normal": _normal,
    "uniform": _uniform,
    "integers": _integers,
    "mask": _mask,
}


def make(inputs: Sequence[Input], shapes: Sequence[Shape], seed: int) -> tuple[np.ndarray, ...]:
    """Values for each input, of the given shapes (the batch included)."""
    random = np.random.default_rng(seed)
    return tuple(
        KINDS[item.kind](random, shape, item.below)
        for item, shape in zip(inputs, shapes, strict=True)
    )


def batch(inputs: Sequence[Input], count: int, seed: int) -> tuple[np.ndarray, ...]:
    """`count` samples of the inputs' own shapes."""
    return make(inputs, [(count, *item.shape[1:]) for item in inputs], seed)
