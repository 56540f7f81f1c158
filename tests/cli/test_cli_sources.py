"""`quant-studio` on models that are no ONNX files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cli_run import ARTIFACTS, Cli, written
from torch import nn

from studio.graph.open import open_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, classes)

    def forward(self, x):
        return self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))

class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, ids, mask, scale: float = 1.0):
        h = self.words(ids) * mask.unsqueeze(-1)
        return self.head(h.sum(1) * scale)

def make(classes=5):
    return Net(classes).eval()
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((12, 3, 16, 16), "f4"))
    return path


def module() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 256, 4)
    return nn.Sequential(*layers).eval()


def quantized(cli: Cli, out: Path, *words: object) -> onnx.ModelProto:
    result = cli("quantize", *words, "--out", out, "--json")
    assert result.code == 0, result.out
    assert result.json["export"]["verification"]["passed"] is True
    assert written(out) == ARTIFACTS
    return onnx.load(out / "model.onnx")


def test_an_installed_package(cli: Cli, nets: Path, tmp_path: Path) -> None:
    source = "torch.nn:Conv2d(in_channels=3, out_channels=4, kernel_size=3)"
    assert "torch.nn" in cli.fails(4, "inspect", source)
    words = (source, "--trust", "--input", "1,3,16,16")
    shown = cli("inspect", *words)
    assert shown.code == 0
    assert "N×4" in shown.out
    quantized(cli, tmp_path / "out", *words, "--data", tmp_path / "x.npy")
    assert "not installed" in cli.fails(3, "inspect", "not_there.nets:make", "--trust")
    assert "no callable 'Cnv'" in cli.fails(3, "inspect", "torch.nn:Cnv", "--trust")
    assert "kernel_size" in cli.fails(3, "inspect", "torch.nn:Conv2d(in_channels=3)", "--trust")


def test_weights_for_a_factory_with_arguments(cli: Cli, nets: Path, tmp_path: Path) -> None:
    weights = open_model(f"{nets}:make(classes=7)", trust=True)
    state = {n.removesuffix("_folded"): torch.from_numpy(weights.constant(n).copy())
             for n in ("head.weight", "head.bias")}  # fmt: skip
    torch.save(state, tmp_path / "part.pth")
    words = (f"{nets}:make(classes=7)", "--trust", "--input", "1,3,16,16")
    message = cli.fails(3, "inspect", *words, "--weights", tmp_path / "part.pth")
    assert "missing: conv.weight" in message
    assert "weights only" in cli.fails(3, "inspect", tmp_path / "part.pth")
    assert "does not exist" in cli.fails(3, "inspect", *words, "--weights", tmp_path / "no.pth")
    full = {"conv.weight": torch.ones(6, 3, 3, 3), "conv.bias": torch.zeros(6), **state}
    full |= {f"bn.{name}": torch.ones(6) for name in ("weight", "bias", "running_mean")}
    torch.save({"state_dict": full | {"bn.running_var": torch.ones(6)}}, tmp_path / "w.pth")
    model = quantized(
        cli, tmp_path / "out", *words, "--weights", tmp_path / "w.pth", "--data", tmp_path / "x.npy"
    )
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 7


def test_an_exported_program(cli: Cli, nets: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    dynamic = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(module(), (torch.zeros(2, 3, 16, 16),), dynamic_shapes=dynamic)
    torch.export.save(program, path)
    assert "evaluates expressions" in cli.fails(4, "inspect", path)
    quantized(cli, tmp_path / "out", path, "--trust", "--data", tmp_path / "x.npy")
    assert "were not used" in cli("inspect", path, "--trust", "--input", "1,3,32,32").out
    assert "were not used" not in cli("inspect", path, "--trust", "--input", "2,3,16,16").out


def test_torchscript(cli: Cli, nets: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(module(), torch.zeros(1, 3, 16, 16)), path)
    assert "A TorchScript file is a program" in cli.fails(4, "inspect", path)
    words = (path, "--trust", "--input", "1,3,16,16")
    quantized(cli, tmp_path / "out", *words, "--data", tmp_path / "x.npy")
    message = cli.fails(3, "inspect", path, "--trust", "--input", "1,4,16,16")
    assert "1×4×16×16" in message


def test_torchscript_that_takes_a_plain_number(cli: Cli, tmp_path: Path) -> None:
    class Rated(nn.Module):
        def forward(self, x: torch.Tensor, sr: int) -> torch.Tensor:
            return x * sr

    torch.jit.save(torch.jit.script(Rated()), tmp_path / "net.jit")
    for words in ((), ("--fix", "sr=16000")):
        message = cli.fails(3, "inspect", tmp_path / "net.jit", "--trust", *words)
        assert "net.jit takes a plain number besides tensors (sr)" in message
        assert "file.py:factory with --fix sr=VALUE" in message


def test_a_pickled_module(cli: Cli, nets: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(module(), path)
    assert "Whoever made it decides what runs" in cli.fails(4, "inspect", path)
    words = (path, "--trust", "--input", "1,3,16,16")
    quantized(cli, tmp_path / "out", *words, "--data", tmp_path / "x.npy")


def test_inputs_by_name_and_a_fixed_one(cli: Cli, nets: Path, tmp_path: Path) -> None:
    source = f"{nets}:Text"
    words = (source, "--trust", "--input", "ids:1,6:int64", "--input", "mask:1,6:float32")
    plain = cli("inspect", *words, "--json").json
    assert list(plain["inputs"]) == ["ids", "mask"]
    random = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", ids=random.integers(0, 20, (9, 6)), mask=np.ones((9, 6), "f4"))
    quantized(cli, tmp_path / "out", *words, "--fix", "scale=0.5", "--data", tmp_path / "t.npz")
    mask = cli("inspect", source, "--trust", "--input", "ids:1,6:int64; mask:1,6",
               "--fix", "mask=1", "--json")  # fmt: skip
    assert list(mask.json["inputs"]) == ["ids"]
    assert "no input 'musk'" in cli.fails(3, "inspect", *words, "--fix", "musk=1")
    for wrong in ("ids:1,6:int65", "ids:1,x", "ids:0,6"):
        cli.fails(3, "inspect", source, "--trust", "--input", wrong)
    for wrong in ("scale", "scale=huge", "=3"):
        cli.fails(3, "inspect", *words, "--fix", wrong)


def test_a_plain_number_that_is_not_given(cli: Cli, nets: Path) -> None:
    nets.write_text(CODE.replace("scale: float = 1.0", "scale: float"))
    for words in ((), ("--input", "ids:1,6:int64", "--input", "mask:1,6")):
        message = cli.fails(3, "inspect", f"{nets}:Text", "--trust", *words)
        assert "nets:Text needs a value for scale, which is no tensor" in message
        assert "--fix scale=VALUE" in message


def test_open_and_fixed_sizes(cli: Cli, nets: Path) -> None:
    words = ("inspect", f"{nets}:make", "--trust", "--input", "1,3,16,16", "--json")
    assert cli(*words).json["inputs"] == {"x": "N×3×height×width"}
    assert cli(*words, "--fixed-size").json["inputs"] == {"x": "N×3×16×16"}


def test_a_rule_left_out(cli: Cli, nets: Path) -> None:
    words = ("inspect", f"{nets}:make", "--trust", "--input", "1,3,16,16")
    assert "bn" not in {row["layer"] for row in cli(*words, "--json").json["layers"]}
    rule = "fold batch norm"
    without = cli(*words, "--without", rule)
    assert f"{rule} " in without.out and "off (--without)" in without.out
    assert "fold batch norm" in cli.fails(6, *words, "--without", "fold everything")


def test_a_folder_moved_elsewhere(cli: Cli, nets: Path, tmp_path: Path) -> None:
    """Code, weights, data and the export lie together; the recipe finds them in the new place."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("nets.py", "x.npy"):
        shutil.move(tmp_path / name, home / name)
    torch.save(torch.nn.Linear(3, 2).state_dict(), home / "w.pth")
    (home / "nets.py").write_text("from torch import nn\ndef make(): return nn.Linear(3, 2)\n")
    np.save(home / "x.npy", np.random.default_rng(0).standard_normal((8, 3), "f4"))
    words = (f"{home / 'nets.py'}:make", "--trust", "--input", "1,3", "--weights", home / "w.pth")
    first = quantized(cli, home / "out", *words, "--data", home / "x.npy")
    recipe = json.loads((home / "out" / "recipe.json").read_text())
    assert recipe["model"]["path"] == "../nets.py"
    assert recipe["model"]["weights"] == "../w.pth"
    assert recipe["data"]["path"] == "../x.npy"
    away = tmp_path / "far" / "away"
    away.parent.mkdir()
    shutil.move(home, away)
    cli.fails(4, "run", away / "out" / "recipe.json")
    result = cli("run", away / "out" / "recipe.json", "--trust", "--out", away / "again", "--json")
    assert result.code == 0, result.out
    again = onnx.load(away / "again" / "model.onnx")
    assert list(again.graph.initializer) == list(first.graph.initializer)
    assert cli("verify", away / "out").code == 0, "finds its data too"
