#!/usr/bin/env python3
"""Set the studio up in this folder and start it, or run its tests.

    python3 packaging/bootstrap.py run [FILE]      the studio, on the bundled example or on FILE
    python3 packaging/bootstrap.py test [ARGS]     the tests; ARGS go to pytest
    python3 packaging/bootstrap.py check           style and types
    python3 packaging/bootstrap.py setup           only the set-up

Needs Python 3.11 or newer and nothing else. Everything is installed into `.venv` beside this
repository's files, in the versions of the lock files; a set-up that is still right is not repeated.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
BIN = VENV / "bin"
PYTHON = BIN / "python"
STAMP = VENV / "bootstrap.json"
OLDEST_PYTHON = (3, 11)
RUNTIME_LOCK = ROOT / "packaging" / "requirements.lock"
TEST_LOCK = ROOT / "packaging" / "requirements-test.lock"

# Shared libraries that the Qt wheels (PySide6 6.11) link to and do not bring along, as ldd lists
# them, with the Debian or Ubuntu package of each; of a renamed package the newer name first.
WINDOW_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libbrotlidec.so.1": "libbrotli1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libglib-2.0.so.0": "libglib2.0-0t64 libglib2.0-0",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libzstd.so.1": "libzstd1",
}
X11_LIBRARIES = {
    "libX11-xcb.so.1": "libx11-xcb1",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-glx.so.0": "libxcb-glx0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-render.so.0": "libxcb-render0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-shm.so.0": "libxcb-shm0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-util.so.1": "libxcb-util1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}
WAYLAND_LIBRARIES = {
    "libwayland-client.so.0": "libwayland-client0",
    "libwayland-cursor.so.0": "libwayland-cursor0",
    "libwayland-egl.so.1": "libwayland-egl1",
}
WEBENGINE_LIBRARIES = {
    "libXcomposite.so.1": "libxcomposite1",
    "libXdamage.so.1": "libxdamage1",
    "libXext.so.6": "libxext6",
    "libXfixes.so.3": "libxfixes3",
    "libXrandr.so.2": "libxrandr2",
    "libXtst.so.6": "libxtst6",
    "libasound.so.2": "libasound2t64 libasound2",
    "libexpat.so.1": "libexpat1",
    "libgbm.so.1": "libgbm1",
    "libnspr4.so": "libnspr4",
    "libnss3.so": "libnss3",
    "libudev.so.1": "libudev1",
    "libxcb-dri3.so.0": "libxcb-dri3-0",
    "libxkbfile.so.1": "libxkbfile1",
}
OFFLINE_SIGNS = (
    "name resolution",
    "Name or service not known",
    "Network is unreachable",
    "NewConnectionError",
    "Failed to establish a new connection",
    "ConnectTimeoutError",
    "(from versions: none)",
)
UNIMPORTANT = ("WARNING: ", "Requirement already satisfied: ")


class SetupError(Exception):
    """Why the set-up cannot go on, and what to do."""


def say(text: str) -> None:
    print(f"bootstrap: {text}", flush=True)


def has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def run_quietly(command: list[str], what: str, doing: str) -> None:
    """Run `command`, showing one moving line on a terminal; SetupError with its last lines."""
    say(doing)
    last: deque[str] = deque(maxlen=15)
    offline = False
    moving = sys.stdout.isatty()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    ) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.rstrip()
            offline = offline or any(sign in line for sign in OFFLINE_SIGNS)
            if not line or line.startswith(UNIMPORTANT):
                continue
            last.append(line)
            if moving:
                width = shutil.get_terminal_size().columns - 3
                print(f"\r\033[K  {line.strip()[:width]}", end="", flush=True)
    if moving:
        print("\r\033[K", end="", flush=True)
    if process.returncode != 0:
        output = "\n".join(f"    {line}" for line in last)
        reason = f"{what} failed. Its last lines:\n{output}"
        if offline:
            reason += "\nThe server cannot be reached: check the network connection and try again."
        raise SetupError(reason)


def locks(with_tests: bool) -> list[Path]:
    return [RUNTIME_LOCK, TEST_LOCK] if with_tests else [RUNTIME_LOCK]


def digest(files: list[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()


def fingerprint(lock: Path) -> str:
    """What an installed `lock` depends on: its text and the project's metadata."""
    return digest([lock, ROOT / "pyproject.toml"])


def read_stamp() -> dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(stamp: dict[str, str]) -> None:
    temporary = STAMP.with_suffix(".tmp")
    temporary.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    os.replace(temporary, STAMP)


