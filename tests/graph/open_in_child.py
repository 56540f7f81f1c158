"""Opens the files of a folder in a process of its own, with little memory; run by the tests.

    python open_in_child.py FOLDER MEGABYTES [--trust]

Each is opened as a model and, without --trust, read as weights. One line of JSON for each attempt:
the file, what was tried, how it ended, the message, seconds of processor time; and all attempts of
the process to run a program. A crash ends the list.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from studio.errors import ConsentRequiredError, StudioError
from studio.graph.open import open_model
from studio.graph.torch_weights import read_weights

RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "os.mkdir")
ran: list[str] = []


def attempt(path: Path, what: str, action: Callable[[], Any]) -> None:
    print(json.dumps({"file": path.name, "what": what, "ended": "crashed"}), flush=True)
    start = time.process_time()
    message = hint = ""
    try:
        action()
        ended = "opened"
    except ConsentRequiredError:
        ended = "asked"
    except StudioError as error:
        ended, message, hint = "refused", error.message, error.hint
    except BaseException as error:
        ended, message = "failed", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    result = {"file": path.name, "what": what, "ended": ended, "message": message, "hint": hint}
    print(json.dumps({**result, "seconds": seconds, "ran": list(ran)}), flush=True)
    ran.clear()


def main(folder: Path, megabytes: int, trust: bool) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(lambda event, _: ran.append(event) if event in RUNS else None)
    for path in sorted(folder.iterdir()):
        attempt(path, "model", partial(open_model, path, trust=trust))
        if not trust:
            attempt(path, "weights", partial(read_weights, path))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), "--trust" in sys.argv)
