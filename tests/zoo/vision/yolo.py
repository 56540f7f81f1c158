"""YOLOv3 (Redmon and Farhadi, 2018), YOLOv5 with its C3 and anchors, and YOLOv8 with C2f, SPPF and
the distribution focal decode (Li et al., 2020). Boxes are decoded inside the model."""

from __future__ import annotations

import torch
from blocks import conv_bn
from seeding import seeded
from torch import Tensor, nn

CLASSES = 6
ANCHORS = torch.tensor([[10.0, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 80]]).view(2, 3, 2)
STRIDES = (8, 16)


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.1)


def grid(height: int, width: int, like: Tensor) -> Tensor:
    """(1, 1, height, width, 2): x and y of every cell."""
    y, x = torch.meshgrid(
        torch.arange(height, device=like.device),
        torch.arange(width, device=like.device),
        indexing="ij",
    )
    return torch.stack((x, y), 2).view(1, 1, height, width, 2).to(like.dtype)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn(width, width // 2, 1, act=leaky), conv_bn(width // 2, width, act=leaky)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class YOLOv3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at8 = nn.Sequential(
            conv_bn(3, 16, act=leaky),
            conv_bn(16, 24, 3, 2, act=leaky),
            Residual(24),
            conv_bn(24, 32, 3, 2, act=leaky),
            Residual(32),
            conv_bn(32, 48, 3, 2, act=leaky),
            Residual(48),
        )
        self.at16 = nn.Sequential(conv_bn(48, 64, 3, 2, act=leaky), Residual(64))
        self.neck = conv_bn(64, 32, 1, act=leaky)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = conv_bn(80, 48, act=leaky)
        self.heads = nn.ModuleList(nn.Conv2d(width, 3 * (5 + CLASSES), 1) for width in (48, 64))
        self.register_buffer("anchors", ANCHORS)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.at8(x)
        coarse = self.at16(fine)
        fine = self.merge(torch.cat([self.up(self.neck(coarse)), fine], 1))
        found = []
        for index, (level, stride) in enumerate(zip((fine, coarse), STRIDES, strict=True)):
            y = self.heads[index](level)
            batch, _, height, width = y.shape
            y = y.view(batch, 3, 5 + CLASSES, height, width).permute(0, 1, 3, 4, 2)
            centre = (torch.sigmoid(y[..., 0:2]) + grid(height, width, y)) * stride
            size = torch.exp(y[..., 2:4]) * self.anchors[index].view(1, 3, 1, 1, 2)
            rest = torch.sigmoid(y[..., 4:])
            found.append(torch.cat((centre, size, rest), -1).reshape(batch, -1, 5 + CLASSES))
        return torch.cat(found, 1)


class Bottleneck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv_bn(width, width, act=nn.SiLU), conv_bn(width, width, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))


class C3(nn.Module):
    """v5: three convolutions around a bottleneck."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1, self.cv2 = (
            conv_bn(inputs, half, 1, act=nn.SiLU),
            conv_bn(inputs, half, 1, act=nn.SiLU),
        )
        self.inner, self.cv3 = Bottleneck(half), conv_bn(outputs, outputs, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.inner(self.cv1(x)), self.cv2(x)), 1))


class C2f(nn.Module):
    """v8: every bottleneck's output is kept."""

    def __init__(self, inputs: int, outputs: int, count: int = 1) -> None:
        super().__init__()
        self.half = outputs // 2
        self.cv1 = conv_bn(inputs, outputs, 1, act=nn.SiLU)
        self.cv2 = conv_bn((2 + count) * self.half, outputs, 1, act=nn.SiLU)
        self.inner = nn.ModuleList(Bottleneck(self.half) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).split((self.half, self.half), 1))
        parts.extend(layer(parts[-1]) for layer in self.inner)
        return self.cv2(torch.cat(parts, 1))


