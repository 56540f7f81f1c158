"""Train a model of this folder on images in `FOLDER/train/<class>` and `FOLDER/test/<class>`.

    python train.py resnet20 FOLDER --epochs 60

Writes `<model>.safetensors` beside this file. Needs torch, safetensors and Pillow.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

HERE = Path(__file__).parent
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH = 64


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """Images (count, 3, 32, 32), normalised, and the number of the class of each."""
    images, labels = [], []
    for label, name in enumerate(sorted(path.name for path in folder.iterdir())):
        for path in sorted((folder / name).iterdir()):
            images.append(np.asarray(Image.open(path).convert("RGB")))
            labels.append(label)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (pixels - mean) / std, torch.tensor(labels)


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to 4 pixels and mirrored or not."""
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    result = torch.empty_like(images)
    moves = torch.randint(0, 9, (len(images), 2), generator=generator).tolist()
    mirror = torch.randint(0, 2, (len(images),), generator=generator).tolist()
    for index, ((top, left), flip) in enumerate(zip(moves, mirror, strict=True)):
        image = padded[index, :, top : top + 32, left : left + 32]
        result[index] = image.flip(-1) if flip else image
    return result


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of the images classified right."""
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(part).argmax(1) == truth).sum())
            for part, truth in zip(images.split(250), labels.split(250), strict=True)
        )
    return 100 * right / len(images)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=("quickstart", "resnet20", "mobilenetv2"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    images, labels = read(options.folder / "train")
    test = read(options.folder / "test")
    model = getattr(importlib.import_module(options.model), options.model)()
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, options.epochs * (len(images) // BATCH), pct_start=0.2
    )
    for epoch in range(options.epochs):
        model.train()
        order = torch.randperm(len(images), generator=generator)
        for chosen in order.split(BATCH):
            if len(chosen) < BATCH:
                continue
            batch = augmented(images[chosen], generator)
            batch = batch.contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(batch), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss:.3f}, test {accuracy(model, *test):.1f}", flush=True)
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(state, HERE / f"{options.model}.safetensors")


if __name__ == "__main__":
    main()
