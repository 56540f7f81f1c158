"""`--encodings`: a model that follows an encodings file, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_run import MODEL, TEST, Cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the digits example with 4-bit weights."""
    from studio.cli import main

    out = tmp_path_factory.mktemp("encodings") / "first"
    words = ["quantize", MODEL, "--data", TEST, "--weight-bits", "4", "--no-evaluate", "--out", out]
    assert main([str(word) for word in words]) == 0
    return out


def entries(folder: Path) -> Any:
    values = json.loads((folder / "model.encodings").read_text("utf-8"))
    return values["activation_encodings"], values["param_encodings"]


def test_a_file_is_followed_and_written_again(cli: Cli, folder: Path, tmp_path: Path) -> None:
    encodings = folder / "model.encodings"
    assert "4 bit per channel" in cli("inspect", MODEL, "--encodings", encodings).out
    measured = cli("evaluate", MODEL, "--encodings", encodings, "--data", TEST, "--json")
    rows = json.loads(measured.out)["results"]
    assert [row["engine"] for row in rows] == ["float", "simulated"]
    second = tmp_path / "second"
    words = ["--encodings", encodings, "--data", TEST, "--out", second]
    assert cli("quantize", MODEL, *words).code == 0
    assert entries(second) == entries(folder)
    assert cli("verify", second).code == 0
    assert cli("run", second / "recipe.json", "--out", tmp_path / "third").code == 0
    assert entries(tmp_path / "third") == entries(folder)


def test_an_override_takes_a_layer_from_the_file(cli: Cli, folder: Path) -> None:
    words = ["--encodings", folder / "model.encodings", "--override", "stem.conv:weight_bits=8"]
    rows = json.loads(cli("inspect", MODEL, *words, "--json").out)["tensors"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["stem.conv.weight"]["quantized"].startswith("int8")
    others = [r for n, r in by_name.items() if n != "stem.conv.weight" and r["role"] == "weight"]
    assert others
    assert all(row["quantized"].startswith("int4") for row in others)


def test_a_file_that_does_not_fit_is_named(cli: Cli, folder: Path, tmp_path: Path) -> None:
    text = (folder / "model.encodings").read_text("utf-8")
    renamed = tmp_path / "renamed.encodings"
    renamed.write_text(text.replace('"stem.conv.weight"', '"stem.conv.weightx"'), "utf-8")
    result = cli("inspect", MODEL, "--encodings", renamed)
    assert result.code == 6
    assert "stem.conv.weightx" in result.err
    assert "Rename the entry to 'stem.conv.weight'" in result.err
    partial = cli("inspect", MODEL, "--encodings", renamed, "--partial-encodings")
    assert partial.code == 0
    assert "stem.conv.weightx" in partial.err
    cut = tmp_path / "cut.encodings"
    cut.write_text(text[: len(text) // 2], "utf-8")
    assert cli("inspect", MODEL, "--encodings", cut).code == 6
