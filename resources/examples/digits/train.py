"""Train the example network and write its files beside this script.

    pip install scikit-learn
    python resources/examples/digits/train.py

Takes about half a minute on one core. The same versions of torch and scikit-learn give the same
files on the same kind of processor.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from model import digits_net
from onnxscript import optimizer
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
EPOCHS = 60
BATCH = 64
CALIBRATION = 200


def moved(images: torch.Tensor) -> torch.Tensor:
    """Each image turned by up to 10 degrees, scaled by 0.9 to 1.1, shifted by up to a pixel."""
    count = len(images)
    angle = (torch.rand(count) - 0.5) * (2 * torch.pi * 10 / 180)
    scale = 0.9 + 0.2 * torch.rand(count)
    shift = (torch.rand(count, 2) - 0.5) * (2 * 2 / 8)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def train(images: torch.Tensor, labels: torch.Tensor) -> torch.nn.Module:
    model = digits_net()
    steps = EPOCHS * (len(images) // BATCH)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            loss = F.cross_entropy(
                model(moved(images[chosen])), labels[chosen], label_smoothing=0.05
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
    return model.eval()


def export(model: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write ONNX with batch normalization kept and no path of this machine in it."""
    program = torch.onnx.export(
        model,
        (example,),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    # Without these the graph computes each missing bias from the shape of the weights.
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    proto = program.model_proto
    folders = rf'(?<=File ")(\S*/site-packages|{re.escape(str(HERE))})/'
    for node in proto.graph.node:
        for entry in node.metadata_props:
            entry.value = re.sub(folders, "", entry.value)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=0
    )
    model = train(torch.from_numpy(train_x), torch.from_numpy(train_y))
    with torch.no_grad():
        found = model(torch.from_numpy(test_x)).argmax(1).numpy()
    print(f"test accuracy {(found == test_y).mean():.2%} of {len(test_y)} images")

    weights = HERE / "weights.safetensors"
    save_file(model.state_dict(), weights)
    weights.chmod(0o644)
    export(model, torch.from_numpy(test_x[:2]), HERE / "digits.onnx")
    np.savez(HERE / "test.npz", image=test_x, labels=test_y)
    np.savez(HERE / "calibration.npz", image=train_x[:CALIBRATION], labels=train_y[:CALIBRATION])


if __name__ == "__main__":
    main()
