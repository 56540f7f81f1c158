"""Each package knows only the ones below it; Qt stays in the window, heavy modules load late."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import studio

ROOT = Path(studio.__file__).parent

# What a package of `studio` may import, besides itself and the modules that know nothing.
MAY_KNOW = {
    "errors": set(),
    "resource_files": set(),
    "plain_json": set(),
    "readable": set(),
    "whole_files": set(),
    "jobs": set(),
    "data": set(),
    "quant": set(),
    "graph": set(),
    "runtime": {"graph"},
    "sim": {"graph", "quant", "runtime", "jobs"},
    "analysis": {"data", "graph", "jobs", "quant", "runtime", "sim"},
    "techniques": {"data", "graph", "jobs", "quant", "runtime", "sim"},
    "qat": {"analysis", "data", "graph", "jobs", "quant", "runtime", "sim", "techniques"},
    "ptq": {"analysis", "data", "graph", "jobs", "quant", "runtime", "sim", "techniques"},
    "exporting": {"analysis", "data", "graph", "jobs", "quant", "runtime", "sim", "techniques"},
}
NOTHING_KNOWING = {"errors", "plain_json", "readable", "resource_files", "whole_files"}
MAY_KNOW["project"] = set(MAY_KNOW) - NOTHING_KNOWING
EVERYTHING_BELOW = set(MAY_KNOW) - NOTHING_KNOWING
MAY_KNOW |= {
    "api": EVERYTHING_BELOW,
    "cli": EVERYTHING_BELOW | {"__init__"},
    "app": EVERYTHING_BELOW | {"__init__"},
    "__init__": {"api", "sim"},
    "__main__": {"cli"},
}
GUI_MODULES = {"PySide6", "pyqtgraph", "shiboken6"}


def sources() -> Iterator[tuple[str, Path]]:
    """(package, file) of every source file; a module right in `studio` is its own package."""
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).parts[0].removesuffix(".py"), path


def imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Dotted names of the modules that `path` imports; without `lazy`, at its top level only."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""
            if node.module == "studio":
                yield from (f"studio.{name.name}" for name in node.names)


def known(module: str) -> str | None:
    """Package of `studio` that a dotted name belongs to; None for other modules."""
    parts = module.split(".")
    if parts[0] != "studio":
        return None
    if len(parts) > 1 and ((ROOT / parts[1]).is_dir() or (ROOT / f"{parts[1]}.py").is_file()):
        return parts[1]
    return "__init__"


@pytest.mark.parametrize("package", sorted({package for package, _ in sources()}))
def test_nothing_imports_upwards(package: str) -> None:
    allowed = (
        MAY_KNOW[package]
        | NOTHING_KNOWING
        | {
            package,
            "__init__",
        }
    )
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for owner, path in sources()
        if owner == package
        for module in imports(path)
        if known(module) not in (None, *allowed)
        # The command line opens the window, from within a function.
        and not (package == "cli" and known(module) == "app")
    ]
    assert not wrong


def test_only_the_window_imports_qt() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for package, path in sources()
        if package != "app"
        for module in imports(path)
        if module.split(".")[0] in GUI_MODULES
    ]
    assert not wrong


def test_the_command_line_imports_the_window_late() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for package, path in sources()
        if package == "cli"
        for module in imports(path, lazy=False)
        if known(module) == "app"
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import studio", {"PySide6", "torch", "onnxruntime", "onnx", "numpy"}),
        ("import studio.cli", {"PySide6", "torch", "onnxruntime", "onnxscript"}),
        ("from studio.cli import main; main(['--help'])", {"PySide6", "torch", "onnxruntime"}),
        ("from studio.cli import main; main(['targets'])", {"PySide6", "torch", "onnxruntime"}),
        ("import studio.jobs, studio.errors", {"PySide6", "torch", "onnxruntime", "numpy"}),
        ("import studio.data", {"PySide6", "torch", "onnxruntime", "onnx"}),
    ],
)
def test_what_is_not_needed_is_not_loaded(code: str, unwanted: set[str]) -> None:
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', sorted({unwanted!r} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip().endswith("LOADED []")
