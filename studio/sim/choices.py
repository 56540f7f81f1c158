"""What a user can choose for a layer: one question a row, one choice an answer.

A choice stands for several settings where they belong together (symmetry, granularity, kind of
number). Only what the target can do is among the choices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from studio.graph.model import ModelGraph
from studio.sim import op_rules
from studio.sim.config import Format, LayerSettings, ObserverName
from studio.sim.plan import Layer, Plan
from studio.sim.rules.names import names_of
from studio.sim.target import Target

Kind = Literal["weight", "act"]
KINDS: tuple[Kind, ...] = ("weight", "act")

BITS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
BLOCK_SIZES = (16, 32, 64, 128, 256)
"""Offered where the target allows any."""

OFF = "off"
NUMBER, GRANULARITY, SYMMETRY = "number", "granularity", "symmetry"
OBSERVER, SCALES, RANGES = "observer", "scales", "ranges"

SHORT_FORMATS = {
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8e4m3fn": "fp8 e4m3",
    "float8e4m3fnuz": "fp8 e4m3 fnuz",
    "float8e5m2": "fp8 e5m2",
    "float8e5m2fnuz": "fp8 e5m2 fnuz",
    "float4e2m1": "fp4 e2m1",
}
OBSERVERS: dict[str, tuple[str, str]] = {
    "minmax": ("min-max", "The whole range: nothing is clipped"),
    "moving_average": ("moving avg.", "Average of the batches' ranges: one odd batch is damped"),
    "percentile": ("percentile", "The range that holds a share of the values"),
    "mse": ("MSE", "The range with the least mean squared error"),
    "sqnr": ("SQNR", "As MSE, but a clipped value counts threefold (AIMET)"),
    "tf_enhanced": ("TF enhanced", "SQNR on the range of the first batch (AIMET, older)"),
    "entropy": ("entropy", "The threshold of least KL divergence (TensorRT)"),
    "isotone": ("isotone", "Keeps the two best scores of a classifier apart"),
}
"""Name of a method -> (as shown, what it does)."""

_TITLES = {
    NUMBER: "Number",
    GRANULARITY: "Granularity",
    SYMMETRY: "Symmetry",
    OBSERVER: "Observer",
    SCALES: "Scales",
    RANGES: "Ranges",
}


@dataclass(frozen=True)
class Choice:
    """One answer: `text` as shown, `settings` as pairs of key and value, `tip` in one line."""

    text: str
    settings: tuple[tuple[str, Any], ...]
    tip: str = ""


@dataclass(frozen=True)
class Question:
    """What can be chosen of one kind; `rare` ones are for few users."""

    kind: Kind
    name: str
    choices: tuple[Choice, ...]
    rare: bool = False

    @property
    def title(self) -> str:
        return _TITLES[self.name]

    @property
    def noun(self) -> str:
        """As a step of the history names it: `weight number`."""
        return f"{'weight' if self.kind == 'weight' else 'activation'} {self.title.lower()}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Settings that the choices write."""
        return tuple(dict.fromkeys(key for item in self.choices for key, _ in item.settings))

    def answer(self, settings: LayerSettings) -> str:
        """The text of the choice that `settings` are, which may not be offered."""
        return answer_text(settings, self.kind, self.name)

    def choice(self, text: str) -> Choice:
        """The choice shown as `text`; KeyError if there is none."""
        for choice in self.choices:
            if choice.text == text:
                return choice
        raise KeyError(text)


def number_text(format: str | None, bits: int | None) -> str:
    """`int8`, `fp8 e4m3`."""
    return f"int{bits}" if format in (None, "int") else SHORT_FORMATS[str(format)]


def symmetry_text(settings: LayerSettings, kind: Kind) -> str:
    """`asymmetric`, `symmetric`, `strict symmetric`, `unsigned symmetric`, or the latter two both;
    "" for floats."""
    if getattr(settings, f"{kind}_format") not in (None, "int"):
        return ""
    if not getattr(settings, f"{kind}_symmetric"):
        return "asymmetric"
    strict = "strict " if getattr(settings, f"{kind}_strict") else ""
    unsigned = "unsigned " if kind == "act" and settings.act_unsigned_symmetric else ""
    return f"{strict}{unsigned}symmetric"


