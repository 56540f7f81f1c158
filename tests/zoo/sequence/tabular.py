"""Recommendation, tables, and small fully connected networks."""

from __future__ import annotations

from itertools import pairwise

import torch
from seeding import seeded
from torch import nn
from torch.nn import functional as F


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for first, out in pairwise(sizes):
        layers += [nn.Linear(first, out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class DLRM(nn.Module):
    """Naumov et al. 2019, "Deep Learning Recommendation Model": pooled embeddings and dense
    features meet in pairwise products. ((N, 13), (N, 3 tables, 4 numbers) int64) -> (N, 1)."""

    def __init__(self, width: int = 16, tables: int = 3) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(100, width, mode="sum") for _ in range(tables))
        self.bottom = mlp(13, 32, width)
        rows, columns = torch.tril_indices(tables + 1, tables + 1, offset=-1)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)
        self.top = mlp(width + len(rows), 32, 1)

    def forward(self, dense: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bottom(dense))
        bags = [table(sparse[:, index]) for index, table in enumerate(self.tables)]
        vectors = torch.stack([x, *bags], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.rows, self.columns]
        return torch.sigmoid(self.top(torch.cat([x, products], dim=1)))


class WideAndDeep(nn.Module):
    """Cheng et al. 2016, "Wide & Deep Learning": ((N, 40) 0 or 1 crosses, (N, 5) categories below
    50 int64, (N, 6) numbers) -> (N,)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.wide = nn.Linear(40, 1)
        self.embeddings = nn.ModuleList(nn.Embedding(50, width) for _ in range(5))
        self.norm = nn.BatchNorm1d(6)
        self.deep = mlp(5 * width + 6, 48, 24, 1)

    def forward(
        self, crosses: torch.Tensor, categories: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        parts = [e(categories[:, index]) for index, e in enumerate(self.embeddings)]
        deep = self.deep(torch.cat([*parts, self.norm(numbers)], dim=-1))
        return torch.sigmoid(self.wide(crosses) + deep).squeeze(-1)


class NCF(nn.Module):
    """He et al. 2017, "Neural Collaborative Filtering" (NeuMF): (users (N,), items (N,)) int64 ->
    (N, 1)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.user_gmf, self.item_gmf = nn.Embedding(100, width), nn.Embedding(200, width)
        self.user_mlp, self.item_mlp = nn.Embedding(100, width), nn.Embedding(200, width)
        self.mlp = mlp(2 * width, 32, 16)
        self.head = nn.Linear(width + 16, 1)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        product = self.user_gmf(users) * self.item_gmf(items)
        deep = F.relu(self.mlp(torch.cat([self.user_mlp(users), self.item_mlp(items)], dim=-1)))
        return torch.sigmoid(self.head(torch.cat([product, deep], dim=-1)))


class TabTransformer(nn.Module):
    """Huang et al. 2020, "TabTransformer": attention over categories, whose numbers are offset into
    one embedding. ((N, 6) categories below 10 int64, (N, 4) numbers) -> (N, 2)."""

    def __init__(self, width: int = 16, columns: int = 6) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.arange(columns) * 10)
        self.embedding = nn.Embedding(10 * columns, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(4)
        self.head = mlp(width * columns + 4, 64, 2)

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        x = self.encoder(self.embedding(categories + self.offsets))
        return self.head(torch.cat([x.flatten(1), self.norm(numbers)], dim=1))


class Autoencoder(nn.Module):
    """Anomaly detection in machine sounds (DCASE 2020 baseline, MLPerf Tiny): (N, 640) -> same."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (640, 64, 64, 8, 64, 64)
        layers: list[nn.Module] = []
        for first, out in pairwise(sizes):
            layers += [nn.Linear(first, out), nn.BatchNorm1d(out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(64, 640))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.layers(frames)


class NeRF(nn.Module):
    """Mildenhall et al. 2020, "NeRF": ((N, 3) places, (N, 3) directions) -> (N, 4), positions coded
    as sines of octaves, one skip connection."""

    def __init__(self, width: int = 64, octaves: int = 6) -> None:
        super().__init__()
        self.octaves = octaves
        coded = 3 * (1 + 2 * octaves)
        self.first = nn.ModuleList([nn.Linear(coded, width), nn.Linear(width, width)])
        self.rest = nn.ModuleList([nn.Linear(width + coded, width), nn.Linear(width, width)])
        self.density, self.feature = nn.Linear(width, 1), nn.Linear(width, width)
        self.view, self.colour = nn.Linear(width + coded, width // 2), nn.Linear(width // 2, 3)

    def code(self, x: torch.Tensor) -> torch.Tensor:
        waves = [wave(x * 2.0**k) for k in range(self.octaves) for wave in (torch.sin, torch.cos)]
        return torch.cat([x, *waves], dim=-1)

    def forward(self, places: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        coded = self.code(places)
        x = coded
        for linear in self.first:
            x = F.relu(linear(x))
        x = torch.cat([coded, x], dim=-1)
        for linear in self.rest:
            x = F.relu(linear(x))
        density = F.relu(self.density(x))
        seen = F.relu(self.view(torch.cat([self.feature(x), self.code(directions)], dim=-1)))
        return torch.cat([torch.sigmoid(self.colour(seen)), density], dim=-1)


def dlrm() -> nn.Module:
    return seeded(DLRM)


def wide_and_deep() -> nn.Module:
    return seeded(WideAndDeep)


def ncf() -> nn.Module:
    return seeded(NCF)


def tab_transformer() -> nn.Module:
    return seeded(TabTransformer)


def autoencoder() -> nn.Module:
    return seeded(Autoencoder)


def nerf() -> nn.Module:
    return seeded(NeRF)
