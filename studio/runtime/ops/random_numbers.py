"""Random numbers: of the distribution ONNX asks for, from torch's generator.

With a `seed` the numbers are the same each time; they are not those of another runtime.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from studio.runtime.ops.dtypes import torch_dtype
from studio.runtime.ops.registry import Call, op


def _generator(call: Call, device: torch.device) -> torch.Generator | None:
    """A generator seeded with the bits of the `seed` attribute, None for the global one."""
    seed = call.get("seed")
    if seed is None:
        return None
    (bits,) = struct.unpack("<I", struct.pack("<f", seed))
    return torch.Generator(device).manual_seed(bits)


def _drawn(call: Call, shape: list[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uniform or normal numbers, as the name of the op says."""
    empty = torch.empty(shape, dtype=dtype, device=device)
    generator = _generator(call, device)
    if "Uniform" in call.op_type:
        return empty.uniform_(call.get("low", 0.0), call.get("high", 1.0), generator=generator)
    return empty.normal_(call.get("mean", 0.0), call.get("scale", 1.0), generator=generator)


@op("RandomUniform", "RandomNormal", fresh=True)
def random(call: Call) -> Tensor:
    return _drawn(call, call.get("shape"), torch_dtype(call.get("dtype", 1)), call.device)


@op("RandomUniformLike", "RandomNormalLike", fresh=True)
def random_like(call: Call, x: Tensor) -> Tensor:
    dtype = torch_dtype(call.get("dtype")) if "dtype" in call.attributes else x.dtype
    return _drawn(call, list(x.shape), dtype, x.device)


@op("Bernoulli", since=15, fresh=True)
def bernoulli(call: Call, x: Tensor) -> Tensor:
    """1 with the probability x says, else 0."""
    dtype = torch_dtype(call.get("dtype")) if "dtype" in call.attributes else x.dtype
    return torch.bernoulli(x, generator=_generator(call, x.device)).to(dtype)


@op("Multinomial", since=7, fresh=True)
def multinomial(call: Call, x: Tensor) -> Tensor:
    """Classes [N, sample_size] drawn with the unnormalised log-probabilities x [N, C]."""
    probabilities = torch.softmax(x.float(), -1)
    generator = _generator(call, x.device)
    drawn = torch.multinomial(probabilities, call.get("sample_size", 1), True, generator=generator)
    return drawn.to(torch_dtype(call.get("dtype", 6)))
