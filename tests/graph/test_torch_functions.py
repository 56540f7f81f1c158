"""Parts of torch that its exporter follows only with help: recurrent layers and some functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import studio
from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.graph.sources.recurrences import whole_recurrences
from studio.graph.sources.spelled_out import spelled_out
from studio.runtime.executor import Executor
from studio.runtime.session import float_session

CODE = """
import torch
from torch import nn
from torch.nn import functional as F

class Recurrent(nn.Module):
    def __init__(self, kind, both, first):
        super().__init__()
        self.first = first
        self.rnn = kind(6, 8, 2, bidirectional=both, batch_first=first)
    def forward(self, x):
        y, state = self.rnn(x if self.first else x.transpose(0, 1))
        return y if self.first else y.transpose(0, 1)

class Bags(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 5, mode=mode)
    def forward(self, numbers):
        return self.bag(numbers)

class Distances(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p
        self.centres = nn.Parameter(torch.randn(4, 6))
    def forward(self, x):
        return torch.cdist(x, self.centres.expand(x.shape[0], 4, 6), p=self.p)

class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.embedding = nn.Embedding(20, 8)
    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(5)
        return self.encoder(self.embedding(tokens), mask, src_key_padding_mask=tokens == 0)

class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(2, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(3)
    def forward(self, x):
        return self.norm(self.conv(x))

class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(6, 8, proj_size=3, batch_first=True)
    def forward(self, x):
        return self.rnn(x)[0]

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
    def forward(self, x):
        time = x.shape[1]
        step = 2 if time > 4 else 1
        return self.linear(x[:, :: step].sum(1)) * (1 if time == 5 else 2)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "functions.py"
    path.write_text(CODE, encoding="utf-8")
    return path


def opened(file: Path, factory: str, shape: str) -> tuple[ModelGraph, torch.nn.Module]:
    """The graph, and a module with the same weights."""
    namespace: dict = {}
    exec(compile(CODE, "functions.py", "exec"), namespace)
    module = eval(factory, namespace).eval()
    weights = file.parent / "weights.pth"
    torch.save(module.state_dict(), weights)
    code = CODE + f"\n\ndef make():\n    return {factory}\n"
    file.write_text(code, encoding="utf-8")
    return studio.open_model(f"{file}:make", weights=weights, inputs=shape, trust=True), module


def assert_equal(graph: ModelGraph, module: torch.nn.Module, x: torch.Tensor) -> None:
    feed = {graph.inputs[0].name or "": x.numpy()}
    with torch.no_grad():
        expected = module(x).numpy()
        (ours,) = Executor(graph).run(feed).values()
    (theirs,) = float_session(graph).run(feed).values()
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(theirs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("both", [False, True])
def test_recurrent_layers_stay_whole_at_any_length(file: Path, kind: str, both: bool) -> None:
    graph, module = opened(file, f"Recurrent(nn.{kind}, {both}, True)", "1,5,6")
    assert [node.op_type for node in graph.nodes()].count(kind) == 2  # one a layer
    for batch, time in ((1, 5), (3, 11)):
        assert_equal(graph, module, torch.randn(batch, time, 6))


def test_time_may_come_first(file: Path) -> None:
    graph, module = opened(file, "Recurrent(nn.LSTM, True, False)", "1,5,6")
    assert_equal(graph, module, torch.randn(2, 9, 6))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_are_looked_up_without_a_loop(file: Path, mode: str) -> None:
    graph, module = opened(file, f"Bags({mode!r})", "1,4:int64")
    assert not {"Loop", "If"} & {node.op_type for node in graph.nodes()}
    assert_equal(graph, module, torch.randint(0, 20, (3, 4)))


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_distances(file: Path, p: float) -> None:
    graph, module = opened(file, f"Distances({p})", "1,7,6")
    assert_equal(graph, module, torch.randn(2, 7, 6))


def test_a_masked_encoder_with_padding(file: Path) -> None:
    graph, module = opened(file, "Masked()", "1,5:int64")
    tokens = torch.tensor([[3, 7, 2, 0, 0], [9, 1, 4, 5, 6]])
    torch.backends.mha.set_fastpath_enabled(False)  # it leaves zeros where there is padding
    try:
        assert_equal(graph, module, tokens)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_a_volume_convolution_without_a_bias(file: Path) -> None:
    graph, module = opened(file, "Volume()", "1,2,4,6,6")
    assert [node.op_type for node in graph.nodes()] == ["Conv"]
    assert_equal(graph, module, torch.randn(2, 2, 4, 6, 6))


def test_a_projected_lstm_is_refused_by_name(file: Path) -> None:
    with pytest.raises(ModelError, match="proj_size"):
        opened(file, "Projected()", "1,5,6")


def test_a_size_that_becomes_a_constant_is_noted(file: Path) -> None:
    graph, module = opened(file, "Fixed()", "1,5,6")
    assert any("fixed" in note and "5" in note for note in graph.warnings)
    assert_equal(graph, module, torch.randn(3, 5, 6))


def test_torch_is_as_it_was_afterwards() -> None:
    from torch._decomp import decomposition_table
    from torch.nn import functional

    op = torch.ops.aten.lstm.input
    before = torch.cdist, functional.embedding_bag, functional.conv3d, decomposition_table[op]
    kernels = dict(op.py_kernels)
    with whole_recurrences(), spelled_out():
        assert torch.cdist is not before[0]
        assert op.py_kernels != kernels
    after = torch.cdist, functional.embedding_bag, functional.conv3d, decomposition_table[op]
    assert after == before
    assert dict(op.py_kernels) == kernels
    assert torch.backends.mha.get_fastpath_enabled()
