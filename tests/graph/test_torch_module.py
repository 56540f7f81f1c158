"""Capturing a PyTorch model from a Python file."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest
import torch
from graph_models import difference, run
from safetensors.torch import save_file

from studio.errors import ConsentRequiredError, ModelError
from studio.graph.describe import scope, source_line
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.graph.sources.load import load
from studio.graph.sources.python_source import build_module
from studio.graph.sources.source import ExampleInput, parse_source

CODE = """
import torch
from torch import nn
from layers import Head

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = Head()

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)))

class Fixed(nn.Module):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def forward(self, x):
        return torch.relu(x.reshape(self.batch, 2, 2))

def fixed1():
    return Fixed(1)

def fixed3():
    return Fixed(3)

def make():
    return Net()

def grey():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())

def linear():
    return nn.Linear(4, 2)

def words():
    return nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))

def two(x):
    return Net()

def number():
    return 3

def fails():
    raise ValueError("no such thing")

class Untraceable(nn.Module):
    def forward(self, x):
        return x * 2 if float(x.sum()) > 0 else x

class Pair(nn.Module):
    def forward(self, a, b):
        return a + b
"""

LAYERS = """
import torch
from torch import nn

class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "layers.py").write_text(LAYERS)
    path = tmp_path / "net.py"
    path.write_text(CODE)
    return path


def opened(file: Path, factory: str, *shapes: tuple[int, ...]) -> ModelGraph:
    return open_model(f"{file}:{factory}", inputs=map(ExampleInput, shapes), trust=True)


def failure(file: Path, factory: str, *shapes: tuple[int, ...]) -> str:
    with pytest.raises(ModelError) as caught:
        opened(file, factory, *shapes)
    assert caught.value.hint
    return str(caught.value)


def test_consent_comes_before_anything_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConsentRequiredError, match=r"net\.py"):
        open_model(f"{path}:make")
    assert not (tmp_path / "ran").exists()


def test_output_equals_the_modules(file: Path) -> None:
    source = parse_source(f"{file}:make", inputs="1,3,8,8")
    paths, modules, before = list(sys.path), set(sys.modules), sorted(os.listdir(file.parent))
    torch.manual_seed(0)
    raw = load(source, trust=True)
    torch.manual_seed(0)
    module = build_module(source)
    assert sys.path == paths
    assert "layers" not in sys.modules
    assert "net" not in sys.modules
    assert sorted(os.listdir(file.parent)) == before
    assert not modules - set(sys.modules)
    x = torch.randn(5, 3, 8, 8)
    (found,) = run(raw.to_proto(), {raw.inputs[0].name or "": x.numpy()})
    assert difference(module(x).detach().numpy(), found) < 1e-5
    assert not raw.warnings
    assert not isinstance(raw.inputs[0].shape[0], int)


def test_scopes_and_source_lines(file: Path) -> None:
    graph = opened(file, "make", (1, 3, 8, 8))
    gemm = graph.node("head.fc")
    assert scope(gemm) == "head.fc"
    assert source_line(gemm) == "layers.py:11"
    assert source_line(graph.node("conv")) == "net.py:13"


def test_exporting_is_quiet(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("torch.onnx").level
    opened(file, "make", (1, 3, 8, 8))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == level


def test_a_specialised_batch_is_fixed_with_a_warning(file: Path) -> None:
    for batch in (1, 3):
        graph = opened(file, f"fixed{batch}", (batch, 4))
        assert graph.inputs[0].shape[0] == batch
        assert f"fixed at {batch}" in graph.warnings[0]


def test_several_inputs_share_the_batch(file: Path) -> None:
    graph = opened(file, "Pair", (1, 4), (1, 4))
    assert [v.shape[0] for v in graph.inputs] == [graph.inputs[0].shape[0]] * 2
    assert not isinstance(graph.inputs[0].shape[0], int)


def test_token_inputs(file: Path) -> None:
    graph = opened(file, "words", (1, 6))
    assert str(graph.inputs[0].dtype) == "INT64"


def test_guessed_shapes(file: Path) -> None:
    graph = opened(file, "make")
    assert graph.example_shape("x") == (1, 3, 224, 224)
    assert "1×3×224×224" in graph.warnings[0]
    assert opened(file, "grey").example_shape("input") == (1, 1, 28, 28)
    assert opened(file, "linear").example_shape("input") == (1, 4)
    assert opened(file, "words").source.inputs == (ExampleInput((1, 16), "input", "int64"),)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("nowhere", ["no callable 'nowhere'", "make"]),
        ("two", ["TypeError"]),
        ("number", ["int", "Module"]),
        ("fails", ["no such thing", "net.py:"]),
    ],
)
def test_bad_factories(factory: str, words: list[str], file: Path) -> None:
    message = failure(file, factory, (1, 3, 8, 8))
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def make(:\n", ["net.py:1"]),
        ("import not_installed_anywhere", ["not_installed_anywhere"]),
        ("1 / 0", ["ZeroDivisionError", "net.py:1"]),
        ("raise SystemExit(3)", ["SystemExit"]),
    ],
)
def test_bad_files(code: str, words: list[str], file: Path) -> None:
    file.write_text(code)
    message = failure(file, "make", (1, 3, 8, 8))
    assert all(word in message for word in words)
    assert "net" not in sys.modules


