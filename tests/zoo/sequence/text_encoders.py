"""Text encoders: BERT and its kin, T5, CLIP's two towers, convolutions over words."""

from __future__ import annotations

import math

import torch
from seeding import seeded
from torch import nn
from torch.nn import functional as F


class BertAttention(nn.Module):
    """Scaled dot-product attention spelled out, as the published code does."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        def split(values: torch.Tensor) -> torch.Tensor:
            return values.view(*x.shape[:2], self.heads, self.size).permute(0, 2, 1, 3)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.size) + mask
        mixed = scores.softmax(-1) @ value
        return mixed.permute(0, 2, 1, 3).reshape(x.shape)


class BertLayer(nn.Module):
    """Post-norm attention and GELU feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = BertAttention(width, heads)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.intermediate = nn.Linear(width, 4 * width)
        self.output = nn.Linear(4 * width, width)
        self.output_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.attention_norm(x + self.attention_output(self.attention(x, mask)))
        return self.output_norm(x + self.output(F.gelu(self.intermediate(x))))


class Bert(nn.Module):
    """Devlin et al. 2018, "BERT": embeddings of word, position and segment, a masked encoder, the
    pooled first token. (input_ids, attention_mask, token_type_ids), each (N, T) int64 ->
    (N, T, 48) and (N, 48)."""

    def __init__(self, width: int = 48, heads: int = 4, layers: int = 2, words: int = 300) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width, padding_idx=0)
        self.positions = nn.Embedding(64, width)
        self.types = nn.Embedding(2, width)
        self.register_buffer("position_ids", torch.arange(64)[None])
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(width, heads) for _ in range(layers))
        self.pooler = nn.Linear(width, width)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        places = self.positions(self.position_ids[:, : input_ids.shape[1]])
        x = self.norm(self.words(input_ids) + places + self.types(token_type_ids))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


class Albert(nn.Module):
    """Lan et al. 2019, "ALBERT": a narrow embedding, one layer used three times, and a masked-word
    head tied to the embedding. (input_ids, attention_mask) (N, T) int64 -> (N, T, 300)."""

    def __init__(self, narrow: int = 16, width: int = 48, heads: int = 4, words: int = 300) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, narrow), nn.Embedding(64, narrow)
        self.norm = nn.LayerNorm(narrow, eps=1e-12)
        self.project = nn.Linear(narrow, width)
        self.layer = BertLayer(width, heads)
        self.narrow = nn.Linear(width, narrow)
        self.head_norm = nn.LayerNorm(narrow)
        self.decoder = nn.Linear(narrow, words)
        self.decoder.weight = self.words.weight

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        places = self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        x = self.project(self.norm(self.words(input_ids) + places))
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -10000.0
        for _ in range(3):
            x = self.layer(x, mask)
        return self.decoder(self.head_norm(F.gelu(self.narrow(x), approximate="tanh")))


class DistilBert(nn.Module):
    """Sanh et al. 2019, "DistilBERT", as a classifier: masked_fill with -inf, fused attention.
    (input_ids, attention_mask) (N, T) int64 -> (N, 2)."""

    def __init__(self, width: int = 48, heads: int = 4, layers: int = 2, words: int = 300) -> None:
        super().__init__()
        self.heads = heads
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(64, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.projections = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.outputs = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        self.ffns = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(layers)
        )
        self.pre_classifier = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        batch, time = input_ids.shape
        x = self.norm(self.words(input_ids) + self.positions.weight[:time])
        keep = attention_mask.bool()[:, None, None, :].expand(batch, 1, time, time)
        for index, (project, output, ffn) in enumerate(
            zip(self.projections, self.outputs, self.ffns, strict=True)
        ):
            parts = project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(*parts.unbind(0), attn_mask=keep)
            x = self.norms[2 * index](x + output(mixed.transpose(1, 2).flatten(2)))
            x = self.norms[2 * index + 1](x + ffn(x))
        return self.classifier(F.relu(self.pre_classifier(x[:, 0])))


