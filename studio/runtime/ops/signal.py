"""Fourier transforms and what goes with them in audio models.

Complex numbers are pairs (real, imaginary) along the last axis, as ONNX has it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.dtypes import torch_dtype
from studio.runtime.ops.registry import Call, op

_HALF = (torch.float16, torch.bfloat16)


def _complex(x: Tensor) -> Tensor:
    """[..., 1] (real) or [..., 2] -> complex [...]."""
    wide = x.float() if x.dtype in _HALF else x
    return torch.complex(wide[..., 0], wide[..., 1]) if x.shape[-1] == 2 else wide[..., 0]


@op("DFT", since=17, host=(1, 2), fresh=True)
def dft(call: Call, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    """The transform of x [..., 1 or 2] along an axis, in pairs; `onesided` keeps the first half.

    The axis is an attribute (default 1) before opset 20, an input (default -2) since. The inverse
    of a one-sided spectrum is real: [..., 1].
    """
    chosen = call.get("axis", 1 if call.opset < 20 else -2) if axis is None else int(axis.item())
    # The axis counts in x; the complex numbers have one axis less.
    dim = chosen % x.dim()
    count = None if length is None else int(length.item())
    onesided = bool(call.get("onesided", 0))
    numbers = _complex(x)
    if call.get("inverse", 0):
        if onesided:
            return torch.fft.irfft(numbers, count, dim).unsqueeze(-1).to(x.dtype)
        return torch.view_as_real(torch.fft.ifft(numbers, count, dim)).to(x.dtype)
    if onesided and not numbers.is_complex():
        return torch.view_as_real(torch.fft.rfft(numbers, count, dim)).to(x.dtype)
    spectrum = torch.fft.fft(numbers, count, dim)
    if onesided:
        spectrum = spectrum.narrow(dim, 0, spectrum.shape[dim] // 2 + 1)
    return torch.view_as_real(spectrum).to(x.dtype)


@op("STFT", since=17, host=(1, 3), fresh=True)
def stft(
    call: Call,
    signal: Tensor,
    step: Tensor,
    window: Tensor | None = None,
    length: Tensor | None = None,
) -> Tensor:
    """signal [N, L] or [N, L, 1 or 2] -> [N, frames, bins, 2], each frame weighed by `window`."""
    if length is not None:
        size = int(length.item())
    else:
        size = signal.shape[1] if window is None else len(window)
    numbers = _complex(signal if signal.dim() == 3 else signal.unsqueeze(-1))
    frames = numbers.unfold(1, size, int(step.item()))
    if window is not None:
        # A window shorter than the frame is centred in it, as in torch and onnxruntime.
        missing = size - len(window)
        frames = frames * F.pad(window, (missing // 2, missing - missing // 2))
    if not call.get("onesided", 1):
        spectrum = torch.fft.fft(frames)
    elif numbers.is_complex():
        spectrum = torch.fft.fft(frames)[..., : size // 2 + 1]
    else:
        spectrum = torch.fft.rfft(frames)
    return torch.view_as_real(spectrum).to(signal.dtype)


@op("MelWeightMatrix", since=17, host=(0, 1, 2, 3, 4), fresh=True)
def mel_weight_matrix(
    call: Call, bins: Tensor, length: Tensor, rate: Tensor, lower: Tensor, upper: Tensor
) -> Tensor:
    """[length // 2 + 1, bins]: triangles evenly spaced in mel between two frequencies in Hz."""
    count, size = int(bins.item()), int(length.item())
    low, high = (2595 * math.log10(1 + edge.item() / 700) for edge in (lower, upper))
    mel = torch.arange(count + 2, dtype=torch.float64) * ((high - low) / (count + 2)) + low
    hertz = 700 * (10 ** (mel / 2595) - 1)
    points = ((size + 1) * hertz / rate.item()).floor()
    left, centre, right = points[:-2], points[1:-1], points[2:]
    at = torch.arange(size // 2 + 1, dtype=torch.float64).unsqueeze(1)
    rising = torch.where(left == centre, 1.0, (at - left) / (centre - left))
    falling = (right - at) / (right - centre)
    weights = torch.where((at >= left) & (at <= centre), rising, torch.zeros_like(rising))
    weights = torch.where((at >= centre) & (at < right), falling, weights)
    return weights.to(call.device, torch_dtype(call.get("output_datatype", 1)))
