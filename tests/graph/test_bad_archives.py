"""Files of PyTorch and safetensors that are damaged or made to do harm: refused by name, quickly,
in little memory, and nothing in them runs without consent."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

HERE = Path(__file__).parent
SLOWEST_SECONDS = 10.0
MEGABYTES = 1024
"""Beyond what the process has after importing torch."""

TRUNCATED, DAMAGED = 12, 40
Result = dict[str, Any]


def opened(folder: Path, *, trust: bool = False) -> list[Result]:
    """How opening each file in `folder` ended; all are refused or opened, and nothing ran."""
    words = [sys.executable, HERE / "open_in_child.py", folder, MEGABYTES]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words] + ["--trust"] * trust,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    started, ended = lines[::2], lines[1::2]
    assert done.returncode == 0, (started[-1:], done.returncode, done.stderr[-2000:])
    assert len(started) == len(ended) >= len(list(folder.iterdir()))
    for result in ended:
        assert result["ended"] in ("opened", "asked", "refused"), result
        assert result["seconds"] < SLOWEST_SECONDS, result
        assert trust or result["ran"] == [], result
        if result["ended"] == "refused":
            assert result["file"] in result["message"], result
            assert result["hint"], result
            assert len(result["message"]) < 500, result
    return ended


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


def saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def script() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(module(), torch.zeros(1, 3, 8, 8)), stream)
    return stream.getvalue()


def program() -> bytes:
    stream = io.BytesIO()
    torch.export.save(torch.export.export(module(), (torch.zeros(2, 3, 8, 8),)), stream)
    return stream.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "state.pth": lambda: saved(module().state_dict()),
    "old.pth": lambda: saved(module().state_dict(), _use_new_zipfile_serialization=False),
    "module.pt": lambda: saved(module()),
    "script.pt": script,
    "program.pt2": program,
    "state.safetensors": lambda: save(module().state_dict()),
}


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """`content` with bits turned, bytes replaced, cut out or doubled; mostly where it matters: at
    its ends, where archives and tables say what they hold."""
    mutant = bytearray(content)
    for _ in range(random.integers(1, 4)):
        where = random.integers(3)
        window = len(mutant) if where == 0 else min(len(mutant), 1500)
        at = int(random.integers(window))
        at = len(mutant) - 1 - at if where == 2 else at
        kind = random.integers(4)
        if kind == 0:
            mutant[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            mutant[at] = int(random.choice([0, 1, 0x7F, 0xFF]))
        elif kind == 2:
            del mutant[at : at + int(random.integers(1, 9))]
        else:
            mutant[at:at] = mutant[at : at + int(random.integers(1, 9))]
    return bytes(mutant)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_truncated_and_damaged_files(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    for name, make in FILES.items():
        content = make()
        for place, length in enumerate(np.linspace(0, len(content) - 1, TRUNCATED).astype(int)):
            (tmp_path / f"cut{place}_{name}").write_bytes(content[:length])
        for place in range(DAMAGED + DAMAGED // 2):
            (tmp_path / f"bad{place}_{name}").write_bytes(damaged(content, random))
    results = opened(tmp_path)
    for result in results:
        assert not (result["file"].startswith("cut") and result["ended"] == "opened"), result
        assert result["what"] == "weights" or result["ended"] != "opened", result
    ends = [result["ended"] for result in results]
    assert all(ends.count(end) > 20 for end in ("opened", "asked", "refused"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_damaged_files_with_consent(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    for name in ("module.pt", "script.pt", "program.pt2"):
        content = FILES[name]()
        for place in range(DAMAGED // 2):
            (tmp_path / f"{place}_{name}").write_bytes(damaged(content, random))
    assert sum(result["ended"] == "refused" for result in opened(tmp_path, trust=True)) > 20


# ---- pickles


def archive(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", pickled)
        file.writestr("net/byteorder", "little")
        file.writestr("net/data/0", bytes(16))
        file.writestr("net/version", "3\n")


def old(path: Path, pickled: bytes, place: int) -> None:
    """An old file of torch.save whose pickle number `place` is `pickled`."""
    parts = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    parts += [pickle.dumps({}, 2), pickle.dumps([], 2)]
    parts[place] = pickled
    path.write_bytes(b"".join(parts))


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def harmful(ran: Path) -> dict[str, bytes]:
    """Pickles that make the folder `ran`, one by each opcode that calls something."""
    words = f"mkdir {ran}"
    quoted = f"S'{words}'\n".encode()
    system, called = text("os") + text("system"), text(words) + b"\x85R."
    code = text(f"__import__('os').mkdir('{ran}')") + b"\x85R."
    decoy = text("torch._utils") + text("_rebuild_tensor_v2") + b"00"
    remembered = text("os") + b"\x940" + text("system") + b"\x940h\x00h\x01"
    return {
        "reduce": b"\x80\x02cposix\nsystem\n(" + quoted + b"tR.",
        "stack_global": b"\x80\x04" + system + b"\x93" + called,
        "decoy": b"\x80\x04" + system + decoy + b"\x93" + called,
        "memo": b"\x80\x04" + remembered + b"\x93" + called,
        "inst": b"(" + quoted + b"iposix\nsystem\n.",
        "obj": b"(cposix\nsystem\n" + quoted + b"o.",
        "newobj": b"\x80\x02csubprocess\nPopen\n(" + quoted + b"t\x81.",
        "exec": b"\x80\x04" + text("builtins") + text("exec") + b"\x93" + code,
        "eval": b"\x80\x02c__builtin__\neval\n" + code,
        "getattr": b"\x80\x04cbuiltins\ngetattr\n" + system + b"\x86R" + called,
        "hub": b"\x80\x02ctorch.hub\nload\n(S'evil/net'\nS'net'\ntR.",
        "extension": b"\x80\x02\x82\x01(" + quoted + b"tR.",
        "two": b"\x80\x02cposix\nsystem\n(" + quoted + b"tR0ccollections\nOrderedDict\n)R.",
    }


def test_code_in_pickles(tmp_path: Path) -> None:
    ran, folder = tmp_path / "ran", tmp_path / "files"
    folder.mkdir()
    for name, content in harmful(ran).items():
        for suffix in ("pt", "pth", "pt2", "bin"):
            archive(folder / f"{name}.{suffix}", content)
        old(folder / f"{name}_old.pt", content, 3)
        old(folder / f"{name}_second.pth", content, 1)
        old(folder / f"{name}_last.ckpt", content, 4)
    results = opened(folder)
    for result in results:
        assert result["ended"] == ("asked" if result["what"] == "model" else "refused"), result
        if result["what"] == "weights" and not result["file"].endswith("pt2"):
            assert "Python objects besides tensors (" in result["message"], result
    assert not ran.exists()


def test_the_pickles_of_this_test_do_harm(tmp_path: Path) -> None:
    """Else the test before says nothing."""
    for name in ("reduce", "stack_global", "decoy", "memo", "inst", "obj", "exec", "eval"):
        ran = tmp_path / name
        pickle.loads(harmful(ran)[name])
        assert ran.exists(), name


def huge(count: int) -> dict[str, bytes]:
    """Pickles that take much time, memory or stack."""
    return {
        "deep_key": b"\x80\x02})" + b"\x85" * count + b"K\x01s.",
        "deep_list": b"\x80\x02" + b"](" * count + b"e" * count + b".",
        "wide": b"\x80\x02(" + b"N" * (10 * count) + b"t.",
        "text": b"\x80\x02X\xff\xff\xff\xff.",
        "text8": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
        "frame": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f}.",
        "bytes": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
        "number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
        "doubling": b"\x80\x02)" + b"2\x86" * 200 + b".",
        "digits": b"I" + b"9" * 1_000_000 + b"\n.",
        "storage": tensor(2**38, 0, 2**38),
        "outside": tensor(4, 2**28, 4),
    }


def tensor(stored: int, offset: int, size: int) -> bytes:
    """A state dict with a float tensor of `size`, at `offset` of a storage that claims `stored`."""

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    made = b"(" + storage + number(stored) + b"tQ" + number(offset) + number(size) + b"\x85"
    made += b"K\x01\x85\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x04}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + made + b"Rs."


def test_pickles_that_claim_much(tmp_path: Path) -> None:
    for name, content in huge(500_000).items():
        archive(tmp_path / f"{name}.pt", content)
        if len(content) < 2**20:
            old(tmp_path / f"{name}_old.pth", content, 3)
    assert {result["ended"] for result in opened(tmp_path)} == {"refused"}


# ---- archives


def test_archives_that_claim_much(tmp_path: Path) -> None:
    small = pickle.dumps({}, 2)
    many_entries(tmp_path / "many.pt", 250_000)
    zeros = bytes(2**20)
    for name in ("data.pkl", "data/0", "version"):
        with zipfile.ZipFile(tmp_path / f"{name[-1]}.pt", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("net/byteorder", "little")
            with file.open(f"net/{name}", "w") as entry:
                for _ in range(512):
                    entry.write(zeros)
    inner = (tmp_path / "l.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "nested.pt", "w") as file:
        file.writestr("net/data.pkl", inner)
    overlapping(tmp_path / "overlap.pt", 500)
    for field, number in ((20, 2**31), (24, 2**32 - 1), (42, 2**31)):  # sizes, place of the entry
        archive(tmp_path / f"claim{field}.pt", small)
        content = bytearray((tmp_path / f"claim{field}.pt").read_bytes())
        struct.pack_into("<L", content, content.index(b"PK\x01\x02") + field, number)
        (tmp_path / f"claim{field}.pt").write_bytes(content)
    results = opened(tmp_path)
    assert {result["ended"] for result in results} == {"refused"}
    said = {result["file"]: result["message"] for result in results}
    assert "more entries" in said["many.pt"]
    assert "claims to unpack" in said["0.pt"]


def many_entries(path: Path, count: int) -> None:
    """An archive that lists its one entry so many times."""
    archive(path, b"")
    content = path.read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    entry = content[start : content.index(b"PK\x01\x02", start + 4)]
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, len(entry) * count, start, 0)
    assert len(tail) == len(content) - end
    path.write_bytes(content[:start] + entry * count + tail)


def overlapping(path: Path, count: int) -> None:
    """An archive whose entries are all the same bytes of the file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("net/data.pkl", bytes(2**20))
        first = file.filelist[0]
        for number in range(count):
            again = zipfile.ZipInfo(f"net/data/{number}")
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(again, field, getattr(first, field))
            file.filelist.append(again)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_wrong_members(tmp_path: Path) -> None:
    content = pickle.dumps({}, 2)
    members: dict[str, list[str]] = {
        "nothing": [],
        "only_version": ["net/version"],
        "folder": ["net/data.pkl/"],
        "above": ["net/data.pkl", "net/../../../evil"],
        "absolute": ["net/data.pkl", "/evil"],
        "backslash": ["net/data.pkl", "net\\..\\evil"],
        "twice": ["net/data.pkl", "net/data.pkl"],
        "two_tops": ["net/data.pkl", "other/data.pkl"],
        "half_script": ["net/data.pkl", "net/constants.pkl"],
        "compiled": ["net/archive_format", "net/data/model.so"],
    }
    for name, entries in members.items():
        with zipfile.ZipFile(tmp_path / f"{name}.pt", "w") as file:
            for entry in entries:
                file.writestr(entry, content)
    archive(tmp_path / "encrypted.pt", content)
    archive(tmp_path / "method.pt", content)
    for name, field, value in (("encrypted", 8, 1), ("method", 10, 77)):
        made = bytearray((tmp_path / f"{name}.pt").read_bytes())
        for magic, shift in ((b"PK\x01\x02", 0), (b"PK\x03\x04", -2)):
            struct.pack_into("<H", made, made.index(magic) + field + shift, value)
        (tmp_path / f"{name}.pt").write_bytes(made)
    assert {result["ended"] for result in opened(tmp_path)} == {"refused"}


