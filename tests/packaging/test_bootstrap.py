"""The set-up's decisions; that it really installs is shown by every run from a fresh clone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "packaging" / "bootstrap.py"


class Ran(BaseException):
    """Stands for the program that the set-up hands over to."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.command, self.environment = command, environment


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script on an empty repository; installing only writes what pip would leave behind."""
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "clone"
    (root / "packaging").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[project]\n")
    module.ROOT, module.VENV = root, root / ".venv"
    module.BIN, module.PYTHON = module.VENV / "bin", module.VENV / "bin" / "python"
    module.STAMP = module.VENV / "bootstrap.json"
    module.RUNTIME_LOCK = root / "packaging" / "requirements.lock"
    module.TEST_LOCK = root / "packaging" / "requirements-test.lock"
    module.RUNTIME_LOCK.write_text("# comment\nonnx_ir==1.0\nJinja2==3.1\n")
    module.TEST_LOCK.write_text("pytest-qt==4.5\n")
    module.commands = []

    def install(command: list[str], what: str, doing: str) -> None:
        module.commands.append(command)
        packages = module.VENV / "lib" / "python3.11" / "site-packages"
        if "venv" in command:
            module.BIN.mkdir(parents=True, exist_ok=True)
            module.PYTHON.unlink(missing_ok=True)
            module.PYTHON.symlink_to(sys.executable)
            packages.mkdir(parents=True, exist_ok=True)
        for name in command:
            if name.endswith("requirements.lock"):
                (packages / "onnx_ir-1.0.dist-info").mkdir(exist_ok=True)
                (packages / "jinja2-3.1.dist-info").mkdir(exist_ok=True)
            if name.endswith("requirements-test.lock"):
                (packages / "pytest_qt-4.5.dist-info").mkdir(exist_ok=True)
            if name == "--editable":
                (packages / "quantization_studio-0.1.dist-info").mkdir(exist_ok=True)

    def hand_over(command: list[str], **environment: str) -> int:
        raise Ran(command, environment)

    monkeypatch.setattr(module, "run_quietly", install)
    monkeypatch.setattr(module, "hand_over", hand_over)
    monkeypatch.setattr(module, "prepare_system", lambda: None)
    monkeypatch.setenv("DISPLAY", ":0")
    return module


def steps(bootstrap: ModuleType) -> list[str]:
    """What was done since the last call, in words."""
    words = []
    for command in bootstrap.commands:
        words += ["venv"] if "venv" in command else []
        words += [Path(name).stem for name in command if name.endswith(".lock")]
        words += ["project"] if "--editable" in command else []
    bootstrap.commands.clear()
    return words


def test_the_first_set_up_does_all_and_the_second_nothing(bootstrap) -> None:
    assert bootstrap.main(["setup"]) == 0
    assert steps(bootstrap) == ["venv", "requirements", "project"]
    assert bootstrap.main(["setup"]) == 0
    assert steps(bootstrap) == []


def test_test_tools_are_added_to_the_same_environment(bootstrap) -> None:
    bootstrap.main(["setup"])
    steps(bootstrap)
    bootstrap.prepare_venv(with_tests=True)
    assert steps(bootstrap) == ["requirements-test", "project"]
    bootstrap.prepare_venv(with_tests=False)
    assert steps(bootstrap) == []


@pytest.mark.parametrize("file", ["RUNTIME_LOCK", "pyproject.toml"])
def test_a_changed_file_repeats_the_installation(bootstrap, file: str) -> None:
    bootstrap.main(["setup"])
    steps(bootstrap)
    path = getattr(bootstrap, file, bootstrap.ROOT / file)
    path.write_text(path.read_text() + "# changed\n")
    bootstrap.main(["setup"])
    assert steps(bootstrap) == ["requirements", "project"]


def test_a_package_removed_by_hand_comes_back(bootstrap) -> None:
    bootstrap.main(["setup"])
    steps(bootstrap)
    next(bootstrap.VENV.glob("lib/*/*/jinja2*")).rmdir()
    bootstrap.main(["setup"])
    assert steps(bootstrap) == ["requirements", "project"]


def test_a_broken_environment_is_made_anew(bootstrap) -> None:
    bootstrap.main(["setup"])
    steps(bootstrap)
    bootstrap.PYTHON.unlink()
    bootstrap.PYTHON.symlink_to("/nowhere/python3")
    bootstrap.main(["setup"])
    assert steps(bootstrap)[0] == "venv"


def test_an_environment_of_another_folder_is_made_anew(bootstrap) -> None:
    bootstrap.main(["setup"])
    stamp = bootstrap.read_stamp()
    bootstrap.write_stamp({**stamp, "root": "/elsewhere"})
    steps(bootstrap)
    bootstrap.main(["setup"])
    assert steps(bootstrap)[0] == "venv"


def test_an_interrupted_installation_is_repeated(bootstrap, monkeypatch, capsys) -> None:
    bootstrap.main(["setup"])
    bootstrap.RUNTIME_LOCK.write_text("Jinja2==3.2\n")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    whole = bootstrap.run_quietly
    monkeypatch.setattr(bootstrap, "run_quietly", fail)
    assert bootstrap.main(["setup"]) == 130
    monkeypatch.setattr(bootstrap, "run_quietly", whole)
    steps(bootstrap)
    assert bootstrap.main(["setup"]) == 0
    assert steps(bootstrap) == ["requirements", "project"]


def test_run_opens_the_example_or_the_given_file(bootstrap, tmp_path, monkeypatch) -> None:
    with pytest.raises(Ran) as ran:
        bootstrap.main(["run"])
    assert ran.value.command == [str(bootstrap.BIN / "quant-studio"), "open", "--example"]
    monkeypatch.chdir(tmp_path)
    Path("mine.onnx").touch()
    with pytest.raises(Ran) as ran:
        bootstrap.main(["run", "mine.onnx"])
    assert ran.value.command[1:] == [str(tmp_path / "mine.onnx")]


def test_run_without_a_display_does_the_job_headless(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(Ran) as ran:
        bootstrap.main(["run"])
    assert ran.value.command[1:] == ["demo", "--out", str(bootstrap.ROOT / "out" / "digits")]
    assert "no display" in capsys.readouterr().out


def test_test_runs_pytest_offscreen_with_the_arguments(bootstrap) -> None:
    with pytest.raises(Ran) as ran:
        bootstrap.main(["test", "-k", "name"])
    assert ran.value.command == [str(bootstrap.PYTHON), "-m", "pytest", "-k", "name"]
    assert ran.value.environment == {"QT_QPA_PLATFORM": "offscreen"}
    assert steps(bootstrap) == ["venv", "requirements", "requirements-test", "project"]


def test_an_old_python_is_told(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert bootstrap.main(["run"]) == 1
    assert "Python 3.11 or newer is needed" in capsys.readouterr().out
    assert steps(bootstrap) == []


def test_a_missing_venv_module_is_told(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    monkeypatch.setattr(bootstrap, "can_apt", lambda: False)
    assert bootstrap.main(["run"]) == 1
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    assert f"sudo apt-get install {package}" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_told(bootstrap, monkeypatch, capsys) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/clone/.venv")

    monkeypatch.setattr(bootstrap, "write_stamp", refuse)
    assert bootstrap.main(["setup"]) == 1
    assert "Permission denied: '/clone/.venv'" in capsys.readouterr().out


def test_the_wrong_command_is_told(bootstrap, capsys) -> None:
    assert bootstrap.main(["strat"]) == 2
    assert "bootstrap.py run" in capsys.readouterr().out


class TestSystemLibraries:
    @pytest.fixture
    def libraries(self, bootstrap, monkeypatch) -> ModuleType:
        """A Linux where only libm is found and the user is not root."""
        spec = importlib.util.spec_from_file_location("bootstrap_libraries", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(module, "can_apt", lambda: False)
        monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
        for group in ("X11", "WAYLAND", "WEBENGINE", "WINDOW"):
            monkeypatch.setattr(module, f"{group}_LIBRARIES", {"libm.so.6": "libc6"})
        return module

    def test_nothing_is_said_when_all_are_there(self, libraries, capsys) -> None:
        libraries.prepare_system()
        assert capsys.readouterr().out == ""

    def test_without_netrons_libraries_it_goes_on(self, libraries, capsys) -> None:
        libraries.WEBENGINE_LIBRARIES = {"libno-such.so.1": "libno-suchT64 libno-such1"}
        libraries.prepare_system()
        said = capsys.readouterr().out
        assert "sudo apt-get install libno-such1" in said
        assert "without the embedded Netron view" in said

    @pytest.mark.parametrize(
        ("group", "display"),
        [("WINDOW", ""), ("X11", "DISPLAY"), ("WAYLAND", "WAYLAND_DISPLAY")],
    )
    def test_without_the_windows_libraries_it_stops(
        self, libraries, monkeypatch, group: str, display: str
    ) -> None:
        monkeypatch.delenv("DISPLAY", raising=False)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        setattr(libraries, f"{group}_LIBRARIES", {"libno-such.so.1": "libno-such1"})
        if display:
            libraries.prepare_system()
            monkeypatch.setenv(display, "0")
        with pytest.raises(libraries.SetupError, match="no window"):
            libraries.prepare_system()

    def test_root_installs_them(self, libraries, monkeypatch) -> None:
        libraries.WINDOW_LIBRARIES = {"libno-such.so.1": "libno-such1"}
        asked = []
        monkeypatch.setattr(libraries, "can_apt", lambda: True)
        monkeypatch.setattr(libraries, "apt_install", asked.append)
        with pytest.raises(libraries.SetupError):
            libraries.prepare_system()
        assert asked == [["libno-such1"]]


def quietly(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real `run_quietly` on a small program, in a process of its own."""
    call = f"""
import runpy, sys
script = runpy.run_path({str(SCRIPT)!r})
try:
    script["run_quietly"]([sys.executable, "-c", {code!r}], "The thing", "doing the thing")
except script["SetupError"] as error:
    print(error)
"""
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, env=environment, check=True
    )


def test_the_output_of_a_step_is_not_shown_when_it_succeeds() -> None:
    assert quietly("print('noise')").stdout == "bootstrap: doing the thing\n"


def test_the_last_lines_of_a_failed_step_are_shown_without_warnings() -> None:
    code = "print('WARNING: Location ignored'); print('\\n'.join(map(str, range(30)))); exit(3)"
    said = quietly(code).stdout
    assert "The thing failed" in said
    assert "    29" in said
    assert "    14\n" not in said
    assert "WARNING" not in said
    assert "network" not in said


def test_a_step_that_fails_without_network_says_so() -> None:
    code = "print('WARNING: Retrying: Temporary failure in name resolution'); exit(1)"
    assert "check the network connection" in quietly(code).stdout
