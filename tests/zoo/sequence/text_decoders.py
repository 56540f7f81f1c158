"""Text decoders: GPT-2, Llama, a mixture of experts, a state-space model, encoder and decoder."""

from __future__ import annotations

import math

import torch
from seeding import seeded
from torch import nn
from torch.nn import functional as F


class Gpt2Block(nn.Module):
    """Pre-norm causal attention (from one projection) and a tanh-GELU feed-forward."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        mask = torch.ones(context, context, dtype=torch.bool).tril()
        self.register_buffer("mask", mask[None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        parts = self.project(self.norm1(x)).split(width, dim=2)
        query, key, value = (
            part.view(batch, time, self.heads, width // self.heads).transpose(1, 2)
            for part in parts
        )
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        scores = scores.masked_fill(~self.mask[:, :, :time, :time], torch.finfo(x.dtype).min)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, time, width)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    """Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", the head tied to
    the embedding. (N, T) words below 300 -> (N, T, 300)."""

    def __init__(self, width: int = 48, heads: int = 4, layers: int = 2, context: int = 64) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(300, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Gpt2Block(width, heads, context) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 300, bias=False)
        self.head.weight = self.words.weight

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.words(input_ids) + self.positions(places)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class RMSNorm(nn.Module):
    """Zhang and Sennrich 2019, computed in float32 as Llama does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x32 = x.to(torch.float32)
        scaled = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + 1e-5)
        return self.weight * scaled.to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) on halves."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class LlamaAttention(nn.Module):
    """Rotary positions, keys and values shared by groups of queries (Ainslie et al. 2023)."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, groups * self.size, bias=False)
        self.v_proj = nn.Linear(width, groups * self.size, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        def split(values: torch.Tensor, heads: int) -> torch.Tensor:
            return values.unflatten(-1, (heads, self.size)).transpose(1, 2)

        query = rotate(split(self.q_proj(x), self.heads), cos, sin)
        key = rotate(split(self.k_proj(x), self.groups), cos, sin)
        value, repeat = split(self.v_proj(x), self.groups), self.heads // self.groups
        key, value = (
            part[:, :, None].expand(-1, -1, repeat, -1, -1).flatten(1, 2) for part in (key, value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """Shazeer 2020, "GLU Variants Improve Transformer"."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    """Jiang et al. 2024, "Mixtral of Experts": the two best of four experts for every token, their
    weights renormalised. All experts are computed; the others count for nothing."""

    def __init__(self, width: int, hidden: int, count: int = 4, used: int = 2) -> None:
        super().__init__()
        self.used = used
        self.router = nn.Linear(width, count, bias=False)
        self.experts = nn.ModuleList(SwiGLU(width, hidden) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        best, chosen = self.router(x).softmax(-1).topk(self.used, dim=-1)
        best = best / best.sum(-1, keepdim=True)
        weights = torch.zeros_like(self.router(x)).scatter(-1, chosen, best)
        results = torch.stack([expert(x) for expert in self.experts], dim=-1)
        return (results * weights[:, :, None]).sum(-1)


class Llama(nn.Module):
    """Touvron et al. 2023, "LLaMA", with grouped queries. (N, T) words below 300 -> (N, T, 300)."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2, experts: bool = False):
        super().__init__()
        self.embed_tokens = nn.Embedding(300, width)
        self.attentions = nn.ModuleList(LlamaAttention(width, heads, 2) for _ in range(layers))
        self.mlps = nn.ModuleList(
            Experts(width, 96) if experts else SwiGLU(width, 160) for _ in range(layers)
        )
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(2 * layers + 1))
        self.lm_head = nn.Linear(width, 300, bias=False)
        size = width // heads
        self.register_buffer("rate", 10000.0 ** (-torch.arange(0, size, 2).float() / size))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(input_ids)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        angle = places[:, None].float() * self.rate
        angle = torch.cat([angle, angle], dim=-1)
        cos, sin = angle.cos(), angle.sin()
        for index, (attention, mlp) in enumerate(zip(self.attentions, self.mlps, strict=True)):
            x = x + attention(self.norms[2 * index](x), cos, sin)
            x = x + mlp(self.norms[2 * index + 1](x))
        return self.lm_head(self.norms[-1](x))


class Mamba(nn.Module):
    """Gu and Dao 2023, "Mamba": a selective state space, its scan written as a loop over time.
    (N, 12) words below 100 -> (N, 12, 100)."""

    def __init__(self, width: int = 24, state: int = 8, time: int = 12) -> None:
        super().__init__()
        inner = 2 * width
        self.state, self.time = state, time
        self.words, self.norm = nn.Embedding(100, width), RMSNorm(width)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.x_proj = nn.Linear(inner, 4 + 2 * state, bias=False)
        self.dt_proj = nn.Linear(4, inner)
        self.a_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.d = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self.head = nn.Linear(width, 100, bias=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        residual = self.words(input_ids)
        x, gate = self.in_proj(self.norm(residual)).chunk(2, dim=-1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : self.time]).transpose(1, 2)
        dt, b, c = self.x_proj(x).split([4, self.state, self.state], dim=-1)
        dt = F.softplus(self.dt_proj(dt))
        decay = torch.exp(dt[..., None] * -torch.exp(self.a_log))
        drive = (dt * x)[..., None] * b[:, :, None]
        state, outputs = torch.zeros_like(drive[:, 0]), []
        for step in range(self.time):
            state = decay[:, step] * state + drive[:, step]
            outputs.append((state * c[:, step, None]).sum(-1))
        y = (torch.stack(outputs, dim=1) + self.d * x) * F.silu(gate)
        return self.head(residual + self.out_proj(y))


class Transformer(nn.Module):
    """Vaswani et al. 2017, "Attention Is All You Need", on torch's nn.Transformer.
    ((N, 10), (N, 8)) words below 100 -> (N, 8, 100)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.source, self.target = nn.Embedding(100, width), nn.Embedding(100, width)
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        angle = torch.arange(16)[:, None] * rate
        self.register_buffer("places", torch.stack([angle.sin(), angle.cos()], -1).flatten(1))
        self.transformer = nn.Transformer(width, 4, 2, 2, 4 * width, batch_first=True)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(8))
        self.generator = nn.Linear(width, 100)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        scale = math.sqrt(self.width)
        x = self.source(source) * scale + self.places[: source.shape[1]]
        y = self.target(target) * scale + self.places[: target.shape[1]]
        padding = source == 0
        decoded = self.transformer(
            x,
            y,
            tgt_mask=self.mask,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.generator(decoded)


def gpt2() -> nn.Module:
    return seeded(Gpt2)


def llama() -> nn.Module:
    return seeded(Llama)


def mixtral() -> nn.Module:
    return seeded(lambda: Llama(experts=True))


def mamba() -> nn.Module:
    return seeded(Mamba)


def transformer() -> nn.Module:
    return seeded(Transformer)
