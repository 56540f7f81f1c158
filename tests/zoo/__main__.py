"""Take every architecture of the zoo through the product and write the table of results.

    python -m tests.zoo [--only NAME ...] [--json FILE] [--table FILE] [--again] [--list]

Each architecture runs in a child process of its own, one at a time. With --json the results are
kept after each; those that passed are not run again the next time, unless --again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from studio.runtime.threads import limit_threads

from .registry import Entry, entries
from .steps import Result, run
from .table import page

SECONDS = 300
"""An architecture that takes longer is stopped."""


def main() -> int:
    options = _parser().parse_args()
    chosen = _chosen(options.only)
    if options.list:
        print("\n".join(f"{entry.name:24} {entry.family}" for entry in chosen))
        return 0
    limit_threads(1)
    results = _read(options.json)
    for entry in chosen:
        known = results.get(entry.name)
        if known is not None and known.passed and not options.again:
            continue
        results[entry.name] = result = isolated(entry)
        print(_line(result), flush=True)
        if options.json is not None:
            _write(options.json, json.dumps(_plain(results), indent=1))
    ordered = [results[entry.name] for entry in entries() if entry.name in results]
    if options.table is not None:
        _write(options.table, page(ordered))
    failed = [result.name for result in ordered if not result.passed]
    print(f"{len(ordered) - len(failed)} of {len(ordered)} passed", *failed)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names or families")
    parser.add_argument("--json", type=Path, help="results, kept after each architecture")
    parser.add_argument("--table", type=Path, help="where to write the page with the table")
    parser.add_argument("--again", action="store_true", help="run those that passed as well")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    return parser


def _chosen(only: list[str]) -> list[Entry]:
    everything = list(entries())
    known = {entry.name for entry in everything} | {entry.family for entry in everything}
    unknown = [name for name in only if name not in known]
    if unknown:
        sys.exit(f"not in the zoo: {', '.join(unknown)} (--list names all)")
    return [e for e in everything if not only or e.name in only or e.family in only]


def isolated(entry: Entry) -> Result:
    """`run` in a child process: its crash, or its running too long, is a result as well."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    begin = time.perf_counter()
    child = context.Process(target=_child, args=(entry, sender))
    child.start()
    sender.close()
    try:
        return (
            receiver.recv() if receiver.poll(SECONDS) else _stopped(entry, "took too long", begin)
        )
    except EOFError:
        child.join()
        code = child.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _stopped(entry, f"the process died: {how}", begin)
    finally:
        child.kill()
        child.join()


def _child(entry: Entry, sender: Connection) -> None:
    sender.send(run(entry))


def _stopped(entry: Entry, why: str, begin: float) -> Result:
    seconds = time.perf_counter() - begin
    return Result(entry.name, entry.family, seconds=seconds, failures={"process": why})


def _line(result: Result) -> str:
    lines = [f"FAILED {step}: {error.splitlines()[0]}" for step, error in result.failures.items()]
    verdict = "; ".join(lines)
    return f"{result.name:24} {result.seconds:6.1f} s  {verdict or 'ok'}"


def _read(path: Path | None) -> dict[str, Result]:
    if path is None or not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {row["name"]: Result(**row) for row in rows}


def _plain(results: dict[str, Result]) -> list[dict[str, object]]:
    return [
        {key: _finite(value) for key, value in dataclasses.asdict(result).items()}
        for result in results.values()
    ]


def _finite(value: object) -> object:
    """JSON has no infinity; 999 dB stands for equal."""
    return 999.0 if isinstance(value, float) and math.isinf(value) else value


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
