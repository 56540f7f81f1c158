"""Activation functions that exporters write as several operators.

Formulas: GELU (Hendrycks and Gimpel 2016, exact, tanh and sigmoid forms), SiLU / Swish
(Ramachandran 2017), HardSwish and HardSigmoid (Howard 2019, MobileNetV3), Mish (Misra 2019).
"""

from __future__ import annotations

import math

import onnx_ir as ir

from studio.graph.edit import float_attribute
from studio.graph.patterns.match import (
    AnyOf,
    Constant,
    Number,
    Op,
    Pattern,
    Product,
    Sum,
    Var,
    close,
)
from studio.graph.patterns.rule import Rule, pattern_finder

X = Var("x")


def _clip(x: Pattern, low: float, high: float) -> Pattern:
    """min(max(x, low), high) however it is written."""
    below = AnyOf(Op("Max", x, Number(low)), *([Op("Relu", x)] if low == 0 else []))
    above = Op("Min", x, Number(high))
    return AnyOf(
        Op("Clip", x, Number(low), Number(high)),
        Op("Min", below, Number(high)),
        Op("Max", above, Number(low)),
    )


def _sigmoid(x: Pattern, minus_x: Pattern) -> Pattern:
    """1 / (1 + exp(-x))."""
    divisor = Sum(Op("Exp", minus_x), offset=1)
    return AnyOf(Op("Sigmoid", x), Op("Reciprocal", divisor), Op("Div", Number(1), divisor))


def _is_relu6_sigmoid(node: ir.Node) -> bool:
    """alpha 1/6 and beta 0.5, as in HardSwish (ONNX's default alpha is 0.2)."""
    slope, middle = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    return close(slope, 1 / 6) and close(middle, 0.5)


_cube = AnyOf(Op("Pow", X, Number(3)), Product(X, X, X), Product(X, Op("Pow", X, Number(2))))
_square = AnyOf(Op("Pow", X, Number(2)), Op("Mul", X, X))
_inner = AnyOf(
    Product(Sum(X, Product(_cube, scale=0.044715)), scale=math.sqrt(2 / math.pi)),
    Product(
        X, Sum(Product(_square, scale=0.044715), offset=1), scale=math.sqrt(2 / math.pi)
    ),
    Sum(
        Product(X, scale=math.sqrt(2 / math.pi)),
        Product(_cube, scale=0.044715 * math.sqrt(2 / math.pi)),
    ),
)  # fmt: skip
GELU = AnyOf(
    Product(X, Sum(Op("Erf", Product(X, scale=math.sqrt(0.5))), offset=1), scale=0.5),
    Product(X, Sum(Product(Op("Erf", Product(X, scale=math.sqrt(0.5))), scale=0.5), offset=0.5)),
    Product(X, Sum(Op("Tanh", _inner), offset=1), scale=0.5),
    Product(X, Sum(Product(Op("Tanh", _inner), scale=0.5), offset=0.5)),
    Product(X, _sigmoid(Product(X, scale=1.702), Product(X, scale=-1.702))),
)

_softplus = AnyOf(
    Op("Log", Sum(Op("Exp", X), offset=1)),
    Sum(
        AnyOf(Op("Relu", X), Op("Max", X, Number(0))),
        Op("Log", Sum(Op("Exp", Product(Op("Abs", X), scale=-1)), offset=1)),
    ),
)
_scaled = Product(X, scale=None)
_torch_softplus = Op(  # linear where exp would overflow, as torch's decomposition has it
    "Where",
    Op("Greater", _scaled, Constant()),
    X,
    Product(Op("Softplus", _scaled), scale=None),
)
SOFTPLUS = AnyOf(_softplus, _torch_softplus)
MISH = Product(X, Op("Tanh", AnyOf(Op("Softplus", X), _softplus)))
SILU = AnyOf(
    Product(X, _sigmoid(Product(X, scale=None), Product(X, scale=None))),
    Op("Div", X, Sum(Op("Exp", Product(X, scale=-1)), offset=1)),
)

_three = _clip(Sum(X, offset=3), 0, 6)
HARD_SIGMOID = AnyOf(
    Product(_three, scale=1 / 6),
    _clip(Sum(Product(X, scale=1 / 6), offset=0.5), 0, 1),
    _clip(Sum(Product(X, scale=0.2), offset=0.5), 0, 1),
)
HARD_SWISH = AnyOf(
    Product(X, _three, scale=1 / 6),
    Product(X, _clip(Sum(Product(X, scale=1 / 6), offset=0.5), 0, 1)),
    Product(X, Op("HardSigmoid", X, where=_is_relu6_sigmoid)),
)


_negative = Op("Relu", Product(X, scale=-1))
PRELU = Sum(
    Op("Relu", X),
    AnyOf(
        Product(_negative, scale=None),
        Product(Op("Mul", _negative, Constant()), scale=None),
    ),
)

ACTIVATIONS = (
    Rule(
        "recognise GELU",
        "Treat the operators of a written-out GELU (erf, tanh or sigmoid form) as one layer.",
        frozenset(["Erf", "Tanh", "Sigmoid", "Exp"]),
        frozenset(["Mul", "Div"]),
        pattern_finder(("GELU", GELU)),
    ),
    Rule(
        "recognise HardSwish",
        "Treat the operators of a written-out HardSwish as one layer.",
        frozenset(["Clip", "Min", "Max", "HardSigmoid"]),
        frozenset(["Mul", "Div"]),
        pattern_finder(("HardSwish", HARD_SWISH)),
    ),
    Rule(
        "recognise Mish",
        "Treat x * tanh(softplus(x)) as one layer.",
        frozenset(["Tanh"]),
        frozenset(["Mul"]),
        pattern_finder(("Mish", MISH)),
    ),
    Rule(
        "recognise SiLU",
        "Treat x * sigmoid(x), also called Swish, as one layer.",
        frozenset(["Sigmoid", "Exp"]),
        frozenset(["Mul", "Div"]),
        pattern_finder(("SiLU", SILU)),
    ),
    Rule(
        "recognise HardSigmoid",
        "Treat clip(x + 3, 0, 6) / 6 as one layer.",
        frozenset(["Clip", "Min", "Max"]),
        frozenset(["Mul", "Div", "Clip", "Min", "Max"]),
        pattern_finder(("HardSigmoid", HARD_SIGMOID)),
    ),
    Rule(
        "recognise Softplus",
        "Treat log(1 + exp(x)) as one layer.",
        frozenset(["Log", "Softplus"]),
        frozenset(["Log", "Add", "Where"]),
        pattern_finder(("Softplus", SOFTPLUS)),
    ),
    Rule(
        "recognise PReLU",
        "Treat relu(x) - a * relu(-x) as one layer.",
        frozenset(["Relu"]),
        frozenset(["Add"]),
        pattern_finder(("PReLU", PRELU)),
    ),
)
