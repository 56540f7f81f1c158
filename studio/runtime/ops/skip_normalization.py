"""Normalization joined with the sum or the embedding before it, as transformers are exported."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.fused import MICROSOFT
from studio.runtime.ops.registry import Call, Result, op


@op("SimplifiedLayerNormalization", fresh=True)
def simplified_layer_normalization(call: Call, x: Tensor, scale: Tensor) -> Result:
    """x over its root mean square, scaled; the second output is the reciprocal of that root."""
    axes = list(range(call.get("axis", -1) % x.dim(), x.dim()))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    inverse = torch.rsqrt(wide.square().mean(axes, keepdim=True) + call.get("epsilon", 1e-5))
    return ((wide * inverse).to(x.dtype) * scale, inverse)[: call.outputs]


def _sum(x: Tensor, skip: Tensor, bias: Tensor | None) -> Tensor:
    total = x + skip
    return total if bias is None else total + bias


@op("SkipLayerNormalization", domain=MICROSOFT, fresh=True)
def skip_layer_normalization(
    call: Call,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
) -> Result:
    """Layer norm of x + skip + bias over the last axis; output 4 is that sum."""
    total = _sum(x, skip, bias)
    epsilon = call.get("epsilon", 1e-12)
    y = F.layer_norm(total, total.shape[-1:], scale, beta, epsilon)
    if call.outputs == 1:
        return y
    var, mean = torch.var_mean(total, -1, correction=0, keepdim=True)
    return (y, mean, torch.rsqrt(var + epsilon), total)[: call.outputs]


@op("SkipSimplifiedLayerNormalization", domain=MICROSOFT, fresh=True)
def skip_simplified_layer_normalization(
    call: Call, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Result:
    """As SkipLayerNormalization, by the root mean square; output 2 (the mean) is 0."""
    total = _sum(x, skip, bias)
    wide = total.float() if x.dtype in (torch.float16, torch.bfloat16) else total
    epsilon = call.get("epsilon", 1e-12)
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    y = (wide * inverse).to(x.dtype) * scale
    return (y, torch.zeros_like(inverse), inverse, total)[: call.outputs]


@op("EmbedLayerNormalization", domain=MICROSOFT, fresh=True)
def embed_layer_normalization(
    call: Call,
    ids: Tensor,
    segments: Tensor | None,
    words: Tensor,
    positions: Tensor,
    segment_table: Tensor | None,
    scale: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
) -> Result:
    """Sum of the embeddings of ids [N, T], normalized; also the words a row and the bare sum."""
    if position_ids is None:
        position_ids = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
    total = F.embedding(ids.long(), words) + F.embedding(position_ids.long(), positions)
    if segments is not None and segment_table is not None:
        total = total + F.embedding(segments.long(), segment_table)
    y = F.layer_norm(total, total.shape[-1:], scale, beta, call.get("epsilon", 1e-12))
    count = torch.zeros(len(ids), dtype=torch.int32, device=ids.device)
    if mask is not None:
        count = (mask == 1).sum(1).to(torch.int32)
    return (y, count, total)[: call.outputs]


@op("GroupNorm", domain=MICROSOFT, fresh=True)
def group_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Group normalization, channels last unless `channels_last` is 0, with SiLU if asked for."""
    last = call.get("channels_last", 1)
    data = x.movedim(-1, 1) if last else x
    y = F.group_norm(
        data, call.get("groups"), scale.to(x.dtype), bias.to(x.dtype), call.get("epsilon", 1e-5)
    )
    y = F.silu(y) if call.get("activation", 0) else y
    return y.movedim(1, -1) if last else y


@op("SkipGroupNorm", domain=MICROSOFT, fresh=True)
def skip_group_norm(
    call: Call, x: Tensor, scale: Tensor, beta: Tensor, skip: Tensor, bias: Tensor | None = None
) -> Result:
    """GroupNorm of x + skip + bias (channels last); the second output is that sum."""
    if skip.dim() == 2:
        skip = skip[:, None, None]
    total = _sum(x, skip, bias)
    return (group_norm(call, total, scale, beta), total)[: call.outputs]
