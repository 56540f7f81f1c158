"""Padding belongs to the layer that needs it, and is written down in numbers."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import (
    array_of,
    bypass,
    input_of,
    int_attribute,
    ints_attribute,
    is_op,
    only_consumer,
)
from studio.graph.model import Change
from studio.graph.scopes import title


def merge_padding(model: ir.Model) -> list[Change]:
    """Conv(Pad(x)) becomes Conv(x) where the Pad adds zeros to spatial axes only.

    AveragePool(Pad(x)) becomes an AveragePool that counts its padding. MaxPool is left alone: its
    own padding is minus infinity.
    """
    changes = []
    for node in list(model.graph):
        if not is_op(node, "Pad"):
            continue
        source, layer = input_of(node, 0), only_consumer(node.outputs[0])
        spatial = _spatial_pads(node)
        if source is None or layer is None or spatial is None:
            continue
        if not is_op(layer, "Conv", "AveragePool") or layer.inputs[0] is not node.outputs[0]:
            continue
        if is_op(layer, "Conv") and layer.inputs[1] is node.outputs[0]:
            continue
        merged = _with_padding(layer, spatial)
        if merged is None:
            continue
        layer.attributes.pop("auto_pad", None)
        layer.attributes["pads"] = ir.AttrInt64s("pads", merged)
        if is_op(layer, "AveragePool"):
            layer.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        detail = f"The zeros added before it are now its own padding {merged}."
        changes.append(Change("merge padding", title(layer), detail))
        bypass(node, source)
    return changes


def resolve_auto_pad(model: ir.Model) -> list[Change]:
    """auto_pad SAME_UPPER, SAME_LOWER and VALID become the numbers they stand for.

    Where a stride skips positions the numbers depend on the size of the input: they are only
    written down if that is fixed.
    """
    changes = []
    for node in model.graph:
        if not is_op(node, "Conv", "AveragePool", "MaxPool") or "auto_pad" not in node.attributes:
            continue
        mode = node.attributes["auto_pad"].as_string()
        kernel = _kernel(node)
        if kernel is None or int_attribute(node, "ceil_mode", 0):
            continue
        pads = None
        if mode == "VALID":
            pads = [0] * (2 * len(kernel))
        elif mode in ("SAME_UPPER", "SAME_LOWER"):
            pads = _same_pads(node, kernel, upper=mode == "SAME_UPPER")
        if pads is None:
            continue
        node.attributes.pop("auto_pad")
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        detail = f"Its automatic padding {mode} is {pads}."
        changes.append(Change("explicit padding", title(node), detail))
    return changes


def _kernel(node: ir.Node) -> list[int] | None:
    """Spatial sizes of the kernel."""
    written = ints_attribute(node, "kernel_shape")
    if written is not None or not is_op(node, "Conv"):
        return written
    weight = node.inputs[1]
    if weight is None or weight.shape is None:
        return None
    sizes = list(weight.shape[2:])
    return [s for s in sizes if isinstance(s, int)] if all(type(s) is int for s in sizes) else None


def _same_pads(node: ir.Node, kernel: list[int], *, upper: bool) -> list[int] | None:
    """Padding that makes ceil(size / stride) results along each axis."""
    source = node.inputs[0]
    strides = ints_attribute(node, "strides") or [1] * len(kernel)
    dilations = ints_attribute(node, "dilations") or [1] * len(kernel)
    begins, ends = [], []
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        reach = (size - 1) * dilation + 1
        total = reach - 1
        if stride != 1:
            length = None if source is None or source.shape is None else source.shape[axis + 2]
            if not isinstance(length, int) or length < 1:
                return None
            total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return [*begins, *ends]


def _with_padding(layer: ir.Node, spatial: list[int]) -> list[int] | None:
    """Padding of `layer` and `spatial` together; None if it cannot take more."""
    auto = layer.attributes.get("auto_pad")
    if auto is not None and auto.as_string() not in ("", "NOTSET", "VALID"):
        return None
    own = ints_attribute(layer, "pads") or [0] * len(spatial)
    if len(own) != len(spatial):
        return None
    merged = [a + b for a, b in zip(own, spatial, strict=True)]
    if is_op(layer, "Conv"):
        return merged
    kernel = ints_attribute(layer, "kernel_shape") or []
    if any(own) and not int_attribute(layer, "count_include_pad", 0):
        return None  # its own padding does not count, the zeros do
    if int_attribute(layer, "ceil_mode", 0):
        return None
    # onnxruntime refuses padding as large as the kernel
    fits = all(pad < size for pad, size in zip(merged, [*kernel, *kernel], strict=True))
    return merged if fits else None


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
