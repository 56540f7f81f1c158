"""What a file is, found out without executing anything in it."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from studio.errors import ConsentRequiredError, ModelError
from studio.graph.open import open_model
from studio.graph.sources.kinds import Kind, OpeningConsentError, kind_of
from studio.graph.sources.source import parse_source


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def kind(path: Path) -> Kind:
    return kind_of(parse_source(path))


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_model(path, trust=True)
    assert not isinstance(caught.value, ConsentRequiredError)
    assert path.name in caught.value.message
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.bin", "net.ckpt"])
def test_pickles(name: str, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    torch.save(small(), path, _use_new_zipfile_serialization=not legacy)
    assert kind(path) is Kind.PICKLE
    state = {"state_dict": small().state_dict(), "epoch": 3, "kind": torch.float16}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    assert "holds weights only" in refusal(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickle_protocols(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(small(), path, pickle_protocol=protocol)
    assert kind(path) is Kind.PICKLE
    torch.save(small().state_dict(), path, pickle_protocol=protocol)
    assert "holds weights only" in refusal(path)


def test_torchscript_and_programs(tmp_path: Path) -> None:
    x = torch.zeros(2, 4)
    torch.jit.save(torch.jit.trace(small(), x), tmp_path / "net.pt")
    torch.export.save(torch.export.export(small(), (x,)), tmp_path / "net.pt2")
    assert kind(tmp_path / "net.pt") is Kind.TORCHSCRIPT
    assert kind(tmp_path / "net.pt2") is Kind.PROGRAM
    (tmp_path / "net.pt").rename(tmp_path / "script.bin")  # what is in it decides
    assert kind(tmp_path / "script.bin") is Kind.TORCHSCRIPT


def test_nothing_is_executed_without_consent(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    module = small()
    module.extra = Evil(ran)
    x = torch.zeros(2, 4)
    torch.save(module, tmp_path / "module.pt")
    torch.save(
        {"weight": Evil(ran)}, tmp_path / "weights.pth", _use_new_zipfile_serialization=False
    )
    torch.jit.save(torch.jit.trace(small(), x), tmp_path / "script.pt")
    torch.export.save(torch.export.export(small(), (x,)), tmp_path / "program.pt2")
    (tmp_path / "net.py").write_text(f"import os\nos.mkdir({str(ran)!r})\n")
    sources = {
        "module.pt": Kind.PICKLE,
        "weights.pth": Kind.PICKLE,
        "script.pt": Kind.TORCHSCRIPT,
        "program.pt2": Kind.PROGRAM,
        "net.py:make": Kind.PYTHON,
    }
    for name, expected in sources.items():
        with pytest.raises(OpeningConsentError) as caught:
            open_model(tmp_path / name)
        assert caught.value.kind is expected
        assert name.split(":")[0] in caught.value.message
    with pytest.raises(OpeningConsentError, match=r"os\.path"):
        open_model("os.path:join")
    assert not ran.exists()


def test_safetensors_are_weights(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "net.safetensors")
    assert "file.py:factory" in refusal(tmp_path / "net.safetensors")


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "torch.save" in refusal(path)
    path.write_bytes(b"")
    assert "empty" in refusal(path)
    path.write_bytes(os.urandom(1000))
    assert "no PyTorch file" in refusal(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    assert "not one of PyTorch" in refusal(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/archive_format", "pt2")
        file.writestr("net/data/aotinductor/model/x.so", b"")
    assert "compiled" in refusal(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.h5", "keras.models.load_model"),
        ("net.keras", "tf2onnx.convert --saved-model"),
        ("net.tflite", "tf2onnx.convert --tflite"),
        ("frozen.pb", "tf2onnx.convert --graphdef"),
        ("saved_model.pb", "tf2onnx.convert --saved-model"),
    ],
)
def test_tensorflow(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    assert words in refusal(tmp_path / name)
    if name == "saved_model.pb":
        assert f"--saved-model {tmp_path}" in refusal(tmp_path)


def test_keras_archive(tmp_path: Path) -> None:
    path = tmp_path / "net.zip.bin"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", b"")
    assert "Keras" in refusal(path)


def saved(path: Path) -> bytes:
    torch.save(small(), path)
    return path.read_bytes()


def test_truncated_archives(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    content = saved(path)
    for length in range(5, len(content), 97):
        path.write_bytes(content[:length])
        refusal(path)


def test_declared_sizes_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    content = bytearray(saved(path))
    place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data.pkl"))
    struct.pack_into("<L", content, place + 24, 2**31)  # the size it unpacks to
    path.write_bytes(content)
    assert "claims to unpack" in refusal(path)


def test_packed_zeros_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb/data.pkl", b"\0" * 2**28)
    assert "claims to unpack" in refusal(path)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "net/../../evil", "net\\..\\evil"])
def test_entries_that_leave_the_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, b"x")
        file.writestr("net/data.pkl", b"x")
    assert "entry" in refusal(path)


def test_damaged_pickles(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    for content in (
        b"",
        b"\x80\x02",
        b"\x80\x04\x95" + b"\xff" * 8,
        b"(((((",
        b"\x80\x02X\xff\xff\xff\x7fab",
    ):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("net/data.pkl", content)
        assert "damaged" in refusal(path)
