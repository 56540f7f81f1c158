"""Which layer reads what another gives, channel by channel, and what is in between.

Where only operators that keep proportions lie between two layers, the channels may be divided by
positive numbers in the first and multiplied again in the second: the network computes the same
(Nagel et al. 2019, arXiv 1906.04721, section 4.1). Constants that are added in between, and limits,
are divided too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from studio.graph.edit import array_of, input_of, int_attribute, ints_attribute, is_op
from studio.graph.model import ModelGraph
from studio.ptq.weighted import Weighted, weighted

_ELEMENTWISE = ("Abs", "Dropout", "Identity", "LeakyRelu", "Neg", "PRelu", "Relu")
_OVER_POSITIONS = (
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
)
_REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


class StopError(Exception):
    """Why a layer's channels cannot be followed to the next layer."""


@dataclass
class Channels:
    """The channels of a layer's output on their way: `axis` of `value`, each of the `count`
    channels `repeat` times in a row there."""

    value: ir.Value
    axis: int
    count: int
    repeat: int = 1
    nodes: list[str] = field(default_factory=list)
    constants: dict[str, int] = field(default_factory=dict)
    clips: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rectified: bool = False

    @property
    def rank(self) -> int:
        if self.value.shape is None:
            raise StopError(f"the shape of {self.value.name} is not known")
        return len(self.value.shape)

    def size(self, axis: int) -> int | None:
        shape = self.value.shape
        size = None if shape is None else shape[axis]
        return size if isinstance(size, int) else None


@dataclass(frozen=True)
class Link:
    """`second` reads the `channels` that `first` gives; behind a Flatten each is `repeat` inputs.

    nodes: operators in between. constants: those that are divided with the channels (the bias of
    `first` too): name -> their axis of channels. clips: Clip operators that need limits for each
    channel -> their shape. rectified: what arrives is never negative.
    """

    first: Weighted
    second: Weighted
    channels: int
    repeat: int
    nodes: tuple[str, ...]
    constants: dict[str, int]
    clips: dict[str, tuple[int, ...]]
    rectified: bool

    def spread(self, numbers: np.ndarray) -> np.ndarray:
        """A number for each channel as one for each input of `second`."""
        return np.repeat(numbers, self.repeat)


def find_links(graph: ModelGraph) -> tuple[list[Link], dict[str, str]]:
    """Every link of `graph` in execution order, and why layers have none to a next one."""
    links, reasons = [], {}
    for node in graph.nodes():
        layer = weighted(node)
        if isinstance(layer, str):
            if layer:
                reasons[node.name or ""] = layer
            continue
        try:
            links.append(_follow(layer))
        except StopError as reason:
            reasons[node.name or ""] = str(reason)
    return links, reasons


def _follow(first: Weighted) -> Link:
    value = first.output
    rank = None if value.shape is None else len(value.shape)
    if rank is None:
        raise StopError(f"the shape of {value.name} is not known")
    channels = Channels(value, first.axis % rank, first.outputs)
    if first.bias:
        numbers = first.output.producer() if first.output is not first.node.outputs[0] else None
        holder = first.node if numbers is None else numbers
        bias = next(v for v in holder.inputs if v is not None and v.name == first.bias)
        array = array_of(bias)
        assert array is not None
        channels.constants[first.bias] = array.ndim - 1
    while True:
        node, slot = _reader(channels.value)
        second = weighted(node) if slot == 0 else "it is read as a weight"
        if isinstance(second, Weighted):
            expected = channels.count * channels.repeat
            if second.axis % channels.rank != channels.axis or second.inputs != expected:
                raise StopError(f"{second.name} reads them along another axis")
            return Link(
                first,
                second,
                channels.count,
                channels.repeat,
                tuple(channels.nodes),
                channels.constants,
                channels.clips,
                channels.rectified,
            )
        if second:
            raise StopError(f"{node.name}: {second}")
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise StopError(f"{node.op_type} {node.name} does not keep proportions")
        rule(node, channels)
        channels.nodes.append(node.name or "")
        if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
            raise StopError(f"{node.name} has several results")
        channels.value = node.outputs[0]


