"""Write the lock files from what is installed: the exact versions the studio was tested with.

    .venv/bin/python packaging/update_lock.py

`requirements.lock` is the closure of `dependencies` in pyproject.toml, `requirements-test.lock`
what its extras `test` and `dev` need beyond that. Upgrade with pip first, run the tests, then run
this. A local version label such as `+cpu` is left out, so that any build of a release fits.
"""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).parent
HEADER = """\
# {title}
# Written by packaging/update_lock.py from a tested installation; do not edit by hand.
"""


def closure(wanted: list[str]) -> dict[str, str]:
    """Canonical name -> `Name==version` of everything `wanted` needs here, itself included."""
    lines: dict[str, str] = {}
    queue = [Requirement(text) for text in wanted]
    visited: set[tuple[str, frozenset[str]]] = set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in visited:
            continue
        visited.add(key)
        found = metadata.distribution(requirement.name)
        lines[name] = f"{found.metadata['Name']}=={Version(found.version).public}"
        for extra in requirement.extras or {""}:
            for text in found.requires or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    queue.append(needed)
    return lines


def write(path: Path, title: str, lines: dict[str, str]) -> None:
    text = HEADER.format(title=title) + "\n".join(lines[name] for name in sorted(lines)) + "\n"
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {len(lines)} packages")


def main() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    # setuptools installs the project itself into the environment.
    runtime = closure([*project["project"]["dependencies"], "setuptools"])
    test = closure([*extras["test"], *extras["dev"]])
    write(HERE / "requirements.lock", "What the studio needs to run.", runtime)
    write(
        HERE / "requirements-test.lock",
        "What its tests and checks need beyond requirements.lock.",
        {name: line for name, line in test.items() if name not in runtime},
    )


if __name__ == "__main__":
    main()
