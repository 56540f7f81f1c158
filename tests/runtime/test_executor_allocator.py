"""Freed memory is reused instead of being paged in anew, in every thread."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: the setting holds for the whole process and must precede its threads.
# Eight activations of 64 MB, each let go as soon as the next is there.
SCRIPT = """
import resource, sys, threading
from studio.runtime.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(77)
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def forward(x):
    for _ in range(8):
        x = x * 2
    return x

def measure():
    x = torch.ones(16 * 2**20)
    for _ in range(3):
        forward(x)
    before = faults()
    for _ in range(4):
        forward(x)
    print(faults() - before)

measure()
worker = threading.Thread(target=measure)
worker.start()
worker.join()
"""


def _faults(mode: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 77:
        pytest.skip("malloc is not glibc's")
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def test_large_blocks_are_reused() -> None:
    kept, returned = _faults("keep"), _faults("return")
    assert len(kept) == 2
    assert all(a < b / 10 for a, b in zip(kept, returned, strict=True)), (kept, returned)