def granularity_text(settings: LayerSettings) -> str:
    """`per channel`, `blocks of 32`, `LPBQ, blocks of 32`."""
    size = settings.weight_block_size
    if size:
        return f"{'LPBQ, ' if settings.weight_lpbq else ''}blocks of {size}"
    return "per channel" if settings.weight_per_channel else "per tensor"


def observer_text(observer: str | None) -> str:
    """Name of a calibration method as shown."""
    return OBSERVERS[observer][0] if observer in OBSERVERS else str(observer)


def answer_text(settings: LayerSettings, kind: Kind, name: str) -> str:
    """The answer that `settings` give to the question `name`, offered or not."""
    if name == NUMBER:
        if getattr(settings, f"{kind}_enabled") is False:
            return OFF
        return number_text(getattr(settings, f"{kind}_format"), getattr(settings, f"{kind}_bits"))
    if name == GRANULARITY:
        return granularity_text(settings)
    if name == SYMMETRY:
        return symmetry_text(settings, kind)
    if name == OBSERVER:
        return observer_text(getattr(settings, f"{kind}_observer"))
    if name == RANGES:
        return _RANGES[bool(settings.act_dynamic)].text
    return "powers of two" if getattr(settings, f"{kind}_power_of_two") else "any"


def questions(
    graph: ModelGraph, plan: Plan, target: Target, layer: Layer, kind: Kind
) -> tuple[Question, ...]:
    """What can be chosen for the weights ("weight") or the output ("act") of `layer` of `plan`;
    nothing where it has none. An output that is ranged at inference can only be uint8 asymmetric
    (ONNX DynamicQuantizeLinear)."""
    settings = layer.settings
    if getattr(settings, f"{kind}_bits") is None:
        return ()
    integers = getattr(settings, f"{kind}_format") in (None, "int")
    row = plan.tensors.get(layer.output)
    dynamic = kind == "act" and row is not None and row.dynamic
    numbers = number_choices(target, kind)
    if dynamic:
        numbers = tuple(item for item in numbers if item.text in (number_text("int", 8), OFF))
    found = [Question(kind, NUMBER, numbers)]
    if kind == "weight":
        found.append(Question(kind, GRANULARITY, tuple(_granularities(graph, target, layer))))
    if integers:
        symmetries = tuple(_symmetries(target, kind))
        found.append(Question(kind, SYMMETRY, symmetries[:1] if dynamic else symmetries))
    if not dynamic:
        found.append(Question(kind, OBSERVER, tuple(_observers(kind))))
    if kind == "act" and layer.weights and _names(layer, graph) & target.numbers.dynamic_ops:
        found.append(Question(kind, RANGES, _RANGES))
    if not dynamic:
        found.append(Question(kind, SCALES, tuple(_scales(kind)), rare=True))
    return tuple(found)


def number_choices(target: Target, kind: Kind) -> tuple[Choice, ...]:
    """The numbers that the target has for weights or activations, and `off`."""
    return tuple(_numbers(target, kind))


def _numbers(target: Target, kind: Kind) -> Iterator[Choice]:
    allowed = target.numbers.weights if kind == "weight" else target.numbers.activations
    narrow = kind == "weight" or target.numbers.narrow_activations
    sizes = [int(match[1]) for name in allowed or () if (match := re.match(r"int(\d+)$", name))]
    for bits in BITS:
        if allowed is None or bits in sizes or (narrow and any(bits <= size for size in sizes)):
            given = (f"{kind}_format", "int"), (f"{kind}_bits", bits), (f"{kind}_enabled", True)
            yield Choice(number_text("int", bits), given)
    for format in get_args(Format):
        if format != "int" and (allowed is None or format in allowed):
            yield Choice(
                SHORT_FORMATS[format],
                ((f"{kind}_format", format), (f"{kind}_enabled", True)),
                f"Floating point: {format}",
            )
    yield Choice(OFF, ((f"{kind}_enabled", False),), "Stays in float")