def _reader(value: ir.Value) -> tuple[ir.Node, int]:
    uses = list(value.uses())
    if value.is_graph_output():
        raise StopError("its result leaves the model")
    if len(uses) != 1:
        raise StopError(f"its result is read by {len(uses)} operators")
    producer = value.producer()
    if producer is None or uses[0].node.graph is not producer.graph:
        raise StopError("its result is read inside a branch or loop")
    return uses[0].node, uses[0].idx


# --- what operators do to channels --------------------------------------------------------------


def _elementwise(node: ir.Node, channels: Channels) -> None:
    if node.inputs[0] is not channels.value:
        raise StopError(f"{node.name} reads them as a slope")
    if node.op_type in ("Relu", "Abs"):
        channels.rectified = True
    elif node.op_type not in ("Dropout", "Identity") and not is_op(node, "LeakyRelu", "PRelu"):
        channels.rectified = False


def _over_positions(node: ir.Node, channels: Channels) -> None:
    if channels.axis != 1:
        raise StopError(f"{node.name} pools over channels")


def _clip(node: ir.Node, channels: Channels) -> None:
    bounds = [input_of(node, 1), input_of(node, 2)]
    known = [array_of(bound) for bound in bounds]
    if any(
        b is not None and (k is None or k.size != 1) for b, k in zip(bounds, known, strict=True)
    ):
        raise StopError(f"the limits of {node.name} are not constants")
    low, high = (None if k is None else float(k.reshape(())) for k in known)
    if (low not in (None, 0.0, -np.inf)) or (high not in (None, 0.0, np.inf)):
        shape = [1] * (channels.rank - channels.axis)
        shape[0] = channels.count * channels.repeat
        channels.clips[node.name or ""] = tuple(shape)
    channels.rectified = low is not None and low >= 0


def _with_constant(node: ir.Node, channels: Channels) -> None:
    """Add, Sub, Min and Max with a constant that has a number for each channel."""
    slot = next((i for i, value in enumerate(node.inputs) if value is not channels.value), None)
    value = None if slot is None or len(node.inputs) != 2 else node.inputs[slot]
    array = array_of(value)
    if value is None or array is None:
        raise StopError(f"{node.op_type} {node.name} joins them with another branch")
    axis = channels.axis - channels.rank + array.ndim
    full = axis >= 0 and array.shape[axis] == channels.count * channels.repeat
    if not full or array.ndim > channels.rank or len(value.uses()) != 1:
        raise StopError(f"{node.op_type} {node.name} has no constant for each channel")
    channels.constants[value.name or ""] = axis
    if node.op_type != "Min":
        channels.rectified = node.op_type == "Max" and bool((array >= 0).all())
    elif not (array >= 0).all():
        channels.rectified = False


def _multiplied(node: ir.Node, channels: Channels) -> None:
    """Mul by a constant, Div by one."""
    constants = [array_of(value) for value in node.inputs if value is not channels.value]
    if len(constants) != 1 or constants[0] is None or node.inputs[0] is not channels.value:
        raise StopError(f"{node.op_type} {node.name} joins them with another branch")
    if constants[0].ndim > channels.rank:
        raise StopError(f"{node.name} changes their shape")
    channels.rectified = channels.rectified and bool((constants[0] >= 0).all())


def _pad(node: ir.Node, channels: Channels) -> None:
    mode = node.attributes.get("mode")
    constant = mode is None or mode.as_string() == "constant"
    fill, pads = input_of(node, 2), array_of(input_of(node, 1))
    number = array_of(fill)
    if constant and fill is not None and (number is None or number.any()):
        raise StopError(f"{node.name} pads with another number than 0")
    if pads is None or input_of(node, 3) is not None:
        raise StopError(f"the padding of {node.name} is not constant")
    if pads.reshape(2, -1)[:, channels.axis].any():
        raise StopError(f"{node.name} pads channels")


