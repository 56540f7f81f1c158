"""Functions that torch's exporter would get wrong with open sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graph_models import difference, run

from studio.graph.open import open_model
from studio.graph.sources.python_source import build_module
from studio.graph.sources.source import ModelSource

CODE = """
import torch
import torch.nn.functional as F
from torch import nn

class Pools(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        rows = y.flatten(2)
        return (
            F.avg_pool2d(y, y.shape[2:]),
            F.max_pool2d(y, (y.size(2), y.size(3))),
            F.max_pool1d(rows, rows.size(2)),
            F.avg_pool2d(y, 2),
            F.max_pool2d(y, kernel_size=3, stride=1, padding=1),
        )
"""


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 12, 10)])
def test_a_pool_over_the_whole_picture_keeps_the_size_open(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "model.py"
    path.write_text(CODE, encoding="utf-8")
    graph = open_model(f"{path}:Pools", inputs="1,3,8,8", trust=True)
    assert graph.warnings == ()
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        expected = build_module(ModelSource(path, "Pools"))(torch.from_numpy(x))
    found = run(graph.to_proto(), {graph.inputs[0].name or "": x})
    for one, other in zip(expected, found, strict=True):
        assert difference(one.numpy(), other) < 1e-5