class SPPF(nn.Module):
    """One max pool, used three times."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1 = conv_bn(width, width // 2, 1, act=nn.SiLU)
        self.cv2 = conv_bn(2 * width, width, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        parts.extend(self.pool(parts[-1]) for _ in range(3))
        return self.cv2(torch.cat(parts, 1))


class Backbone(nn.Module):
    """Path aggregation over two resolutions, from blocks of kind `block`."""

    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.at8 = nn.Sequential(
            conv_bn(3, 16, 3, 2, act=nn.SiLU),
            conv_bn(16, 32, 3, 2, act=nn.SiLU),
            block(32, 32),
            conv_bn(32, 48, 3, 2, act=nn.SiLU),
            block(48, 48),
        )
        self.at16 = nn.Sequential(conv_bn(48, 64, 3, 2, act=nn.SiLU), block(64, 64), SPPF(64))
        self.up = nn.Upsample(None, 2, "nearest")
        self.down = conv_bn(48, 48, 3, 2, act=nn.SiLU)
        self.fine, self.coarse = block(112, 48), block(112, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.at8(x)
        coarse = self.at16(fine)
        fine = self.fine(torch.cat([self.up(coarse), fine], 1))
        return fine, self.coarse(torch.cat([self.down(fine), coarse], 1))


class YOLOv5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(C3)
        self.heads = nn.ModuleList(nn.Conv2d(width, 3 * (5 + CLASSES), 1) for width in (48, 64))
        self.register_buffer("anchors", ANCHORS)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for index, (level, stride) in enumerate(zip(self.backbone(x), STRIDES, strict=True)):
            y = self.heads[index](level)
            batch, _, height, width = y.shape
            y = y.view(batch, 3, 5 + CLASSES, height, width).permute(0, 1, 3, 4, 2).contiguous()
            centre, size, rest = y.sigmoid().split((2, 2, 1 + CLASSES), 4)
            centre = (centre * 2 + grid(height, width, y) - 0.5) * stride
            size = (size * 2) ** 2 * self.anchors[index].view(1, 3, 1, 1, 2)
            joined = torch.cat((centre, size, rest), 4)
            found.append(joined.view(batch, 3 * height * width, 5 + CLASSES))
        return torch.cat(found, 1)


class YOLOv8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bins = 8
        self.backbone = Backbone(C2f)
        self.boxes = nn.ModuleList(
            nn.Sequential(conv_bn(width, 32, act=nn.SiLU), nn.Conv2d(32, 4 * self.bins, 1))
            for width in (48, 64)
        )
        self.scores = nn.ModuleList(
            nn.Sequential(conv_bn(width, 32, act=nn.SiLU), nn.Conv2d(32, CLASSES, 1))
            for width in (48, 64)
        )
        self.expect = nn.Conv2d(self.bins, 1, 1, bias=False).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        rows, centres, strides = [], [], []
        for index, (level, stride) in enumerate(zip(self.backbone(x), STRIDES, strict=True)):
            y = torch.cat((self.boxes[index](level), self.scores[index](level)), 1)
            batch, channels, height, width = y.shape
            rows.append(y.view(batch, channels, -1))
            centres.append(grid(height, width, y).view(-1, 2) + 0.5)
            strides.append(torch.full((height * width, 1), float(stride)))
        boxes, scores = torch.cat(rows, 2).split((4 * self.bins, CLASSES), 1)
        batch, _, places = boxes.shape
        chances = boxes.view(batch, 4, self.bins, places).transpose(2, 1).softmax(1)
        before, after = self.expect(chances).view(batch, 4, places).chunk(2, 1)
        centre, scale = torch.cat(centres).t().unsqueeze(0), torch.cat(strides).t()
        first, second = centre - before, centre + after
        decoded = torch.cat(((first + second) / 2, second - first), 1) * scale
        return torch.cat((decoded, scores.sigmoid()), 1)


def v3() -> nn.Module:
    model = seeded(YOLOv3)
    for head in model.heads:
        head.weight.data *= 0.1  # sizes are exponentials of what it says
    return model


def v5() -> nn.Module:
    return seeded(YOLOv5)


def v8() -> nn.Module:
    model = seeded(YOLOv8)
    # the expected bin: a convolution whose weights are 0, 1, 2, ...
    model.expect.weight.data = torch.arange(8, dtype=torch.float).view(1, 8, 1, 1)
    return model
