"""Speed of fake-quantization, relative to copying the tensor and to torch's own operators.

    python tests/benchmarks/fake_quantize.py [--device cuda] [--rounds 15]

Everything runs in this process on one pinned thread, in turns; the figures are medians in
nanoseconds a thousand values, and their ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
import torch
from torch import Tensor

from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.fake_quantize import FakeQuantizer
from studio.quant.grid import FloatGrid, Grid
from studio.quant.learned import LearnedScale
from studio.runtime.allocator import keep_freed_memory

SHAPE = (16, 96, 56, 56)
U8 = Grid(8, False, False)
S8 = Grid(8, True, True)


def encoding(grid: Grid | FloatGrid, axis: int | None = None, block: int | None = None) -> Encoding:
    shape = () if axis is None else (SHAPE[axis],)
    if block is not None and axis is not None:
        shape = tuple(n // block if i == axis else n for i, n in enumerate(SHAPE))
    spread = np.random.default_rng(0).uniform(2, 4, (2, *shape))
    return encoding_from_range(-spread[0], spread[1], grid, axis, block)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    keep_freed_memory()
    x = torch.randn(SHAPE, device=device)
    upstream = torch.randn(SHAPE, device=device)
    work = forward(x, device) | training(x, upstream, device)

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    times: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        seconds(run)
    for _ in range(options.rounds):
        for name, run in work.items():
            times[name].append(seconds(run))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{x.numel() / 1e6:.1f} million values on {device}, torch {torch.__version__}")
    print(f"{'':52}{'ns/1000':>9}{'/ copy':>9}{'/ torch':>9}")
    own = ""
    for name, median in medians.items():
        own = name if name.startswith("torch") else own
        ratios = median / medians["copy"], median / medians.get(own, median)
        print(f"{name:52}{median / x.numel() * 1e12:9.0f}{ratios[0]:9.2f}{ratios[1]:9.2f}")


def forward(x: Tensor, device: torch.device) -> dict[str, Callable[[], object]]:
    """Values alone; each torch operator is followed by what replaces it."""
    scales = torch.full((SHAPE[1],), 0.03, device=device)
    zeros = torch.zeros(SHAPE[1], dtype=torch.int32, device=device)

    def quiet(quantizer: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return quantizer(x)

        return run

    def ours(*arguments: object) -> Callable[[], object]:
        return quiet(FakeQuantizer(encoding(*arguments), len(SHAPE), device))  # type: ignore[arg-type]

    return {
        "copy": quiet(torch.clone),
        "torch.fake_quantize_per_tensor_affine": quiet(
            lambda t: torch.fake_quantize_per_tensor_affine(t, 0.03, 0, -128, 127)
        ),
        "per tensor, uint8 asymmetric": ours(U8),
        "torch.fake_quantize_per_channel_affine": quiet(
            lambda t: torch.fake_quantize_per_channel_affine(t, scales, zeros, 1, -128, 127)
        ),
        "per channel, int8 symmetric": ours(S8, 1),
        "per channel, uint8 asymmetric": ours(U8, 1),
        "per block of 16, int4 symmetric": ours(Grid(4, True, True), 1, 16),
        "torch's float8_e4m3fn and back": quiet(
            lambda t: (t / 0.01).clamp(-448, 448).to(torch.float8_e4m3fn).to(torch.float32) * 0.01
        ),
        "per tensor, float8e4m3fn": ours(FloatGrid("float8e4m3fn")),
        "per block of 32, MX float4e2m1": ours(FloatGrid("float4e2m1", True), 1, 32),
        "float16": ours(FloatGrid("float16")),
    }


def training(x: Tensor, upstream: Tensor, device: torch.device) -> dict[str, Callable[[], object]]:
    """Forward and backward."""
    leaf = x.clone().requires_grad_()
    scale = torch.full((1,), 0.03, device=device, requires_grad=True)
    scales = torch.full((SHAPE[1],), 0.03, device=device, requires_grad=True)
    zero, zeros = torch.zeros(1, device=device), torch.zeros(SHAPE[1], device=device)

    def backward(quantizer: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def run() -> None:
            leaf.grad = None
            quantizer(leaf).backward(upstream)

        return run

    def learned(grid: Grid, axis: int | None, learn_zero_point: bool) -> Callable[[], object]:
        return backward(
            LearnedScale(encoding(grid, axis), 4, learn_zero_point=learn_zero_point).to(device)
        )

    per_tensor = torch._fake_quantize_learnable_per_tensor_affine
    per_channel = torch._fake_quantize_learnable_per_channel_affine
    return {
        "torch.fake_quantize_per_tensor_affine, training": backward(
            lambda t: torch.fake_quantize_per_tensor_affine(t, 0.03, 0, -128, 127)
        ),
        "straight-through, per tensor": backward(FakeQuantizer(encoding(U8), 4, device)),
        "straight-through, per channel": backward(FakeQuantizer(encoding(S8, 1), 4, device)),
        "torch's learnable, per tensor": backward(
            lambda t: per_tensor(t, scale, zero, -128, 127, 1.0)
        ),
        "learned scale, per tensor": learned(S8, None, False),
        "learned scale and zero point, per tensor": learned(U8, None, True),
        "torch's learnable, per channel": backward(
            lambda t: per_channel(t, scales, zeros, 1, -128, 127, 1.0)
        ),
        "learned scale, per channel": learned(S8, 1, False),
    }


if __name__ == "__main__":
    main()
