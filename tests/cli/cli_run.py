"""Running the command line in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from studio.cli import main
from studio.resource_files import resource

DIGITS = resource("examples", "digits")
MODEL, TEST, CALIBRATION = (DIGITS / n for n in ("digits.onnx", "test.npz", "calibration.npz"))
ARTIFACTS = {
    "model.onnx",
    "model_float.onnx",
    "model.encodings",
    "report.html",
    "recipe.json",
    "summary.json",
}


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which must be one JSON document and nothing else."""
        return json.loads(self.out)


class Cli:
    """`cli("inspect", path)`; no run may print a traceback."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> Result:
        self._capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:  # argparse
            code = int(leaving.code or 0)
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Result(code, captured.out, captured.err)

    def fails(self, code: int, *words: object) -> str:
        """Run, expect `code`, and return the message; also with --json, as one JSON document."""
        result = self(*words)
        assert result.code == code, result.err
        assert "error: " in result.err
        message = result.err.split("error: ", 1)[1]
        assert "unexpected" not in message.lower()
        answer = self(*words, "--json")
        assert answer.code == code
        assert answer.json["code"] == code
        assert answer.json["hint"], "an error says what to do"
        return message


def written(folder: Path) -> set[str]:
    """Names of everything in `folder`."""
    return {path.name for path in folder.iterdir()}
