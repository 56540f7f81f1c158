"""Which torch function computes which ONNX op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import onnx_ir as ir
import torch
from torch import Tensor

# A sequence is a list; an empty optional value is None.
Value = Tensor | list[Tensor] | None
Result = Tensor | tuple[Value, ...]
OpFunction = Callable[..., Result]
F = TypeVar("F", bound=OpFunction)

MAX_OPSET = 28
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Call:
    """What a function knows of its node besides the input tensors.

    `attributes` are Python values: int, float, str, list or torch tensor (on the CPU). `opset` is
    the version of the node's domain, `outputs` how many outputs the node has (unused trailing ones
    left out), `types` the ONNX element type of each input where it is known, and `device` where
    tensors that the op creates are to lie.
    """

    op_type: str
    opset: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    types: tuple[ir.DataType | None, ...] = ()
    device: torch.device = CPU

    def get(self, name: str, default: Any = None) -> Any:
        """Attribute `name`, or `default`."""
        return self.attributes.get(name, default)

    def type_of(self, index: int) -> ir.DataType | None:
        """Element type of input `index`, where known."""
        return self.types[index] if index < len(self.types) else None


@dataclass(frozen=True)
class Op:
    """A registered op.

    `since` is the lowest opset whose semantics `function` knows. `host` are the inputs it reads as
    numbers (shapes, axes, ...), which therefore lie on the CPU whatever the device. `fresh` says
    that the result shares no memory with an input. `inplace` computes the same into the memory of
    its first input.
    """

    function: OpFunction
    since: int
    host: frozenset[int]
    fresh: bool
    inplace: OpFunction | None = None


_OPS: dict[tuple[str, str], Op] = {}


def op(
    *names: str, since: int = 1, domain: str = "", host: tuple[int, ...] = (), fresh: bool = False
) -> Callable[[F], F]:
    """Register the decorated function for the ops `names` of `domain`."""

    def register(function: F) -> F:
        for name in names:
            _OPS[domain, name] = Op(function, since, frozenset(host), fresh)
        return function

    return register


def inplace(*names: str, domain: str = "") -> Callable[[F], F]:
    """Register the decorated function as the variant of `names` that overwrites its first input.

    It may return a new tensor when the first input cannot hold the result.
    """

    def register(function: F) -> F:
        for name in names:
            known = _OPS[domain, name]
            _OPS[domain, name] = Op(known.function, known.since, known.host, True, function)
        return function

    return register


def find(domain: str, op_type: str) -> Op | None:
    """The registered op, or None. The default domain goes by both of its names."""
    return _OPS.get(("" if domain == "ai.onnx" else domain, op_type))


def supported_ops() -> tuple[tuple[str, str], ...]:
    """(domain, op type) of every registered op, sorted."""
    return tuple(sorted(_OPS))
