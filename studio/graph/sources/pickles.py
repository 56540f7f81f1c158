"""What a pickle would import, found by reading its opcodes; nothing is unpickled."""

from __future__ import annotations

import io
import pickletools
from pathlib import Path
from typing import IO

from studio.errors import ModelError

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of torch.save before PyTorch 1.6 begins: a pickle of a magic number."""

# What torch.save writes for tensors, and numpy for numbers beside them.
TENSOR_MODULES = ("torch", "torch._utils", "torch.storage", "torch._tensor", "torch.serialization")
PLAIN = {
    "collections OrderedDict", "collections defaultdict", "_codecs encode", "builtins set",
    "torch.nn.parameter Parameter", "numpy dtype", "numpy ndarray", "builtins dict",
    "numpy.core.multiarray scalar", "numpy._core.multiarray scalar",
    "numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct",
    "__builtin__ set",
}  # fmt: skip


def foreign_objects(stream: IO[bytes], name: str, *, legacy: bool = False) -> tuple[str, ...]:
    """Dotted names of the classes and functions in a pickle that are not tensors or plain data.

    `legacy`: the stream holds the four pickles of an old file, of which the last is the content.
    Raises ModelError if it is no pickle.
    """
    names: list[str] = []
    try:
        for _ in range(4 if legacy else 1):
            names = _imports(stream)
    except (ValueError, EOFError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"{name} is damaged: its pickle breaks off.",
            "Copy or save the file again; it may be incomplete.",
        ) from error
    return tuple(dict.fromkeys(n.replace(" ", ".") for n in names if not _is_plain(n)))


def in_file(path: Path) -> tuple[str, ...]:
    """`foreign_objects` of an old file of torch.save."""
    with path.open("rb") as stream:
        return foreign_objects(stream, path.name, legacy=True)


def in_bytes(content: bytes, name: str) -> tuple[str, ...]:
    return foreign_objects(io.BytesIO(content), name)


def _is_plain(name: str) -> bool:
    module, _, attribute = name.rpartition(" ")
    if name in PLAIN or attribute == "Size":
        return True
    known = attribute.startswith("_rebuild_") or attribute.endswith("Storage")
    dtype = module == "torch" and attribute.islower() and attribute.isidentifier()
    return module in TENSOR_MODULES and (known or (dtype and attribute not in ("load", "compile")))


def _imports(stream: IO[bytes]) -> list[str]:
    """`module name` of every GLOBAL, STACK_GLOBAL and INST of the next pickle in `stream`."""
    found: list[str] = []
    memo: dict[int, object] = {}
    strings: list[object] = []  # the values pushed so far, as far as they are texts
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            found.append(str(argument))
            strings.append(None)
        elif name == "STACK_GLOBAL":
            texts = [item for item in strings if isinstance(item, str)][-2:]
            found.append(" ".join(texts) if len(texts) == 2 else "unknown unknown")
            strings.append(None)
        elif "UNICODE" in name or name.endswith("STRING"):
            strings.append(argument)
        elif name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else None
        elif name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int):
            memo[argument] = strings[-1] if strings else None
        elif name in ("GET", "BINGET", "LONG_BINGET") and isinstance(argument, int):
            strings.append(memo.get(argument))
        elif opcode.stack_after and name not in ("MARK",):
            strings.append(None)
    return found
