"""The command line: the same work as in the window, without a window."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Sequence

from studio.errors import StudioError, VerificationError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `quant-studio`; returns the exit code (see `studio.errors`)."""
    from studio.cli.parser import build_parser, with_default_command

    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser().parse_args(with_default_command(words))
    try:
        return int(options.run(options))
    except StudioError as error:
        return _report(error, options)
    except MemoryError:
        return _report(StudioError("Out of memory.", "Use a smaller --batch-size."), options)
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing was changed.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        return _report(_unexpected(error), options)


def _unexpected(error: Exception) -> StudioError:
    """An error of the program itself: in one line, with the traceback in a file."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="quant-studio-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.writelines(traceback.format_exception(error))
    return StudioError(
        f"An unexpected {type(error).__name__}: {error}",
        f"Please report it with the details in {file.name}.",
    )


def _report(error: StudioError, options: argparse.Namespace) -> int:
    # A failed verification has printed its result already; stdout holds one JSON document.
    if getattr(options, "json", False) and not isinstance(error, VerificationError):
        print(json.dumps({"error": error.message, "hint": error.hint, "code": error.exit_code}))
    else:
        print(f"\nerror: {error.message}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
    return error.exit_code