def _resize(node: ir.Node, channels: Channels) -> None:
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is not None and mode.as_string() == "tf_crop_and_resize":
        raise StopError(f"{node.name} fills with a number of its own")
    axes = ints_attribute(node, "axes")
    if axes is not None and channels.axis not in [axis % channels.rank for axis in axes]:
        return
    place = (
        channels.axis if axes is None else [a % channels.rank for a in axes].index(channels.axis)
    )
    scales, sizes = array_of(input_of(node, 2)), array_of(input_of(node, 3))
    kept = scales is not None and scales.size > place and scales[place] == 1
    own = channels.count * channels.repeat
    kept = kept or (sizes is not None and sizes.size > place and sizes[place] == own)
    output = node.outputs[0].shape
    kept = kept or (output is not None and output[channels.axis] == own)
    if not kept:
        raise StopError(f"{node.name} resizes channels")
    if str(node.attributes["mode"].value if "mode" in node.attributes else "") == "cubic":
        channels.rectified = False


def _axes(node: ir.Node, channels: Channels) -> list[int] | None:
    """Axes that a reduction, Squeeze or Unsqueeze names; None if it names none."""
    found = ints_attribute(node, "axes")
    given = array_of(input_of(node, 1))
    if found is None and given is not None:
        found = [int(axis) for axis in given.reshape(-1)]
    if found is None and input_of(node, 1) is not None:
        raise StopError(f"the axes of {node.name} are not constant")
    return found


def _reduction(node: ir.Node, channels: Channels) -> None:
    axes = _axes(node, channels)
    if axes is None:
        raise StopError(f"{node.name} sums channels up")
    gone = {axis % channels.rank for axis in axes}
    if channels.axis in gone:
        raise StopError(f"{node.name} sums channels up")
    if not int_attribute(node, "keepdims", 1):
        channels.axis -= sum(axis < channels.axis for axis in gone)


def _squeeze(node: ir.Node, channels: Channels) -> None:
    axes = _axes(node, channels)
    if axes is None:
        raise StopError(f"{node.name} does not say what it removes")
    gone = {axis % channels.rank for axis in axes}
    if channels.axis in gone:
        raise StopError(f"{node.name} removes the axis of channels")
    channels.axis -= sum(axis < channels.axis for axis in gone)


def _unsqueeze(node: ir.Node, channels: Channels) -> None:
    axes = _axes(node, channels)
    if axes is None:
        raise StopError(f"{node.name} does not say what it adds")
    rank = channels.rank + len(axes)
    new = {axis % rank for axis in axes}
    channels.axis = [axis for axis in range(rank) if axis not in new][channels.axis]


def _transpose(node: ir.Node, channels: Channels) -> None:
    order = ints_attribute(node, "perm") or list(reversed(range(channels.rank)))
    channels.axis = order.index(channels.axis)


def _flatten(node: ir.Node, channels: Channels) -> None:
    axis = int_attribute(node, "axis", 1) % (channels.rank + 1)
    if axis != channels.axis:
        raise StopError(f"{node.name} mixes channels with other axes")
    channels.repeat *= _behind(node, channels)


def _reshape(node: ir.Node, channels: Channels) -> None:
    """(N, C, ...) to (N, C * ...)."""
    shape = node.outputs[0].shape
    if shape is None or len(shape) != channels.axis + 1 or int_attribute(node, "allowzero", 0):
        raise StopError(f"{node.name} mixes channels with other axes")
    before = [channels.size(axis) for axis in range(channels.axis)]
    same = all(
        own == shape[axis] if own is not None else axis == 0 for axis, own in enumerate(before)
    )
    repeat = _behind(node, channels)
    if not same or shape[channels.axis] != channels.count * channels.repeat * repeat:
        raise StopError(f"{node.name} mixes channels with other axes")
    channels.repeat *= repeat


def _behind(node: ir.Node, channels: Channels) -> int:
    """Values that follow each channel."""
    count = 1
    for axis in range(channels.axis + 1, channels.rank):
        size = channels.size(axis)
        if size is None:
            raise StopError(f"{node.name} has open sizes")
        count *= size
    return count


def _slice(node: ir.Node, channels: Channels) -> None:
    axes = array_of(input_of(node, 3))
    if axes is None or channels.axis in [int(axis) % channels.rank for axis in axes.reshape(-1)]:
        raise StopError(f"{node.name} takes some of the channels")


_RULES: dict[str, Callable[[ir.Node, Channels], None]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_OVER_POSITIONS, _over_positions),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "Add": _with_constant,
    "Clip": _clip,
    "Div": _multiplied,
    "Flatten": _flatten,
    "Max": _with_constant,
    "Min": _with_constant,
    "Mul": _multiplied,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _with_constant,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
