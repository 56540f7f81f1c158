"""all-MiniLM-L6-v2: BERT (Devlin et al. 2018) with the names of its published weights, the mean of
the tokens, normalised (Reimers and Gurevych 2019, "Sentence-BERT")."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, EPS = 384, 12, 1e-12


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(30522, WIDTH)
        self.position_embeddings = nn.Embedding(512, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=EPS)
        self.register_buffer("position_ids", torch.arange(512)[None])

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        places = self.position_embeddings(self.position_ids[:, : input_ids.shape[1]])
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids) + places
        return self.LayerNorm(x)


class _Self(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        def split(values: torch.Tensor) -> torch.Tensor:
            return values.view(*x.shape[:2], HEADS, WIDTH // HEADS).permute(0, 2, 1, 3)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + mask
        return (scores.softmax(-1) @ value).permute(0, 2, 1, 3).reshape(x.shape)


class _Output(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(channels, WIDTH), nn.LayerNorm(WIDTH, eps=EPS)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": _Self(), "output": _Output(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, 4 * WIDTH)})
        self.output = _Output(4 * WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class MiniLM(nn.Module):
    """(input_ids, attention_mask, token_type_ids), each (N, T) int64 -> (N, 384) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer() for _ in range(6))})

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        x = self.embeddings(input_ids, token_type_ids)
        mask = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(x.dtype).min
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        weights = attention_mask[..., None].float()
        return F.normalize((x * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=1)
