"""What a pickle would import, found by reading its opcodes; nothing is unpickled."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from zipfile import ZipInfo

from studio.errors import ModelError
from studio.graph.sources.archive import AGAIN, FROM_SOURCE, read_entry

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of torch.save before PyTorch 1.6 begins: a pickle of a magic number."""

LEGACY_PICKLES = 5
"""In such a file: the magic number, a version, sizes of integers, the content, its storages."""

MOST_OPCODES = 3_000_000
"""Of a pickle, some 40 for each tensor; what has more takes long and much memory."""

DEEPEST = 1000
"""Values within values. Python hashes nested tuples by recursion, and overflows its stack."""

ADDING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
"""Opcodes that put values into one that is there."""

# What torch.save writes for tensors, and numpy for numbers beside them.
TENSOR_MODULES = ("torch", "torch._utils", "torch.storage", "torch._tensor", "torch.serialization")
PLAIN = {
    "collections OrderedDict", "collections defaultdict", "_codecs encode", "builtins set",
    "torch.nn.parameter Parameter", "numpy dtype", "numpy ndarray", "builtins dict",
    "numpy.core.multiarray scalar", "numpy._core.multiarray scalar",
    "numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct",
    "__builtin__ set", "torch Size",
    "torch.serialization _get_layout",
}  # fmt: skip


def in_archive(path: Path, entries: Mapping[str, ZipInfo]) -> tuple[str, ...]:
    """Dotted names of the classes and functions in `data.pkl` that are no tensors or plain data.

    Raises ModelError if it is no pickle, or one that no model has.
    """
    content = read_entry(path, entries["data.pkl"])
    return _foreign(io.BytesIO(content), path.name, pickles=1)


def in_file(path: Path) -> tuple[str, ...]:
    """The same of an old file of torch.save, which is pickles one after the other."""
    with path.open("rb") as stream:
        return _foreign(stream, path.name, pickles=LEGACY_PICKLES)


def described(head: bytes) -> str:
    """What a file is that begins with `head`, and that torch.save has not made."""
    if not head:
        return "empty"
    if head[:1] == b"\x80":
        return "a Python pickle, but not one that torch.save has made"
    if b"pickle" in head or head[:2] == b"\x1f\x8b" or b"ustar" in head:
        return "an archive of a PyTorch version that is no longer supported"
    return "no PyTorch file, or a damaged one"


def _foreign(stream: IO[bytes], name: str, pickles: int) -> tuple[str, ...]:
    try:
        names = [found for _ in range(pickles) for found in _imports(stream, name)]
    except ModelError:
        raise
    except Exception as error:  # whatever opcodes out of place lead to
        raise ModelError(f"{name} is damaged: its pickle breaks off.", AGAIN) from error
    return tuple(dict.fromkeys(n.replace(" ", ".") for n in names if not _is_plain(n)))


def _is_plain(name: str) -> bool:
    module, _, attribute = name.rpartition(" ")
    if name in PLAIN:
        return True
    known = attribute.startswith("_rebuild_") or attribute.endswith("Storage")
    dtype = module == "torch" and attribute.islower() and attribute.isidentifier()
    return module in TENSOR_MODULES and (known or (dtype and attribute not in ("load", "compile")))


Item = tuple[str | None, int]
"""Of a value on the unpickler's stack: what it says if it is a text, how deep it is."""


def _imports(stream: IO[bytes], name: str) -> list[str]:
    """`module name` of every class or function that the next pickle in `stream` asks for.

    Follows the stack of the unpickler, without its values. Raises ModelError for a pickle that is
    too long or too deep, and all kinds of errors for one that is damaged.
    """
    found: list[str] = []
    memo: dict[Any, Item | None] = {}
    stack: list[Item | None] = []  # None: a mark
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MOST_OPCODES:
            raise ModelError(f"{name} has a pickle too long for a model.", FROM_SOURCE)
        kind = opcode.name
        if kind == "MARK":
            stack.append(None)
        elif kind in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif kind == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif kind in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif kind == "DUP":
            stack.append(stack[-1])
        elif kind == "POP":
            stack.pop()
        else:
            taken = _taken(stack, opcode.stack_before)
            if kind in ("GLOBAL", "INST"):
                found.append(str(argument))
            elif kind == "STACK_GLOBAL":
                found.append(" ".join(text or "unknown" for text, _ in taken))
            elif kind.startswith("EXT"):
                found.append("copyreg extension")
            if not opcode.stack_after:
                continue
            text = argument if kind.endswith(("UNICODE", "UNICODE8", "STRING")) else None
            depth = max((item[1] for item in taken), default=-1) + 1
            if kind in ADDING:
                depth = max(taken[0][1], max((item[1] for item in taken[1:]), default=-1) + 1)
            if depth > DEEPEST:
                raise ModelError(f"{name} has a pickle too deep for a model.", FROM_SOURCE)
            stack.append((text, depth))
    return found


def _taken(stack: list[Item | None], before: Sequence[Any]) -> list[Item]:
    """What an opcode takes from the `stack`, the lowest first."""
    taken: list[Item] = []
    mark = pickletools.markobject in before
    if mark:
        while (item := stack.pop()) is not None:
            taken.append(item)
    for _ in range(before.index(pickletools.markobject) if mark else len(before)):
        item = stack.pop()
        assert item is not None
        taken.append(item)
    return taken[::-1]
