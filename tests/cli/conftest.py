from __future__ import annotations

from pathlib import Path

import pytest
from cli_run import CALIBRATION, MODEL, Cli

from studio.cli import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(scope="session")
def digits_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits example as quantized by the command line; not to be changed."""
    out = tmp_path_factory.mktemp("digits") / "out"
    words = ["quantize", str(MODEL), "--data", str(CALIBRATION), "--out", str(out), "--json"]
    assert main(words) == 0
    return out
