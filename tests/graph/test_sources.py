"""Sources other than ONNX files: each opened, and equal to what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graph_models import difference, run
from source_models import CODE
from torch import nn

from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.graph.sources.source import ExampleInput
from studio.graph.torch_weights import load_weights


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


class Named(Pictures):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        y = super().forward(x)
        return {"logits": y, "scores": y.softmax(-1)}


def made(kind: type[nn.Module] = Pictures) -> nn.Module:
    torch.manual_seed(0)
    module = kind().train()
    module(torch.randn(8, 3, 8, 8) * 3 + 1)  # statistics that are far from neutral
    return module.eval()


def assert_same(graph: ModelGraph, module: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        y = module(x)
    expected = list(y.values()) if isinstance(y, dict) else [y]
    found = run(graph.to_proto(), {graph.inputs[0].name or "": x.numpy()})
    for a, b in zip(expected, found, strict=True):
        assert difference(a.numpy(), b) < 1e-5


def failure(source: str | Path, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        open_model(source, trust=True, **options)  # type: ignore[arg-type]
    assert caught.value.hint
    return str(caught.value)


def test_exported_program(tmp_path: Path) -> None:
    module, path = made(Named), tmp_path / "net.pt2"
    auto = torch.export.Dim.AUTO
    x = torch.randn(2, 3, 16, 16)
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=({0: auto, 2: auto},)), path)
    graph = open_model(path, trust=True)
    assert [value.name for value in graph.outputs] == ["logits", "scores"]
    assert graph.source.inputs == (ExampleInput((2, 3, 16, 16), "x", "float32"),)
    shape = list(graph.inputs[0].shape or ())
    assert [str(getattr(s, "value", s)) for s in shape] == ["batch", "3", "height", "16"]
    assert not graph.warnings
    assert_same(graph, module, torch.randn(5, 3, 20, 16))


def test_exported_program_with_a_fixed_batch(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(made(), (torch.randn(2, 3, 8, 8),)), path)
    graph = open_model(path, trust=True)
    assert list(graph.inputs[0].shape or ()) == [2, 3, 8, 8]
    assert "fixed batch (2)" in graph.warnings[0]
    assert_same(graph, made(), torch.randn(2, 3, 8, 8))


def test_program_exported_in_training_mode(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    torch.export.save(torch.export.export(module, (torch.randn(2, 4),)), path)
    assert any("training mode" in warning for warning in open_model(path, trust=True).warnings)


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(traced: bool, tmp_path: Path) -> None:
    module, path = made(), tmp_path / "net.pt"
    x = torch.randn(2, 3, 16, 16)
    torch.jit.save(torch.jit.trace(module, x) if traced else torch.jit.script(module), path)
    graph = open_model(path, trust=True)
    assert graph.example_shape("x") == (1, 3, 224, 224)
    assert [node.op_type for node in graph.nodes()][:2] == ["Conv", "Relu"]  # BN is folded
    assert_same(graph, module, torch.randn(3, 3, 20, 12))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_that_cannot_be_translated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(made(Named), torch.randn(2, 3, 8, 8), strict=False), path)
    message = failure(path)
    assert "prim::DictConstruct" in message
    assert "file.py:factory" in message
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_module(legacy: bool, tmp_path: Path) -> None:
    module, path = made(), tmp_path / "net.pth"
    torch.save(module, path, _use_new_zipfile_serialization=not legacy)
    graph = open_model(path, trust=True)
    assert_same(graph, module, torch.randn(3, 3, 20, 12))
    torch.save({"epoch": 3, "model": None, "ema": module.half()}, path)
    graph = open_model(path, trust=True)
    assert any("'ema'" in warning for warning in graph.warnings)
    assert any("float32" in warning for warning in graph.warnings)


def test_pickled_module_without_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pth"
    torch.save(made(), path)
    monkeypatch.setattr(Pictures, "__module__", "gone.nets")
    import pickle
    import sys
    from types import ModuleType

    gone, nets = ModuleType("gone"), ModuleType("gone.nets")
    nets.Pictures = Pictures  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gone", gone)
    monkeypatch.setitem(sys.modules, "gone.nets", nets)
    torch.save(made(), path, pickle_module=pickle)
    monkeypatch.delitem(sys.modules, "gone")
    monkeypatch.delitem(sys.modules, "gone.nets")
    assert "'gone'" in failure(path)
    assert "file.py:factory" in failure(path)


def test_pickled_object_that_is_no_module(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(ExampleInput((1,)), path)
    assert "ExampleInput" in failure(path)
    torch.save({"state": made().state_dict(), "note": ExampleInput((1,))}, path)
    assert "weights only" in failure(path)


def test_installed_package() -> None:
    graph = open_model("torch.nn:Conv2d(in_channels=3, out_channels=5, kernel_size=1)", trust=True)
    assert graph.source.name == "torch.nn:Conv2d"
    assert graph.outputs[0].shape is not None and graph.outputs[0].shape[1] == 5
    assert "'not_there'" in failure("not_there.nets:make")
    assert "no callable 'Nothing'" in failure("torch.nn:Nothing")
    assert "kernel_size" in failure("torch.nn:Conv2d(in_channels=3, out_channels=5)")


def test_arguments_of_a_factory(tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    graph = open_model(f"{path}:sized(channels=7, bias=False)", trust=True)
    assert graph.outputs[0].shape is not None and graph.outputs[0].shape[1] == 7
    assert graph.source.name == "nets:sized"


def test_factories_that_download(tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    message = failure(f"{path}:downloads")
    assert "tried to download" in message
    assert "pretrained=False" in message


def test_wrapped_modules(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(nn.DataParallel(made()), path)
    graph = open_model(path, trust=True)
    assert_same(graph, made(), torch.randn(2, 3, 9, 9))
    assert graph.has_value("conv.weight")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("container", ["state_dict", "model", "params_ema", None])
def test_wrapped_weights(prefix: str, container: str | None, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = {prefix + key: tensor for key, tensor in made().state_dict().items()}
    torch.save({container: state, "epoch": 1} if container else state, path)
    module = Pictures()
    assert load_weights(module, path) == ()
    expected = made().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())


def test_unused_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(made().state_dict() | {"aux.weight": torch.ones(2)}, path)
    (note,) = load_weights(Pictures(), path)
    assert "aux.weight" in note
    torch.save({"aux.weight": torch.ones(2)}, path)
    with pytest.raises(ModelError, match=r"unexpected: aux\.weight"):
        load_weights(Pictures(), path)


def test_tied_weights_stored_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.head.weight = self.words.weight

    path = tmp_path / "w.pth"
    torch.save({"words.weight": torch.full((9, 4), 2.0)}, path)
    module = Tied()
    assert load_weights(module, path) == ()
    assert module.head.weight is module.words.weight
    assert float(module.head.weight.min()) == 2