# ---- safetensors, and tensors that are not plain


def test_safetensors(tmp_path: Path) -> None:
    def table(name: str, entries: Any, data: bytes = b"", length: int | None = None) -> None:
        header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
        size = struct.pack("<Q", len(header) if length is None else length)
        (tmp_path / f"{name}.safetensors").write_bytes(size + header + data)

    def entry(shape: list[int], end: int, dtype: str = "F32") -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}

    table("length", {}, length=2**63)
    table("long", b" " * 2**24)
    table("many", {f"t{i}": entry([0], 0) for i in range(200_000)})
    table("deep", b"[" * 1_000_000)
    table("text", b"\xff\xfe{}")
    table("list", [])
    table("claim", {"w": entry([2**40], 2**42)})
    table("overflow", {"w": entry([2**33, 2**33], 16)}, bytes(16))
    table("negative", {"w": entry([-1], 4)}, bytes(4))
    table("type", {"w": entry([4], 16, "F33")}, bytes(16))
    table(
        "hole", {"w": entry([4], 16), "v": {**entry([4], 16), "data_offsets": [8, 24]}}, bytes(24)
    )
    table("rest", {"w": entry([4], 16)}, bytes(64))
    assert {result["ended"] for result in opened(tmp_path)} == {"refused"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_are_not_plain(tmp_path: Path) -> None:
    kinds = {
        "meta": torch.empty(4, device="meta"),
        "sparse": torch.eye(4).to_sparse(),
        "compressed": torch.eye(4).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.qint8),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    }
    for name, tensor in kinds.items():
        torch.save({"w": tensor}, tmp_path / f"{name}.pth")
    results = opened(tmp_path)
    assert {result["ended"] for result in results} == {"refused"}
    assert all("'w'" in r["message"] for r in results if r["what"] == "weights")
