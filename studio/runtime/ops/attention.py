"""Attention and what goes with it in transformers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.dtypes import torch_dtype
from studio.runtime.ops.registry import Call, Result, op

_WITH_BIAS, _AFTER_SOFTMAX = 2, 3


@op("Attention", since=23, fresh=True)
def attention(
    call: Call,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Result:
    """softmax(q k' scale + bias) v over heads; outputs 2 and 3 are the keys and values so far.

    q, k and v are [N, heads, T, size] or, with the numbers of heads as attributes, [N, T, heads *
    size]. `lengths` [N] (opset 24) counts the valid keys. A query with no key to attend to gives
    0. Output 4 is the product q k' at the stage `qk_matmul_output_mode` names.
    """
    flat = q.dim() == 3
    if flat:
        q = heads(q, call.get("q_num_heads"))
        k, v = heads(k, call.get("kv_num_heads")), heads(v, call.get("kv_num_heads"))
    scale = math.sqrt(call.get("scale") or 1 / math.sqrt(q.shape[-1]))
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    keys, values = k, v
    bias = _bias(call, q, k, mask, 0 if past_key is None else past_key.shape[2], lengths)
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    product = (q * scale) @ (k * scale).transpose(2, 3)
    softcap = call.get("softcap", 0.0)
    if softcap > 0:
        product = torch.tanh(product / softcap) * softcap
    scores = product + bias
    mode = call.get("qk_matmul_output_mode", 0)
    shown = scores if mode == _WITH_BIAS else product
    if call.get("softmax_precision"):
        scores = scores.to(torch_dtype(call.get("softmax_precision")))
    alone = torch.isneginf(bias.amax(-1, keepdim=True))
    weights = torch.softmax(scores, -1).masked_fill(alone, 0)
    shown = weights.to(q.dtype) if mode == _AFTER_SOFTMAX else shown
    y = weights.to(q.dtype) @ v
    if flat:
        y = y.transpose(1, 2).flatten(2)
    return (y, keys, values, shown)[: call.outputs]


def heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(2, (count, -1)).transpose(1, 2)


def _bias(
    call: Call, q: Tensor, k: Tensor, mask: Tensor | None, past: int, lengths: Tensor | None
) -> Tensor:
    """What is added to the scores: the mask, and -inf where a query may not attend to a key."""
    queries, keys = q.shape[2], k.shape[2]
    bias = torch.zeros((queries, keys), dtype=q.dtype, device=q.device)
    if mask is not None:
        missing = keys - mask.shape[-1]
        if mask.dtype == torch.bool:
            allowed = F.pad(mask, (0, missing), value=False)
            bias = (
                bias.masked_fill(~allowed, -math.inf)
                if allowed.dim() <= 2
                else torch.where(allowed, 0.0, -math.inf).to(q.dtype)
            )
        else:
            bias = bias + F.pad(mask, (0, missing), value=-math.inf)
    at = torch.arange(keys, device=q.device)
    if lengths is None:
        offset: Tensor | int = past
    else:
        offset = (lengths.reshape(-1, 1, 1, 1) - queries).to(q.device)
        bias = bias.masked_fill(at >= lengths.reshape(-1, 1, 1, 1).to(q.device), -math.inf)
    # How far each key lies before its query.
    behind = torch.arange(queries, device=q.device).unsqueeze(1) + offset - at
    left, right = call.get("left_window_size", -1), call.get("right_window_size", -1)
    if call.get("is_causal", 0):
        bias = bias.masked_fill(behind < 0, -math.inf)
    if left >= 0:
        bias = bias.masked_fill(behind > left, -math.inf)
    if right >= 0:
        bias = bias.masked_fill(-behind > right, -math.inf)
    return bias


@op("FlexAttention", domain="ai.onnx.preview", fresh=True)
def flex_attention(call: Call, q: Tensor, k: Tensor, v: Tensor, *captured: Tensor) -> Tensor:
    """softmax(score_mod(q k' scale)), then prob_mod, times v; all [N, heads, T, size].

    The two are subgraphs of one tensor and see it in `softmax_precision`, by default float32 or
    the float64 of q.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    if call.get("softmax_precision"):
        wide = torch_dtype(call.get("softmax_precision"))
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scale = math.sqrt(call.get("scale") or 1 / math.sqrt(q.shape[-1]))
    scores = ((q * scale) @ (k * scale).transpose(2, 3)).to(wide)
    if call.get("score_mod") is not None:
        (scores,) = call.get("score_mod").run((scores,), captured)
    weights = torch.softmax(scores, -1)
    if call.get("prob_mod") is not None:
        (weights,) = call.get("prob_mod").run((weights,), captured)
    return weights.to(q.dtype) @ v


@op("RotaryEmbedding", since=23, fresh=True)
def rotary_embedding(
    call: Call, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Rotate pairs of x [N, heads, T, size] or [N, T, heads * size] by their position's angle."""
    flat = x.dim() == 3
    states = x.unflatten(2, (call.get("num_heads"), -1)) if flat else x.transpose(1, 2)
    size = call.get("rotary_embedding_dim", 0) or states.shape[-1]
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    result = rotated(states, cos.unsqueeze(2), sin.unsqueeze(2), size, call.get("interleaved", 0))
    return result.flatten(2) if flat else result.transpose(1, 2)


def rotated(states: Tensor, cos: Tensor, sin: Tensor, size: int, interleaved: bool) -> Tensor:
    """states [..., D] with the pairs of the first `size` features turned by the angles given.

    A pair is two neighbours if `interleaved`, else one of each half; cos and sin are [..., size/2].
    """
    turned, kept = states[..., :size], states[..., size:]
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned.chunk(2, -1)
    pair = (cos * first - sin * second, sin * first + cos * second)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([turned, kept], -1)
