from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.resource_files import resource

ROOT = Path(__file__).parents[2]


def test_in_a_checkout() -> None:
    assert resource("examples", "digits") == ROOT / "resources" / "examples" / "digits"


def test_a_missing_file_is_named() -> None:
    with pytest.raises(StudioError, match=r"examples/nothing\.onnx is missing"):
        resource("examples", "nothing.onnx")


def test_in_an_installed_wheel(tmp_path: Path) -> None:
    """A wheel built from a copy of the files finds its own resources, outside the checkout."""
    source, unpacked = tmp_path / "source", tmp_path / "installed"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "studio", "resources", "*.toml", "*.py",
         "README.md", "LICENSE"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    code = "from studio.resource_files import resource as r; print(r('examples', 'digits'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=unpacked,
        env={"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert Path(found) == unpacked / "studio" / "_resources" / "examples" / "digits"
    for name in ("digits.onnx", "test.npz", "calibration.npz"):
        shipped = (Path(found) / name).read_bytes()
        assert shipped == (ROOT / "resources" / "examples" / "digits" / name).read_bytes()
