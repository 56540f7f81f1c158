"""A constant added to each channel of a convolution is its bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    absorb,
    add_constant,
    array_of,
    input_of,
    is_op,
    only_consumer,
)
from studio.graph.model import Change
from studio.graph.scopes import title


def merge_bias(model: ir.Model) -> list[Change]:
    """Add(Conv(x), constant per channel) becomes a Conv with that bias; ConvTranspose likewise."""
    changes, names = [], Names(model.graph)
    for node in list(model.graph):
        if not is_op(node, "Conv", "ConvTranspose"):
            continue
        output, bias = node.outputs[0], input_of(node, 2)
        add, old = only_consumer(output), array_of(bias)
        if not is_op(add, "Add") or output.shape is None or (bias is not None and old is None):
            continue
        assert add is not None
        other = add.inputs[1] if add.inputs[0] is output else add.inputs[0]
        constant, channels = array_of(other), output.shape[1]
        if constant is None or not isinstance(channels, int):
            continue
        added = _per_channel(constant, len(output.shape), channels)
        if added is None:
            continue
        total = added if old is None else (old.astype(np.float64) + added).astype(old.dtype)
        value = add_constant(model.graph, names.fresh(f"{title(node)}.bias"), total)
        node.resize_inputs(3)
        node.replace_input_with(2, value)
        changes.append(
            Change(
                "merge bias",
                title(node),
                f"The constant added after it ({title(add)}) became its bias.",
            )
        )
        absorb(add, output)
    return changes


def _per_channel(constant: np.ndarray, rank: int, channels: int) -> np.ndarray | None:
    """`constant` as [channels], or None if it varies along another axis than 1."""
    if constant.ndim > rank:
        return None
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1) or shape[1] not in (
        1,
        channels,
    ):
        return None
    return np.broadcast_to(constant.reshape(-1), (channels,)).copy()
