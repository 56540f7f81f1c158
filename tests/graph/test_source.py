"""What a user writes to say which model, and what it is fed."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import ModelError
from studio.graph.sources.source import (
    ExampleInput,
    parse_call,
    parse_fixed,
    parse_inputs,
    parse_source,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,3,224,224", [ExampleInput((1, 3, 224, 224))]),
        ("1x16:int64", [ExampleInput((1, 16), None, "int64")]),
        ("ids:1,16:int", [ExampleInput((1, 16), "ids", "int64")]),
        (
            "mask:1,16:bool; x:(1, 4)",
            [ExampleInput((1, 16), "mask", "bool"), ExampleInput((1, 4), "x")],
        ),
        ("gain:scalar", [ExampleInput((), "gain")]),
        (
            "batch.image:1,3,8,8;states.0:()",
            [ExampleInput((1, 3, 8, 8), "batch.image"), ExampleInput((), "states.0")],
        ),
        ("", []),
    ],
)  # fmt: skip
def test_inputs(text: str, found: list[ExampleInput]) -> None:
    assert list(parse_inputs(text)) == found
    assert list(parse_inputs(map(str, found))) == found


@pytest.mark.parametrize(
    "text",
    ["1,3,many", "x", "x:y", "1,0,3", "a:b:1,2", "1,2:complex", "1,2:int64:3", "x:1;x:2",
     "-1,3", "65536,65536,65536", "9" * 500],
)  # fmt: skip
def test_inputs_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_inputs(text)
    assert caught.value.hint


def test_calls() -> None:
    assert parse_call("make") == ("make", {})
    assert parse_call("Net.small(classes=10, mean=[0.5, -1], act='relu', aux=None)") == (
        "Net.small",
        {"classes": 10, "mean": [0.5, -1], "act": "relu", "aux": None},
    )


@pytest.mark.parametrize(
    "text",
    ["make(10)", "make(**a)", "make(a=b)", "make(a=f())", "__import__('os').system('x')", "1",
     "make(", "a b", "make(a=1)(b=2)", "(" * 5000],
)  # fmt: skip
def test_calls_are_names_and_literals_only(text: str) -> None:
    with pytest.raises(ModelError):
        parse_call(text)


def test_fixed_values() -> None:
    assert parse_fixed(["sr=16000", "w=[[1, 2.5]]", "on=true"]) == {
        "sr": 16000,
        "w": [[1, 2.5]],
        "on": True,
    }
    for text in ("sr", "=3", "sr=", "sr=abc", "sr={}", "sr='text'", "sr=open('x')"):
        with pytest.raises(ModelError):
            parse_fixed([text])


def test_which_model(tmp_path: Path) -> None:
    file = parse_source("a/net.py:make(a=1)", inputs="1,4", fixed_inputs={"k": 2}, fixed_size=True)
    assert (file.path, file.factory, file.module) == (Path("a/net.py"), "make(a=1)", None)
    assert (file.name, file.file_name) == ("net:make", "net.py")
    assert (file.inputs, file.fixed_inputs) == ((ExampleInput((1, 4)),), {"k": 2})
    package = parse_source("torch.nn:Linear(in_features=4, out_features=2)")
    assert (package.path, package.module) == (None, "torch.nn")
    assert (package.name, package.file_name) == ("torch.nn:Linear", "torch.nn")
    for text in ("net.onnx", "net.pt", "C:\\models\\net.onnx", str(tmp_path)):
        assert parse_source(text).path == Path(text)
        assert not parse_source(text).is_module
