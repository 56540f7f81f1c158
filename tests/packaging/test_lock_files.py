"""The lock files fit pyproject.toml and can be used on any machine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "packaging" / "requirements.lock"
TEST = ROOT / "packaging" / "requirements-test.lock"


def locked(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[tuple[str, bool]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [(text, False) for text in project["dependencies"]] + [
        (text, True) for text in (*extras["test"], *extras["dev"])
    ]


@pytest.mark.parametrize(("text", "for_tests"), requirements())
def test_every_requirement_is_locked_to_a_version_it_allows(text: str, for_tests: bool) -> None:
    requirement = Requirement(text)
    versions = locked(RUNTIME) | (locked(TEST) if for_tests else {})
    assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("path", [RUNTIME, TEST])
def test_only_exact_public_versions(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line)


def test_no_package_is_locked_twice() -> None:
    assert not locked(RUNTIME).keys() & locked(TEST).keys()
