"""Batch normalization taken out again of the layer that preparation folded it into.

With s = gamma / sqrt(var + epsilon) and t = beta - mean s a layer with weight W and bias b in front
of it became V = s W with c = s b + t, one behind it V = W s with c = b + W t. V and c have changed
since: by rounding, training, or other techniques. The module gets numbers that compute the same as
V and c do now. Its statistics stay, and so that they go on describing its layers, the weight of
each channel keeps its size, |W|: gamma takes up the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Norm:
    """Numbers of a batch normalization, float64 (channels,)."""

    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    epsilon: float

    @property
    def deviation(self) -> np.ndarray:
        return np.sqrt(self.var + self.epsilon)

    @property
    def scale(self) -> np.ndarray:
        return self.gamma / self.deviation

    @property
    def shift(self) -> np.ndarray:
        return self.beta - self.mean * self.scale


@dataclass(frozen=True)
class Layer:
    """Numbers of a layer, float64: `weight`, whose channels that the normalization scales lie along
    `axis`, and `bias`."""

    weight: np.ndarray
    bias: np.ndarray
    axis: int

    def along(self, numbers: np.ndarray) -> np.ndarray:
        """`numbers` (channels,) as they broadcast with the weight."""
        shape = [1] * self.weight.ndim
        shape[self.axis] = -1
        return numbers.reshape(shape)


@dataclass(frozen=True)
class Unfolded:
    """What the module gets, float64; all else stays: `mean` where there is no beta to change."""

    weight: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    bias: np.ndarray


def from_layer_before(now: Layer, own: Layer, norm: Norm, *, affine: bool) -> Unfolded:
    """Normalization of what the layer `own` gives; `now` holds both. Without `affine` gamma and
    beta are no parameters."""
    weight, scale = _taken_apart(now, own, norm, affine=affine)
    if affine:
        beta, mean = now.bias - scale * (own.bias - norm.mean), norm.mean
    else:
        beta, mean = norm.beta, own.bias - (now.bias - norm.beta) / scale
    return Unfolded(weight, scale * norm.deviation, beta, mean, own.bias)


def from_layer_behind(now: Layer, own: Layer, norm: Norm, *, affine: bool) -> Unfolded:
    """Normalization of what the layer `own` reads; `now` holds both."""
    weight, scale = _taken_apart(now, own, norm, affine=affine)
    shift = norm.beta - norm.mean * scale
    out = 1 - own.axis  # of the weight's first two axes one is summed over
    others = tuple(axis for axis in range(weight.ndim) if axis != out)
    bias = now.bias - (weight * own.along(shift)).sum(axis=others)
    return Unfolded(weight, scale * norm.deviation, norm.beta, norm.mean, bias)


def from_scale_and_shift(scale: np.ndarray, shift: np.ndarray, norm: Norm) -> Norm:
    """Normalization that became a product with `scale` and a sum with `shift`."""
    beta = shift + norm.mean * scale
    return Norm(scale * norm.deviation, beta, norm.mean, norm.var, norm.epsilon)


def _taken_apart(
    now: Layer, own: Layer, norm: Norm, *, affine: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the layer and scale of the normalization (channels,) whose product is `now`."""
    scale = norm.scale
    if affine:
        before, after = _sizes(own), _sizes(now)
        # A channel that was switched off may have been switched on, or have had no weights.
        sign = np.where(scale < 0, -1.0, 1.0)
        known = np.where(scale == 0, 1.0, scale)
        kept = sign * after / np.where(before > 0, before, 1.0)
        scale = np.where(before > 0, kept, np.where(after > 0, known, scale))
    off = scale == 0  # the layer's own weights have no effect there
    weight = now.weight / now.along(np.where(off, 1.0, scale))
    return np.where(now.along(off), own.weight, weight), scale


def _sizes(layer: Layer) -> np.ndarray:
    """Euclidean norm of the weight of each channel, (channels,)."""
    others = tuple(axis for axis in range(layer.weight.ndim) if axis != layer.axis)
    return np.sqrt(np.square(layer.weight).sum(axis=others))
