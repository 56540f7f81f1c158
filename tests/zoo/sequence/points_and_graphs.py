"""Point clouds and graphs."""

from __future__ import annotations

from itertools import pairwise

import torch
from seeding import seeded
from torch import nn
from torch.nn import functional as F


def shared_mlp(*sizes: int) -> nn.Sequential:
    """1x1 convolutions with batch norm and ReLU over points (N, channels, points)."""
    layers: list[nn.Module] = []
    for channels, out in pairwise(sizes):
        layers += [nn.Conv1d(channels, out, 1), nn.BatchNorm1d(out), nn.ReLU()]
    return nn.Sequential(*layers)


class TNet(nn.Module):
    """A learned alignment (N, k, k), near the identity."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.points = shared_mlp(k, 32, 64, 128)
        self.head = nn.Sequential(
            nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, k * k)
        )
        self.register_buffer("identity", torch.eye(k))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.points(x).amax(2)
        return self.head(pooled).view(-1, *self.identity.shape) + self.identity


class PointNet(nn.Module):
    """Qi et al. 2016, "PointNet". (N, 3, points) -> (N, 10)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.align, self.align_features = TNet(3), TNet(32)
        self.first, self.rest = shared_mlp(3, 32), shared_mlp(32, 64, 128)
        self.head = nn.Sequential(
            nn.Linear(128, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(64, classes),
        )

    def forward(self, cloud: torch.Tensor) -> torch.Tensor:
        x = torch.bmm(cloud.transpose(2, 1), self.align(cloud)).transpose(2, 1)
        x = self.first(x)
        x = torch.bmm(x.transpose(2, 1), self.align_features(x)).transpose(2, 1)
        pooled = torch.max(self.rest(x), 2, keepdim=True)[0]
        return F.log_softmax(self.head(pooled.flatten(1)), dim=1)


class EdgeConv(nn.Module):
    """For each point the maximum over its k nearest, found anew in every layer."""

    def __init__(self, channels: int, out: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.edge = nn.Sequential(
            nn.Conv2d(2 * channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, count = x.shape
        squares = (x * x).sum(1, keepdim=True)
        distance = 2 * x.transpose(2, 1) @ x - squares - squares.transpose(2, 1)
        nearest = distance.topk(self.k, dim=-1).indices.reshape(batch, 1, count * self.k)
        neighbours = x.gather(2, nearest.expand(-1, channels, -1)).unflatten(2, (count, self.k))
        centre = x[..., None].expand_as(neighbours)
        return self.edge(torch.cat([neighbours - centre, centre], dim=1)).amax(-1)


class DGCNN(nn.Module):
    """Wang et al. 2018, "Dynamic Graph CNN for Learning on Point Clouds". (N, 3, 64) -> (N, 10)."""

    def __init__(self, k: int = 8) -> None:
        super().__init__()
        self.edges = nn.ModuleList(EdgeConv(a, b, k) for a, b in ((3, 16), (16, 24), (24, 32)))
        self.mix = nn.Sequential(
            nn.Conv1d(72, 64, 1, bias=False), nn.BatchNorm1d(64), nn.LeakyReLU(0.2)
        )
        self.head = nn.Linear(128, 10)

    def forward(self, cloud: torch.Tensor) -> torch.Tensor:
        x, features = cloud, []
        for edge in self.edges:
            x = edge(x)
            features.append(x)
        x = self.mix(torch.cat(features, dim=1))
        return self.head(torch.cat([x.amax(2), x.mean(2)], dim=1))


class SetAbstraction(nn.Module):
    """Every point of a farthest-point sample looks at its nearest points."""

    def __init__(self, channels: int, sizes: tuple[int, ...], points: int, k: int) -> None:
        super().__init__()
        self.points, self.k = points, k
        layers: list[nn.Module] = []
        for first, out in zip((channels + 3, *sizes), sizes, strict=False):
            layers += [nn.Conv2d(first, out, 1), nn.BatchNorm2d(out), nn.ReLU()]
        self.mlp = nn.Sequential(*layers)

    def farthest(self, places: torch.Tensor) -> torch.Tensor:
        """Numbers (N, points) of points far from each other, the first of them point 0."""
        chosen = torch.zeros_like(places[:, :1, 0], dtype=torch.long)
        distance = torch.full_like(places[..., 0], 1e10)
        numbers = [chosen]
        for _ in range(self.points - 1):
            last = places.gather(1, chosen[..., None].expand(-1, -1, 3))
            distance = torch.minimum(distance, ((places - last) ** 2).sum(-1))
            chosen = distance.argmax(-1, keepdim=True)
            numbers.append(chosen)
        return torch.cat(numbers, dim=1)

    def forward(
        self, places: torch.Tensor, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        centres = places.gather(1, self.farthest(places)[..., None].expand(-1, -1, 3))
        nearest = torch.cdist(centres, places).topk(self.k, largest=False).indices.flatten(1)

        def grouped(values: torch.Tensor) -> torch.Tensor:
            width = values.shape[-1]
            taken = values.gather(1, nearest[..., None].expand(-1, -1, width))
            return taken.unflatten(1, (self.points, self.k))

        local = torch.cat([grouped(places) - centres[:, :, None], grouped(features)], dim=-1)
        return centres, self.mlp(local.permute(0, 3, 1, 2)).amax(-1).transpose(1, 2)


class PointNet2(nn.Module):
    """Qi et al. 2017, "PointNet++", with nearest points for the ball query.
    (N, 64 points, 3) -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = SetAbstraction(3, (16, 32), 16, 8)
        self.second = SetAbstraction(32, (32, 64), 4, 8)
        self.head = nn.Linear(64, 10)

    def forward(self, cloud: torch.Tensor) -> torch.Tensor:
        places, features = self.first(cloud, cloud)
        _, features = self.second(places, features)
        return self.head(features.amax(1))


class GCN(nn.Module):
    """Kipf and Welling 2016, "Semi-Supervised Classification with Graph Convolutional Networks".
    Nodes (V, 16) and directed edges (2, E) int64 -> (V, 7); there is no batch."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(16, width), nn.Linear(width, 7)])

    def forward(self, nodes: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        source, target = edge_index
        degree = nodes.new_ones(nodes.shape[0]).index_add(
            0, target, torch.ones_like(target, dtype=nodes.dtype)
        )
        scale = degree.rsqrt()
        for index, linear in enumerate(self.linears):
            x = linear(nodes if index == 0 else F.relu(nodes)) * scale[:, None]
            nodes = (x + torch.zeros_like(x).index_add(0, target, x[source])) * scale[:, None]
        return nodes.log_softmax(1)


class GAT(nn.Module):
    """Velickovic et al. 2017, "Graph Attention Networks": a softmax over each node's edges by
    scatter_reduce. Nodes (V, 16) and edges (2, E) int64 -> (V, 7)."""

    def __init__(self, heads: int = 4, size: int = 8) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.project = nn.Linear(16, heads * size, bias=False)
        self.source = nn.Parameter(torch.randn(heads, size) * 0.3)
        self.target = nn.Parameter(torch.randn(heads, size) * 0.3)
        self.head = nn.Linear(heads * size, 7)

    def forward(self, nodes: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        source, target = edge_index[0], edge_index[1]
        x = self.project(nodes).view(-1, self.heads, self.size)
        scores = (x * self.source).sum(-1)[source] + (x * self.target).sum(-1)[target]
        scores = F.leaky_relu(scores, 0.2)
        where = target[:, None].expand_as(scores)
        nothing = torch.zeros_like(x[..., 0])
        highest = nothing.scatter_reduce(0, where, scores, "amax", include_self=False)
        powers = (scores - highest[target]).exp()
        total = nothing.scatter_add(0, where, powers)
        weights = powers / (total[target] + 1e-16)
        mixed = torch.zeros_like(x).index_add(0, target, x[source] * weights[..., None])
        return self.head(F.elu(mixed.flatten(1)))


def point_net() -> nn.Module:
    module = seeded(PointNet)
    for net in (module.align, module.align_features):
        net.head[-1].weight.data *= 0.05  # alignments stay near the identity, as after training
    return module


def point_net2() -> nn.Module:
    return seeded(PointNet2)


def dgcnn() -> nn.Module:
    return seeded(DGCNN)


def gcn() -> nn.Module:
    return seeded(GCN)


def gat() -> nn.Module:
    return seeded(GAT)
