"""What is in the zoo: one `Entry` for each architecture.

The models themselves are plain PyTorch files, opened as a user would open them
(`file.py:factory`), so they import nothing but torch and the files beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ZOO = Path(__file__).parent


@dataclass(frozen=True)
class Input:
    """One model input, for a batch of one.

    shape: axis 0 is the batch. kind: how its random values are made (`inputs.KINDS`). below:
    exclusive upper bound of integers. dynamic: axes besides the batch whose size may change. name:
    the parameter of `forward`; empty: the next one in order.
    """

    shape: tuple[int, ...]
    kind: str = "image"
    below: int = 0
    dynamic: tuple[int, ...] = ()
    name: str = ""

    @property
    def text(self) -> str:
        """As `studio.open_model` takes it."""
        dtype = ":int64" if self.kind in ("integers", "mask") else ""
        shape = ",".join(map(str, self.shape))
        return f"{self.name}:{shape}{dtype}" if self.name else shape + dtype


@dataclass(frozen=True)
class Entry:
    """One architecture.

    name: unique, in lower case. file: relative to this folder. factory: a function in it that
    returns the module with the same weights every time. other_shapes: another size for each input,
    the batch included, or empty where the architecture is made for one size (`note` says why).
    fixed_batch: why the batch cannot vary, or empty.
    """

    name: str
    family: str
    file: str
    factory: str
    inputs: tuple[Input, ...]
    other_shapes: tuple[tuple[int, ...], ...] = ()
    fixed_batch: str = ""
    note: str = ""

    @property
    def source(self) -> str:
        """As `studio.open_model` takes it."""
        return f"{ZOO / self.file}:{self.factory}"


def image(height: int, width: int | None = None, channels: int = 3) -> Input:
    """A picture."""
    return Input((1, channels, height, width or height), dynamic=(2, 3))


def entries() -> tuple[Entry, ...]:
    """The whole zoo."""
    from .sequence import ENTRIES as SEQUENCE
    from .vision import ENTRIES as VISION

    return (*VISION, *SEQUENCE)
