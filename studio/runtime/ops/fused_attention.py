"""The attention ops of onnxruntime (domain com.microsoft)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import ModelError
from studio.runtime.ops.attention import heads, rotated
from studio.runtime.ops.fused import MICROSOFT
from studio.runtime.ops.registry import Call, Result, op


def refused(call: Call, what: str) -> ModelError:
    """The error for a form of an op that is not computed."""
    return ModelError(
        f"{call.op_type} (com.microsoft) with {what} cannot be executed.",
        "Export the model with standard ONNX operators, or without this option.",
    )


def _attended(call: Call, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k' scale + bias) v, all [N, heads, T, size] -> [N, T, heads * size]."""
    scale = call.get("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    scores = (q @ k.transpose(2, 3)) * scale
    weights = torch.softmax(scores if bias is None else scores + bias, -1)
    return (weights @ v).transpose(1, 2).flatten(2)


def _mask(call: Call, mask: Tensor, batch: int, total: int) -> Tensor:
    """Numbers to add to the scores, [N, 1, 1 or queries, total].

    A mask is the number of keys [N], or ends and starts [2 N]; or 0 for a masked key in [N, total]
    and [N, queries, total].
    """
    if mask.dim() == 1:
        if len(mask) not in (batch, 2 * batch):
            raise refused(call, f"a mask of {len(mask)} numbers for a batch of {batch}")
        at = torch.arange(total, device=mask.device)
        bounds = mask.reshape(-1, batch, 1, 1, 1)
        visible = at < bounds[0]
        if len(bounds) == 2:
            visible = visible & (at >= bounds[1])
    elif mask.dim() == 2:
        visible = mask[:, None, None] > 0
    elif mask.dim() == 3:
        visible = mask[:, None] > 0
    else:
        raise refused(call, f"a mask of {mask.dim()} dimensions")
    return torch.where(visible, 0.0, call.get("mask_filter_value", -10000.0))


def _bias(call: Call, q: Tensor, k: Tensor, mask: Tensor | None, more: Tensor | None) -> Tensor:
    """The sum of the mask, the causal mask and the bias given as an input."""
    queries, total = q.shape[2], k.shape[2]
    bias = torch.zeros(queries, total, dtype=q.dtype, device=q.device)
    if call.get("unidirectional", 0):
        later = torch.ones_like(bias).triu(total - queries + 1).bool()
        bias = bias.masked_fill(later, torch.finfo(q.dtype).min)
    if mask is not None:
        masked = _mask(call, mask, len(q), total).to(q.dtype)
        bias = torch.maximum(bias + masked, bias.new_tensor(torch.finfo(q.dtype).min))
    return bias if more is None else bias + more


@op("Attention", domain=MICROSOFT, fresh=True)
def attention(
    call: Call,
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    bias: Tensor | None = None,
    past_length: Tensor | None = None,
) -> Result:
    """Self-attention of x [N, T, I] with its projection w [I, q + k + v]; past [2, N, heads, P, D].

    The second output are the keys and values so far. Raises ModelError with rotary embedding or a
    cache buffer shared between input and output.
    """
    if call.get("do_rotary", 0) or past_length is not None:
        raise refused(call, "rotary embedding" if call.get("do_rotary", 0) else "a shared buffer")
    projected = x @ w
    projected = projected if b is None else projected + b
    sizes = call.get("qkv_hidden_sizes") or [projected.shape[-1] // 3] * 3
    q, k, v = (heads(part, call.get("num_heads")) for part in projected.split(sizes, -1))
    if past is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    y = _attended(call, q, k, v, _bias(call, q, k, mask, bias))
    return (y, torch.stack([k, v]))[: call.outputs] if call.outputs > 1 else y


@op("QAttention", domain=MICROSOFT, fresh=True)
def q_attention(
    call: Call,
    x: Tensor,
    w: Tensor,
    b: Tensor,
    x_scale: Tensor,
    w_scale: Tensor,
    mask: Tensor | None = None,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    past: Tensor | None = None,
) -> Result:
    """Attention of integers x and w, dequantized; w's scale may be per column."""
    data = x.float() if x_zero is None else x.float() - x_zero.float()
    weight = w.float() if w_zero is None else w.float() - w_zero.float()
    return attention(call, data * x_scale, weight * w_scale, b, mask, past)


@op("MultiHeadAttention", domain=MICROSOFT, fresh=True)
def multi_head_attention(
    call: Call,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    past_length: Tensor | None = None,
    beams: Tensor | None = None,
) -> Result:
    """Attention of query [N, T, H], key and value [N, L, H], or of the packed forms.

    Packed are query [N, T, heads, 3, D] or key [N, L, heads, 2, D]; key and value [N, heads, L, D]
    are taken as they are. `b` is the bias of the three projections. Outputs 2 and 3 are the keys
    and values so far. Raises ModelError with a shared cache buffer or beams.
    """
    if past_length is not None or beams is not None:
        raise refused(call, "a shared cache buffer")
    count = call.get("num_heads")
    if query.dim() == 5:
        q, k, v = (part.transpose(1, 2) for part in query.unbind(3))
    else:
        q = heads(query, count)
        if key is None:
            raise refused(call, "no keys")
        if key.dim() == 5:
            k, v = (part.transpose(1, 2) for part in key.unbind(3))
        elif value is None:
            raise refused(call, "no values")
        else:
            k, v = (x if x.dim() == 4 else heads(x, count) for x in (key, value))
    if b is not None:
        sizes = [q.shape[-1] * count, k.shape[-1] * count, v.shape[-1] * count]
        added = [part.reshape(1, count, 1, -1) for part in b.split(sizes)]
        q, k, v = q + added[0], k + added[1], v + added[2]
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    y = _attended(call, q, k, v, _bias(call, q, k, mask, bias))
    return (y, k, v)[: call.outputs]


@op("RotaryEmbedding", domain=MICROSOFT, fresh=True)
def rotary_embedding(call: Call, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [N, T, heads * D] or [N, heads, T, D]; positions [N, T], or that of the first token [1]."""
    if call.get("is_packed_batching", 0):
        raise refused(call, "packed batches")
    flat = x.dim() == 3
    size = call.get("rotary_embedding_dim", 0) or 2 * cos.shape[1]
    count = call.get("num_heads", 0) or (x.shape[2] // size if flat else x.shape[1])
    states = heads(x, count) if flat else x
    if positions.dim() == 1:
        positions = positions + torch.arange(states.shape[2], device=x.device)
    y = _turned(states, cos, sin, positions, size, call.get("interleaved", 0))
    y = y * call.get("scale", 1.0)
    return y.transpose(1, 2).flatten(2) if flat else y


def _turned(
    states: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, size: int, interleaved: bool
) -> Tensor:
    """states [N, heads, T, D] rotated by the rows of cos and sin [longest, size / 2]."""
    angles = [
        table[positions.long()].reshape(-1, 1, states.shape[2], size // 2) for table in (cos, sin)
    ]
    return rotated(states, angles[0], angles[1], size, interleaved)


@op("GroupQueryAttention", domain=MICROSOFT, host=(5, 6), fresh=True)
def group_query_attention(
    call: Call,
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    last: Tensor,
    total: Tensor,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    positions: Tensor | None = None,
    bias: Tensor | None = None,
    sink: Tensor | None = None,
    *rest: Tensor | None,
) -> Result:
    """Causal attention of query [N, T, heads * D] with fewer key heads, and the cache it fills.

    `last` [N] is the length of each sequence less 1; past_key and past_value [N, kv heads, P, D].
    Rows of a batch may differ in length only while the cache is empty. Raises ModelError with a
    quantized or windowed cache, normalized queries or the scores as an output.
    """
    special = ("k_scale", "v_scale", "q_norm_weight", "k_norm_weight")
    given = [name for name, x in zip(special, rest, strict=False) if x is not None]
    given += [name for name in ("sliding_window_cache", "qk_output") if call.get(name, 0)]
    if given:
        raise refused(call, ", ".join(given))
    count, kv_count = call.get("num_heads"), call.get("kv_num_heads")
    if key is None or value is None:
        size = query.shape[-1] // (count + 2 * kv_count)
        parts = query.split([count * size, kv_count * size, kv_count * size], -1)
        query, key, value = parts
    q, k, v = heads(query, count), heads(key, kv_count), heads(value, kv_count)
    lengths = [n + 1 for n in last.reshape(-1).tolist()]
    longest, fresh = int(total.item()), q.shape[2]
    past = longest - fresh
    if past > 0 and len(set(lengths)) > 1:
        raise refused(call, "a cache and sequences of different lengths")
    if call.get("do_rotary", 0) and cos is not None and sin is not None:
        at = positions if positions is not None else past + torch.arange(fresh, device=q.device)
        turn = (at, 2 * cos.shape[1], call.get("rotary_interleaved", 0))
        q, k = _turned(q, cos, sin, *turn), _turned(k, cos, sin, *turn)
    buffer = 0
    if past_key is not None and past_value is not None:
        buffer = past_key.shape[2]
        k = torch.cat([past_key[:, :, :past], k], 2)
        v = torch.cat([past_value[:, :, :past], v], 2)
    room = (0, 0, 0, max(0, buffer - k.shape[2]))
    present = F.pad(k, room), F.pad(v, room)
    repeats = count // kv_count
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = (q @ k.transpose(2, 3)) * (call.get("scale", 0.0) or 1 / math.sqrt(q.shape[-1]))
    cap = call.get("softcap", 0.0)
    scores = torch.tanh(scores / cap) * cap if cap > 0 else scores
    scores = scores if bias is None else scores + bias[..., : k.shape[2]]
    scores = scores.masked_fill(_hidden(call, lengths, past, scores), -math.inf)
    if sink is not None or call.get("smooth_softmax", 0):
        # A key that takes its share of the attention and gives nothing.
        extra = scores.new_zeros(count) if sink is None else sink.to(scores.dtype)
        extra = extra.reshape(1, -1, 1, 1).expand(len(q), count, fresh, 1)
        weights = torch.softmax(torch.cat([scores, extra], -1), -1)[..., :-1]
    else:
        weights = torch.softmax(scores, -1)
    y = (weights @ v).transpose(1, 2).flatten(2)
    return (y, *present)[: call.outputs]


def _hidden(call: Call, lengths: list[int], past: int, scores: Tensor) -> Tensor:
    """Keys each query may not see, [queries, keys] or [N, 1, queries, keys].

    What comes later, and what lies further back than `local_window_size`.
    """
    queries, keys = scores.shape[2:]
    behind = torch.arange(queries, device=scores.device).unsqueeze(1) + past
    behind = behind - torch.arange(keys, device=scores.device)
    window = call.get("local_window_size", -1)
    if not call.get("causal", 1):
        ends = torch.tensor(lengths, device=scores.device).reshape(-1, 1, 1, 1)
        return torch.arange(keys, device=scores.device).expand(queries, keys) >= ends
    hidden = behind < 0
    return hidden | (behind >= window) if window > 0 else hidden
