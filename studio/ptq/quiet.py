"""Keeping what a C library prints out of our own output."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


@contextmanager
def quiet_library() -> Iterator[None]:
    """What C code prints to the process's standard output in the body is dropped.

    HiGHS 1.12 leaves lines of its debugging there, whatever it is told, and a command's JSON must
    stay JSON. Python's own output is buffered apart and stays.
    """
    with _lock:
        try:
            saved = os.dup(1)
        except OSError:  # a program without a standard output
            yield
            return
        library = ctypes.CDLL(None)
        library.fflush(None)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        try:
            yield
        finally:
            library.fflush(None)  # it is written where the descriptor points to now
            os.dup2(saved, 1)
            os.close(saved)
