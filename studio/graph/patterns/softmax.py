"""Softmax and LogSoftmax written as exponentials and sums."""

from __future__ import annotations

from studio.graph.patterns.match import AnyOf, Op, Pattern, Var
from studio.graph.patterns.rule import Rule, pattern_finder

X = Var("x")


def _shifted(x: Pattern) -> Pattern:
    """x, or x less its maximum."""
    return AnyOf(Op("Sub", x, Op("ReduceMax", x)), x)


_exp = Op("Exp", _shifted(X))
_total = Op("ReduceSum", _exp)
SOFTMAX = AnyOf(Op("Div", _exp, _total), Op("Mul", _exp, Op("Reciprocal", _total)))
LOG_SOFTMAX = AnyOf(
    Op("Log", Op("Softmax", X)),
    Op("Log", SOFTMAX),
    Op("Sub", _shifted(X), Op("Log", _total)),
    Op("Sub", _shifted(X), Op("ReduceLogSumExp", _shifted(X))),
)

SOFTMAXES = (
    Rule(
        "recognise LogSoftmax",
        "Treat the logarithm of a Softmax as one layer.",
        frozenset(["Log", "ReduceLogSumExp"]),
        frozenset(["Log", "Sub"]),
        pattern_finder(("LogSoftmax", LOG_SOFTMAX)),
    ),
    Rule(
        "recognise Softmax",
        "Treat exp(x) divided by its sum as one Softmax.",
        frozenset(["Exp"]),
        frozenset(["Div", "Mul"]),
        pattern_finder(("Softmax", SOFTMAX)),
    ),
)