def _symmetries(target: Target, kind: Kind) -> Iterator[Choice]:
    numbers = target.numbers
    allowed = numbers.asymmetric_weights if kind == "weight" else numbers.asymmetric_activations
    symmetric, strict = f"{kind}_symmetric", f"{kind}_strict"
    if allowed:
        yield Choice("asymmetric", ((symmetric, False),), "The zero point may be anywhere")
    unsigned = (("act_unsigned_symmetric", False),) if kind == "act" else ()
    yield Choice(
        "symmetric",
        ((symmetric, True), (strict, False), *unsigned),
        "The zero point is in the middle of the grid",
    )
    yield Choice(
        "strict symmetric",
        ((symmetric, True), (strict, True), *unsigned),
        "Symmetric without the lowest integer: both ends are equally far",
    )
    if kind == "act":
        yield Choice(
            "unsigned symmetric",
            ((symmetric, True), (strict, False), ("act_unsigned_symmetric", True)),
            "Symmetric; where no value is negative, all integers are used for the positive side",
        )


def _granularities(graph: ModelGraph, target: Target, layer: Layer) -> Iterator[Choice]:
    whole = ("weight_block_size", 0)
    yield Choice("per tensor", (("weight_per_channel", False), whole), "One scale")
    yield Choice(
        "per channel", (("weight_per_channel", True), whole), "A scale for each output channel"
    )
    channels = block_channels(graph, target, layer)
    if channels is None:
        return
    numbers, settings = target.numbers, layer.settings
    sizes = BLOCK_SIZES if numbers.block_sizes is None else numbers.block_sizes
    fitting = [size for size in sizes if numbers.partial_blocks or channels % size == 0]
    for size in fitting:
        given = ("weight_block_size", size), ("weight_lpbq", False)
        yield Choice(f"blocks of {size}", given, f"A scale for every {size} input channels")
    low_power = numbers.lpbq and settings.weight_format in (None, "int")
    for size in fitting if low_power and settings.weight_symmetric else ():
        given = ("weight_block_size", size), ("weight_lpbq", True)
        tip = f"Blocks of {size} whose scales are integers times one scale for each channel"
        yield Choice(f"LPBQ, blocks of {size}", given, tip)


def block_channels(graph: ModelGraph, target: Target, layer: Layer) -> int | None:
    """Input channels of the weight of `layer` that can be cut into blocks; None if it cannot."""
    if not layer.nodes or not layer.weights or target.numbers.block_sizes == ():
        return None
    if not _names(layer, graph) & target.block_ops:
        return None
    node = graph.node(layer.nodes[0])
    weight = op_rules.weight(node)
    axis = None if weight is None else op_rules.input_axis(node)
    if weight is None or weight.shape is None or axis is None:
        return None
    return int(weight.shape.numpy()[axis])


def _names(layer: Layer, graph: ModelGraph) -> frozenset[str]:
    """What the first op of the layer is called in rules."""
    if not layer.nodes:
        return frozenset()
    op = graph.node(layer.nodes[0]).op_type
    return names_of(layer.kind) if _written_out(layer) else names_of(op)


def _written_out(layer: Layer) -> bool:
    return bool(layer.kind) and not layer.kind.startswith("Linear")


def _observers(kind: Kind) -> Iterator[Choice]:
    for name in get_args(ObserverName):
        text, tip = OBSERVERS[name]
        yield Choice(text, ((f"{kind}_observer", name),), tip)


def _scales(kind: Kind) -> Iterator[Choice]:
    key = f"{kind}_power_of_two"
    yield Choice("any", ((key, False),), "Any float32")
    yield Choice("powers of two", ((key, True),), "2 to a whole number: a shift on the hardware")


_RANGES = (
    Choice("calibrated", (("act_dynamic", False),), "What the layer reads is ranged once"),
    Choice(
        "at inference",
        (("act_dynamic", True),),
        "What the layer reads is ranged anew at every inference",
    ),
)
