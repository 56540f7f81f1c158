"""What a module is probably fed: candidates from its first layers and its parameters' names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from studio.graph.sources.interface import (
    declared_dtype,
    forward_parameters,
    required_names,
    wants_python_value,
)
from studio.graph.sources.source import ExampleInput

if TYPE_CHECKING:
    from torch import nn

MOST_CANDIDATES = 24
LAYERS_TRIED = 4
TOKENS = 16
SIDES = {1: (28, 32, 64, 224), 3: (224, 256, 299, 512)}
"""Side lengths of pictures by channels; others are feature maps."""

MASK = re.compile(r"mask|padding|valid", re.IGNORECASE)
NUMBERS = re.compile(r"(^|_)(ids?|tokens?|index|indices|labels?|classes|words)(_|$)", re.IGNORECASE)


def guesses(module: nn.Module, given: Collection[str] = ()) -> Iterator[tuple[ExampleInput, ...]]:
    """Tensors to try for the parameters that are not `given`, the likeliest first; none if nothing
    can be said."""
    parameters = {p.name: p for p in forward_parameters(module)}
    names = [
        name
        for name in required_names(module)
        if name not in given and not (name in parameters and wants_python_value(parameters[name]))
    ]
    if not names:
        return
    main = [name for name in names if not MASK.search(name)] or names
    layers = [found for layer in module.modules() if (found := layer_inputs(layer))]
    tried: set[tuple[ExampleInput, ...]] = set()
    for layer_of in _assignments(len(main), min(len(layers), LAYERS_TRIED)):
        options = [layers[place] for place in layer_of]
        for choice in itertools.islice(_in_step(options), MOST_CANDIDATES):
            by_name = dict(zip(main, choice, strict=True))
            inputs = []
            for name in names:
                shape, dtype = by_name.get(name, choice[0])
                declared = declared_dtype(parameters[name]) if name in parameters else ""
                if name not in by_name:  # masks are as long as what they mask
                    shape, dtype = shape[:2], declared or ("int64" if dtype == "int64" else "bool")
                elif declared:
                    dtype = declared
                elif NUMBERS.search(name) and len(shape) <= 2:
                    dtype = "int64"
                inputs.append(ExampleInput(shape, name, dtype))
            if tuple(inputs) not in tried:
                tried.add(tuple(inputs))
                yield tuple(inputs)
            if len(tried) >= MOST_CANDIDATES:
                return


def _assignments(inputs: int, layers: int) -> Iterator[tuple[int, ...]]:
    """Which layer each input goes to: all to the first, each to its own, then others."""
    if not layers:
        return
    first = [(place,) * inputs for place in range(layers)]
    ordered = tuple(min(place, layers - 1) for place in range(inputs))
    yield from dict.fromkeys(
        (first[0], ordered, *first, *itertools.product(range(layers), repeat=min(inputs, 3)))
        if inputs <= 3
        else (first[0], ordered, *first)
    )


def _in_step(options: list[list[tuple[Any, str]]]) -> Iterator[tuple[tuple[Any, str], ...]]:
    """The first of each, the second of each, ..., then all combinations."""
    seen = set()
    for choice in itertools.chain(zip(*options, strict=False), itertools.product(*options)):
        if choice not in seen:
            seen.add(choice)
            yield choice


def layer_inputs(layer: Any) -> list[tuple[tuple[int, ...], str]]:
    """(shape, type) that a layer with parameters takes, the usual first; empty for others.

    Layers are known by the names of their classes, so that those of TorchScript are too.
    """
    kind = getattr(layer, "original_name", type(layer).__name__)
    weight = _weight(layer)
    if weight is None:
        return []
    rank = len(weight)
    if match := re.search(r"(?:Conv|ConvTranspose|BatchNorm|InstanceNorm)([123])d", kind):
        dims = int(match[1])
        if "Transpose" in kind or "Norm" in kind:
            channels = weight[0]
        else:
            groups = int(getattr(layer, "groups", 1)) if rank == dims + 2 else 1
            channels = weight[1] * groups
        return [((1, channels, *size), "float32") for size in _sizes(dims, channels, kind)]
    if "Embedding" in kind and rank == 2:
        return [((1, TOKENS), "int64"), ((1,), "int64")]
    if "LayerNorm" in kind or "RMSNorm" in kind:
        return [((1, TOKENS, *weight), "float32"), ((1, *weight), "float32")]
    if kind in ("LSTM", "GRU", "RNN"):
        return [((1, TOKENS, weight[1]), "float32")]
    if kind == "GroupNorm":
        return [((1, weight[0], 32, 32), "float32"), ((1, weight[0], 64), "float32")]
    if "Linear" in kind and rank == 2:
        return [((1, weight[1]), "float32"), ((1, TOKENS, weight[1]), "float32")]
    if kind == "MultiheadAttention":
        return [((1, TOKENS, weight[1]), "float32")]
    return []


def _weight(layer: Any) -> tuple[int, ...] | None:
    """Shape of a layer's weights, whatever it calls them."""
    for name in ("weight", "weight_ih_l0", "in_proj_weight", "weight_v"):
        found = getattr(layer, name, None)
        if found is not None and hasattr(found, "shape") and hasattr(found, "requires_grad"):
            return tuple(found.shape)
    return None


def _sizes(dims: int, channels: int, kind: str) -> list[tuple[int, ...]]:
    if "Transpose" in kind:
        return [(1,) * dims, (8,) * dims, (32,) * dims]
    if dims == 1:
        return [(16000,), (1024,), (128,)] if channels == 1 else [(1024,), (128,), (32,), (16000,)]
    if dims == 3:
        return [(16, 112, 112), (16, 64, 64), (8, 32, 32), (32, 32, 32)]
    return [(side, side) for side in SIDES.get(channels, (64, 32, 224, 16))]


def table_sizes(module: Any) -> list[int]:
    """Rows of the embeddings of a module, in order."""
    return [
        shape[0]
        for layer in module.modules()
        if "Embedding" in getattr(layer, "original_name", type(layer).__name__)
        and (shape := _weight(layer)) is not None
        and len(shape) == 2
    ]
