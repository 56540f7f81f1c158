"""Weights packed in 2, 4 or 8 bits with a scale a block (domain com.microsoft)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.dtypes import NARROW_INTEGERS
from studio.runtime.ops.fused import MICROSOFT
from studio.runtime.ops.indexing import positive
from studio.runtime.ops.registry import Call, op


def unpacked(packed: Tensor, bits: int) -> Tensor:
    """Bytes [..., B] -> unsigned numbers [..., B * 8 / bits], the lowest bits first."""
    if bits not in (2, 4, 8):
        raise ValueError(f"weights of {bits} bits; 2, 4 and 8 are done")
    shifts = torch.arange(0, 8, bits, device=packed.device, dtype=torch.uint8)
    return ((packed.unsqueeze(-1) >> shifts) & (2**bits - 1)).flatten(-2)


@op("MatMulNBits", domain=MICROSOFT, fresh=True)
def matmul_n_bits(
    call: Call,
    a: Tensor,
    b: Tensor,
    scales: Tensor,
    zeros: Tensor | None = None,
    group_index: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """a [..., K] times the transpose of packed b [N, blocks, bytes].

    Scales are [N, blocks]; zero points the same or packed [N, bytes], by default 2^(bits - 1).
    `accuracy_level` (integer sums instead of float ones) is a hint and not followed.
    """
    if group_index is not None:
        raise ValueError("the deprecated input g_idx")
    rows, columns, bits = call.get("N"), call.get("K"), call.get("bits", 4)
    blocks = b.shape[1]
    steps = unpacked(b, bits).to(a.dtype)
    scales = scales.reshape(rows, blocks, 1).to(a.dtype)
    if zeros is None:
        start: Tensor | int = 2 ** (bits - 1)
    elif zeros.dtype == torch.uint8:
        start = unpacked(zeros.reshape(rows, -1), bits)[:, :blocks].unsqueeze(-1).to(a.dtype)
    else:
        start = zeros.reshape(rows, blocks, 1).to(a.dtype)
    weight = ((steps - start) * scales).reshape(rows, -1)[:, :columns]
    return F.linear(a, weight, bias)


@op("GatherBlockQuantized", domain=MICROSOFT, fresh=True)
def gather_block_quantized(
    call: Call, data: Tensor, indices: Tensor, scales: Tensor, zeros: Tensor | None = None
) -> Tensor:
    """Gather of quantized rows, dequantized; uint8 data are packed along the last axis."""
    bits, block = call.get("bits", 4), call.get("block_size", 128)
    default = 0
    if data.dtype == torch.uint8 and call.type_of(0) not in NARROW_INTEGERS:
        data, default = unpacked(data, bits), 2 ** (bits - 1)
        zeros = None if zeros is None else unpacked(zeros, bits)
    axis, along = call.get("gather_axis", 0) % data.dim(), call.get("quantize_axis", 1) % data.dim()
    if axis == along:
        raise ValueError("the axis of the blocks is the axis gathered from")
    where = positive(indices.reshape(-1), data.shape[axis])
    steps = data.index_select(axis, where).to(scales.dtype)

    def spread(values: Tensor) -> Tensor:
        rows = values.narrow(along, 0, scales.shape[along]).index_select(axis, where)
        return rows.repeat_interleave(block, along).narrow(along, 0, data.shape[along])

    steps = steps - (default if zeros is None else spread(zeros).to(scales.dtype))
    shape = data.shape[:axis] + indices.shape + data.shape[axis + 1 :]
    return (steps * spread(scales)).reshape(shape)
