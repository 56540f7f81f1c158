"""The command line: the same work as in the window, without a window."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from studio.errors import StudioError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `quant-studio`; returns the exit code (see `studio.errors`)."""
    from studio.cli.parser import build_parser, with_default_command

    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser().parse_args(with_default_command(words))
    try:
        return int(options.run(options))
    except StudioError as error:
        return _report(error, options)
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing was changed.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _report(error: StudioError, options: argparse.Namespace) -> int:
    if getattr(options, "json", False):
        print(json.dumps({"error": error.message, "hint": error.hint, "code": error.exit_code}))
    else:
        print(f"\nerror: {error.message}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
    return error.exit_code