def venv_version() -> str:
    """Version of the environment's Python; empty if the environment is missing or broken.

    An environment whose base Python was removed does not start, one whose base was upgraded no
    longer has pip.
    """
    ask = "import importlib.util as u, platform; print(u.find_spec('pip') and 1, end=' ');"
    ask += "print(platform.python_version())"
    try:
        answer = subprocess.run([PYTHON, "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    with_pip, _, version = answer.stdout.strip().partition(" ")
    new_enough = tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_PYTHON
    return version if with_pip == "1" and new_enough else ""


def installed() -> set[str]:
    """Canonical names of what lies in the environment, read off its folder."""
    return {
        canonical(entry.name.split("-")[0])
        for entry in VENV.glob("lib/python3.*/site-packages/*.dist-info")
    }


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def missing_packages(lock: Path) -> set[str]:
    lines = lock.read_text(encoding="utf-8").splitlines()
    wanted = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    return (wanted | {"quantization-studio"}) - installed()


def make_venv() -> None:
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        if not (can_apt() and apt_install([package])):
            raise SetupError(
                "This Python has no venv module. "
                f"On Debian or Ubuntu install it with: sudo apt-get install {package}"
            ) from None
    run_quietly(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        "Making .venv",
        f"making .venv with Python {sys.version.split()[0]}",
    )


def prepare_venv(with_tests: bool) -> None:
    """Make `.venv` hold what the lock files say, doing only what is not done yet."""
    stamp = read_stamp()
    version = venv_version()
    if not version or stamp.get("root", str(ROOT)) != str(ROOT):
        make_venv()
        stamp, version = {}, venv_version()
    if stamp.get("python") != version:
        stamp = {"python": version, "root": str(ROOT)}
    due = [
        lock
        for lock in locks(with_tests)
        if stamp.get(lock.name) != fingerprint(lock) or missing_packages(lock)
    ]
    if not due:
        return
    STAMP.unlink(missing_ok=True)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    arguments = [argument for lock in due for argument in ("-r", str(lock))]
    count = sum(len(missing_packages(lock)) for lock in due)
    packages = "1 package" if count == 1 else f"{count} packages"
    doing = f"installing {packages} (the first time this takes some minutes)"
    run_quietly([*pip, *arguments], "pip install", doing if count else "checking the packages")
    run_quietly(
        [*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
        "Installing the studio",
        "installing the studio",
    )
    stamp.update({lock.name: fingerprint(lock) for lock in due})
    write_stamp(stamp)


def absent(libraries: dict[str, str]) -> dict[str, str]:
    """Those of `libraries` that the dynamic loader does not find."""
    missing = {}
    for name, package in libraries.items():
        try:
            ctypes.CDLL(name)
        except OSError:
            missing[name] = package
    return missing


def can_apt() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(packages: list[str]) -> bool:
    """Install Debian packages, each given as alternative names; False if apt-get fails."""
    try:
        run_quietly(["apt-get", "update"], "apt-get update", "updating the list of packages")
        names = [known_to_apt(package.split()) for package in packages]
        run_quietly(
            ["apt-get", "install", "--yes", "--no-install-recommends", *names],
            "apt-get install",
            f"installing system packages: {' '.join(names)}",
        )
    except SetupError as error:
        say(str(error))
        return False
    return True


def known_to_apt(alternatives: list[str]) -> str:
    for name in alternatives[:-1]:
        found = subprocess.run(["apt-cache", "show", name], capture_output=True, check=False)
        if found.returncode == 0:
            return name
    return alternatives[-1]


def prepare_system() -> None:
    """See that Qt finds its system libraries; install them as root, else say how.

    A library without which no window opens ends the set-up; one that only the embedded Netron
    view needs does not.
    """
    if sys.platform != "linux":
        return
    needed = dict(WINDOW_LIBRARIES)
    if os.environ.get("DISPLAY"):
        needed |= X11_LIBRARIES
    if os.environ.get("WAYLAND_DISPLAY"):
        needed |= WAYLAND_LIBRARIES
    missing = absent(needed | WEBENGINE_LIBRARIES)
    if missing and can_apt():
        apt_install(sorted(set(missing.values())))
        missing = absent(missing)
    if not missing:
        return
    say(f"Qt does not find these system libraries: {', '.join(sorted(missing))}")
    packages = " ".join(sorted({package.split()[-1] for package in missing.values()}))
    advice = f"sudo apt-get install {packages}"
    if shutil.which("apt-get") is None:
        advice = f"with your system's package manager; on Debian they are: {packages}"
    say(f"install them: {advice}")
    if missing.keys() & needed.keys():
        raise SetupError("Without them no window can be opened.")
    say("going on without the embedded Netron view")


def hand_over(command: list[str], **environment: str) -> int:
    """Become `command`: its exit code and its signals are then this program's."""
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execve(command[0], command, {**os.environ, **environment})


def start_studio(arguments: list[str]) -> int:
    studio = str(BIN / "quant-studio")
    if arguments:
        arguments = [str(Path(a).resolve()) if Path(a).exists() else a for a in arguments]
        return hand_over([studio, *arguments])
    if sys.platform == "linux" and not has_display():
        say("no display: doing the main job without a window, results in out/digits")
        return hand_over([studio, "demo", "--out", str(ROOT / "out" / "digits")])
    return hand_over([studio, "open", "--example"])


def run_tests(arguments: list[str]) -> int:
    return hand_over([str(PYTHON), "-m", "pytest", *arguments], QT_QPA_PLATFORM="offscreen")


def run_checks() -> int:
    """Style, layout and types; all three are run, the first failure's exit code is returned."""
    results = [
        subprocess.run([PYTHON, "-m", *command], cwd=ROOT, check=False).returncode
        for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"])
    ]
    return next((code for code in results if code), 0)


def main(arguments: list[str]) -> int:
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(str(part) for part in sys.version_info[:3])
        say(f"Python 3.11 or newer is needed; {sys.executable} is {found}.")
        say("Start this with a newer one, such as: python3.11 packaging/bootstrap.py run")
        return 1
    command, *rest = arguments or ["--help"]
    if command not in ("run", "test", "check", "setup"):
        print((__doc__ or "").strip())
        return 0 if command in ("-h", "--help") else 2
    try:
        prepare_venv(with_tests=command in ("test", "check"))
        if command != "check":
            prepare_system()
    except (SetupError, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next start goes on from here")
        return 130
    if command == "run":
        return start_studio(rest)
    if command == "test":
        return run_tests(rest)
    return run_checks() if command == "check" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