def test_wrong_shapes_are_explained(file: Path) -> None:
    message = failure(file, "make", (1, 5, 8, 8))
    assert "1×5×8×8" in message
    assert "channels" in message


def test_untraceable_code(file: Path) -> None:
    message = failure(file, "Untraceable", (2, 4))
    assert "cannot be exported" in message
    assert len(message) < 600


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".checkpoint.pth"])
def test_weights(suffix: str, file: Path) -> None:
    module = build_module(parse_source(f"{file}:make"))
    state = {key: torch.full_like(tensor, 0.5) for key, tensor in module.state_dict().items()}
    path = file.with_suffix(suffix)
    if suffix == ".safetensors":
        save_file(state, path)
    elif suffix == ".pth":
        torch.save(state, path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)
    loaded = build_module(parse_source(f"{file}:make", weights=path))
    assert not loaded.training
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.state_dict().items())


def weights_failure(file: Path, path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        build_module(parse_source(f"{file}:make", weights=path))
    assert path.name in str(caught.value)
    return str(caught.value)


def test_weights_that_do_not_fit(file: Path) -> None:
    state = build_module(parse_source(f"{file}:make")).state_dict()
    state["stranger"] = state.pop("conv.bias")
    state["head.fc.weight"] = torch.zeros(7, 4)
    path = file.with_suffix(".pth")
    torch.save(state, path)
    message = weights_failure(file, path)
    assert "missing: conv.bias" in message
    assert "unexpected: stranger" in message
    assert "head.fc.weight (7×4 in the file, 2×4 in the model)" in message


def test_pickled_code_is_never_executed(file: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = file.with_suffix(".pth")
    torch.save({"conv.weight": Evil()}, path)
    assert "not loaded" in weights_failure(file, path)
    assert not (tmp_path / "ran").exists()


def test_damaged_weights(file: Path) -> None:
    for suffix in (".pth", ".safetensors"):
        path = file.with_suffix(suffix)
        path.write_bytes(b"nothing of the kind")
        weights_failure(file, path)
        path.write_bytes(b"")
        weights_failure(file, path)
    weights_failure(file, file.with_suffix(".h5"))
    torch.save([1, 2], file.with_suffix(".pth"))
    assert "dictionary" in weights_failure(file, file.with_suffix(".pth"))


def test_sources_are_parsed(tmp_path: Path) -> None:
    source = parse_source("a/net.py:make", weights="w.pth", inputs="1,3")
    assert (source.path, source.factory) == (Path("a/net.py"), "make")
    assert (source.weights, source.inputs) == (Path("w.pth"), (ExampleInput((1, 3)),))
    assert not parse_source("net.onnx").is_module
    for text in ("net.py", "net.py:make(1)", "net.py:make(a=b)", "net.py:"):
        with pytest.raises(ModelError):
            parse_source(text)


def test_evaluation_mode(file: Path) -> None:
    """A module left in training mode by its factory is evaluated all the same."""
    file.write_text(
        "from torch import nn\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout()).train()\n"
    )
    graph = opened(file, "make", (1, 3, 4, 4))
    assert [n.op_type for n in graph.nodes()] == ["Conv"]
    assert graph.node("0").outputs[0].shape[1] == 2
