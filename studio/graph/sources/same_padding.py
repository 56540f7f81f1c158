"""Finds padding of convolutions that a module computes from the size of its input.

TensorFlow's SAME padding, rebuilt in PyTorch, is of this kind. It is found by calling the module,
before it is traced: torch.export needs minutes for the formulas of a large network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from studio.graph.sources.examples import Examples
from studio.graph.sources.sizes import OpenSizes

if TYPE_CHECKING:
    from torch import Tensor, nn

MESSAGE = "with an open size the model would have to compute the padding of its convolutions"
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def pads_by_size(module: nn.Module, examples: Examples, sizes: OpenSizes) -> bool:
    """True if amounts of padding in front of convolutions change with the open sizes."""
    inner = sizes.axes - sizes.batch_axes
    if not inner:
        return False
    own = [item.shape for item in examples.inputs]
    odd = [
        tuple(size + 1 if (place, axis) in inner else size for axis, size in enumerate(shape))
        for place, shape in enumerate(own)
    ]
    try:
        return _amounts(module, examples, own) != _amounts(module, examples, odd)
    except Exception:  # the module does not take odd sizes: it hardly pads for them
        return False


def _amounts(
    module: nn.Module, examples: Examples, shapes: Sequence[tuple[int, ...]]
) -> list[tuple[int, ...]]:
    with _recorded() as amounts:
        examples.run(module, shapes)
    return amounts


@contextlib.contextmanager
def _recorded() -> Iterator[list[tuple[int, ...]]]:
    """The amounts that `functional.pad` added to what convolutions were given."""
    from torch.nn import functional

    padded: dict[int, tuple[Tensor, tuple[int, ...]]] = {}
    found: list[tuple[int, ...]] = []
    own: dict[str, Callable[..., Any]] = {
        name: getattr(functional, name) for name in ("pad", *CONVOLUTIONS)
    }

    def pad(input: Tensor, amounts: Sequence[int], *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = own["pad"](input, amounts, *args, **kwargs)
        padded[id(result)] = result, tuple(int(amount) for amount in amounts)
        return result

    def convolution(name: str) -> Callable[..., Tensor]:
        def run(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if id(input) in padded:
                found.append(padded.pop(id(input))[1])
            result: Tensor = own[name](input, *args, **kwargs)
            return result

        return run

    try:
        functional.pad = pad  # type: ignore[assignment]
        for name in CONVOLUTIONS:
            setattr(functional, name, convolution(name))
        yield found
    finally:
        for name, function in own.items():
            setattr(functional, name, function)