class T5Norm(nn.Module):
    """Root-mean-square norm without a shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6))


class T5Encoder(nn.Module):
    """Raffel et al. 2019, "Exploring the Limits of Transfer Learning": relative position buckets
    shared by all layers, no scaling, gated GELU (v1.1). (N, T) words below 300 -> (N, T, 48)."""

    def __init__(self, width: int = 48, heads: int = 4, layers: int = 2, buckets: int = 16) -> None:
        super().__init__()
        self.heads, self.buckets = heads, buckets
        self.words = nn.Embedding(300, width)
        self.bias = nn.Embedding(buckets, heads)

        def linears(first: int, out: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Linear(first, out, bias=False) for _ in range(layers))

        self.query, self.key, self.value = (linears(width, width) for _ in range(3))
        self.out = linears(width, width)
        self.gate, self.up, self.down = (
            linears(width, 2 * width),
            linears(width, 2 * width),
            linears(2 * width, width),
        )
        self.norms = nn.ModuleList(T5Norm(width) for _ in range(2 * layers + 1))

    def bucket(self, distance: torch.Tensor) -> torch.Tensor:
        """Exact buckets for short distances, logarithmic ones up to 64 beyond (bidirectional)."""
        half = self.buckets // 2
        exact = half // 2
        size = distance.abs()
        scaled = torch.log(size.float().clamp(min=1) / exact) / math.log(64 / exact)
        far = (exact + (scaled * (half - exact)).long()).clamp(max=half - 1)
        return (distance > 0).long() * half + torch.where(size < exact, size, far)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.words(input_ids)
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        bias = self.bias(self.bucket(place[None] - place[:, None])).permute(2, 0, 1)[None]

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        for index, out in enumerate(self.out):
            y = self.norms[2 * index](x)
            query, key, value = (
                split(linears[index](y)) for linears in (self.query, self.key, self.value)
            )
            weights = (query @ key.transpose(2, 3) + bias).float().softmax(-1)
            x = x + out((weights @ value).transpose(1, 2).flatten(2))
            y = self.norms[2 * index + 1](x)
            y = F.gelu(self.gate[index](y), approximate="tanh") * self.up[index](y)
            x = x + self.down[index](y)
        return self.norms[-1](x)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class ClipBlock(nn.Module):
    """Pre-norm block on nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), QuickGELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.norm2(x))


class Clip(nn.Module):
    """Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision":
    cosine scores of images (N, 3, 32, 32) and texts (M, 16) int64, N x M and M x N."""

    def __init__(self, width: int = 48, heads: int = 4, layers: int = 2, words: int = 100) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * 0.1)
        self.image_places = nn.Parameter(torch.randn(17, width) * 0.1)
        self.text_places = nn.Parameter(torch.randn(16, width) * 0.1)
        self.image_norm, self.pooled_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.image_blocks = nn.ModuleList(ClipBlock(width, heads) for _ in range(layers))
        self.words = nn.Embedding(words, width)
        self.text_blocks = nn.ModuleList(ClipBlock(width, heads) for _ in range(layers))
        self.text_norm = nn.LayerNorm(width)
        self.image_projection = nn.Parameter(torch.randn(width, 32) * 0.1)
        self.text_projection = nn.Parameter(torch.randn(width, 32) * 0.1)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("mask", torch.full((16, 16), -math.inf).triu(1))

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        token = self.class_token.expand(x.shape[0], 1, -1)
        x = self.image_norm(torch.cat([token, x], dim=1) + self.image_places).transpose(0, 1)
        for block in self.image_blocks:
            x = block(x, None)
        return self.pooled_norm(x[0]) @ self.image_projection

    def encode_text(self, text: torch.Tensor) -> torch.Tensor:
        x = (self.words(text) + self.text_places).transpose(0, 1)
        for block in self.text_blocks:
            x = block(x, self.mask)
        x = self.text_norm(x.transpose(0, 1))
        # the end token has the highest number
        ends = x[torch.arange(x.shape[0], device=x.device), text.argmax(dim=-1)]
        return ends @ self.text_projection

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images, texts = self.encode_image(image), self.encode_text(text)
        images = images / images.norm(dim=1, keepdim=True)
        texts = texts / texts.norm(dim=1, keepdim=True)
        scores = self.logit_scale.exp() * images @ texts.t()
        return scores, scores.t()


class TextCNN(nn.Module):
    """Kim 2014, "Convolutional Neural Networks for Sentence Classification".
    (N, 20) words below 200 -> (N, 4)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(200, width)
        self.convs = nn.ModuleList(nn.Conv2d(1, 16, (size, width)) for size in (3, 4, 5))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(48, 4)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words)[:, None]
        parts = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        pooled = [F.max_pool1d(part, part.shape[2]).squeeze(2) for part in parts]
        return self.head(self.dropout(torch.cat(pooled, dim=1)))


class FastText(nn.Module):
    """Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification".
    (N, 12) n-grams below 500 -> (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(500, 16, mode="mean")
        self.head = nn.Linear(16, 5)

    def forward(self, grams: torch.Tensor) -> torch.Tensor:
        return self.head(self.bag(grams))


def bert() -> nn.Module:
    return seeded(Bert)


def albert() -> nn.Module:
    return seeded(Albert)


def distil_bert() -> nn.Module:
    return seeded(DistilBert)


def t5_encoder() -> nn.Module:
    return seeded(T5Encoder)


def clip() -> nn.Module:
    return seeded(Clip)


def text_cnn() -> nn.Module:
    return seeded(TextCNN)


def fast_text() -> nn.Module:
    return seeded(FastText)
