"""Exceptions of other people's code, in one line."""

from __future__ import annotations

import traceback
from pathlib import Path

NETWORK = (
    "URLError", "ConnectionError", "gaierror", "HTTPError", "ConnectTimeout", "MaxRetryError",
    "LocalEntryNotFoundError", "OfflineModeIsEnabled", "ProxyError", "SSLError", "TimeoutError",
    "NewConnectionError", "NameResolutionError", "ConnectError",
)  # fmt: skip


def describe(error: BaseException, folder: Path | None = None) -> str:
    """`TypeError: text (model.py:12)`: the line of the user's file where it happened.

    `folder`: where the user's files are; None takes the innermost frame.
    """
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({Path(error.filename or 'the file').name}:{error.lineno})"
    text = str(error).strip().splitlines()
    if text and "TorchScript interpreter" in text[0]:  # the reason comes last, after the program
        text = text[-1:]
    where = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if folder is not None and Path(frame.filename).is_relative_to(folder.resolve())
    ]
    place = f" ({Path(where[-1].filename).name}:{where[-1].lineno})" if where else ""
    return f"{type(error).__name__}: {text[0] if text else 'no message'}{place}"


def decisive_line(error: BaseException) -> str:
    """The first line of the exception that started it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def wanted_network(error: BaseException) -> bool:
    """True if something was to be downloaded, and that is what failed."""
    seen: BaseException | None = error
    while seen is not None:
        if any(kind.__name__ in NETWORK for kind in type(seen).__mro__):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
