"""Linear attention and the causal convolution before it: state instead of a growing cache."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.registry import Call, Result, op


@op("LinearAttention", since=27, fresh=True)
def linear_attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> Result:
    """Attention by a state [N, kv heads, dk, dv] that each step updates; all inputs [N, T, H * D].

    `update_rule` says how: S = exp(decay) S + k v' (decay only where "gated"), v first corrected
    to beta (v - S' k) where "delta". Computed in float32 at least; the state's type is kept.
    """
    rule = call.get("update_rule", "gated_delta")
    gated, corrected = "gated" in rule, "delta" in rule
    heads, kv_heads = call.get("q_num_heads"), call.get("kv_num_heads")
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    q, k, v = (
        x.to(wide).unflatten(2, (count, -1)).transpose(1, 2)
        for x, count in ((query, heads), (key, kv_heads), (value, kv_heads))
    )
    scale = call.get("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    shape = (len(q), kv_heads, k.shape[-1], v.shape[-1])
    state = torch.zeros(shape, dtype=wide, device=q.device) if past is None else past.to(wide)
    gates = rates = None
    if gated and decay is not None:
        gates = decay.to(wide).unflatten(2, (kv_heads, -1)).transpose(1, 2).exp().unsqueeze(-1)
    if corrected and beta is not None:
        rates = beta.to(wide).transpose(1, 2).unsqueeze(-1)
    outputs = []
    for t in range(q.shape[2]):
        if gates is not None:
            state = state * gates[:, :, t]
        written = v[:, :, t]
        if rates is not None:
            written = rates[:, :, t] * (written - torch.einsum("nhkv,nhk->nhv", state, k[:, :, t]))
        state = state + k[:, :, t].unsqueeze(-1) * written.unsqueeze(-2)
        read = state.repeat_interleave(heads // kv_heads, 1)
        outputs.append(scale * torch.einsum("nhk,nhkv->nhv", q[:, :, t], read))
    y = torch.stack(outputs, 1).flatten(2)
    kept = query.dtype if past is None else past.dtype
    return (y.to(query.dtype), state.to(kept))[: call.outputs]


@op("CausalConvWithState", since=27, fresh=True)
def causal_conv_with_state(
    call: Call, x: Tensor, w: Tensor, b: Tensor | None = None, past: Tensor | None = None
) -> Result:
    """Depthwise convolution of x [N, C, L] with w [C, 1, k] after the k - 1 elements of `past`.

    The second output is the last k - 1 elements, for the next call.
    """
    before = w.shape[2] - 1
    start = x.new_zeros(x.shape[0], x.shape[1], before) if past is None else past
    padded = torch.cat([start, x], 2)
    y = F.conv1d(padded, w, b, groups=x.shape[1])
    if call.get("activation", "none") != "none":
        y = F.silu(y)
    return (y, padded.narrow(2, padded.shape[2] - before, before))[: call.outputs]
