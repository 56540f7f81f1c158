"""A Pad by zeros in front of a convolution becomes the convolution's own padding."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import array_of, bypass, input_of, ints_attribute, is_op, only_consumer
from studio.graph.model import Change
from studio.graph.scopes import title


def merge_padding(model: ir.Model) -> list[Change]:
    """Conv(Pad(x)) becomes Conv(x) where the Pad adds zeros to spatial axes only.

    Pooling is left alone: it treats its own padding differently.
    """
    changes = []
    for node in list(model.graph):
        if not is_op(node, "Pad"):
            continue
        source, conv = input_of(node, 0), only_consumer(node.outputs[0])
        spatial = _spatial_pads(node)
        if source is None or conv is None or not is_op(conv, "Conv") or spatial is None:
            continue
        if conv.inputs[0] is not node.outputs[0] or conv.inputs[1] is node.outputs[0]:
            continue
        auto = conv.attributes.get("auto_pad")
        if auto is not None and auto.as_string() not in ("", "NOTSET", "VALID"):
            continue
        own = ints_attribute(conv, "pads") or [0] * len(spatial)
        if len(own) != len(spatial):
            continue
        merged = [a + b for a, b in zip(own, spatial, strict=True)]
        conv.attributes.pop("auto_pad", None)
        conv.attributes["pads"] = ir.AttrInt64s("pads", merged)
        detail = f"The zeros added before it are now its own padding {merged}."
        changes.append(Change("merge padding", title(conv), detail))
        bypass(node, source)
    return changes


def _spatial_pads(node: ir.Node) -> list[int] | None:
    """[begin..., end...] of the spatial axes; None unless zeros are added to those only."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        return None
    pads, fill = array_of(input_of(node, 1)), input_of(node, 2)
    zero = array_of(fill)
    if pads is None or (fill is not None and (zero is None or zero.size != 1 or zero.any())):
        return None
    amounts = [int(n) for n in pads.ravel()]
    if input_of(node, 3) is not None:
        axes = array_of(input_of(node, 3))
        data = node.inputs[0]
        if axes is None or data is None or data.shape is None:
            return None
        rank = len(data.shape)
        full = [0] * (2 * rank)
        for i, axis in enumerate(int(a) % rank for a in axes.ravel()):
            full[axis], full[rank + axis] = amounts[i], amounts[len(amounts) // 2 + i]
        amounts = full
    rank = len(amounts) // 2
    if rank < 3 or any(n < 0 for n in amounts):
        return None
    if any(amounts[i] for i in (0, 1, rank, rank + 1)):
        return None
    return amounts[2:rank] + amounts[rank + 2 :]
