"""Normalisations that exporters write as several operators.

LayerNorm (Ba 2016), RMSNorm (Zhang and Sennrich 2019), GroupNorm (Wu and He 2018), InstanceNorm
(Ulyanov 2016), and division by the L2 norm. The weights that follow are taken in.
"""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import array_of, input_of, ints_attribute, is_op, only_consumer
from studio.graph.model import is_constant
from studio.graph.patterns.match import (
    AnyOf,
    Anything,
    Constant,
    Epsilon,
    Found,
    Number,
    Op,
    Pattern,
    Product,
    Sum,
    Var,
)
from studio.graph.patterns.rule import Group, Rule, is_closed

X = Var("x")


def _mean(x: Pattern) -> Pattern:
    return AnyOf(Op("ReduceMean", x), Op("GlobalAveragePool", x))


def _squared(x: Pattern) -> Pattern:
    return AnyOf(Op("Mul", x, x), Op("Pow", x, Number(2)))


def _mean_square(x: Pattern) -> Pattern:
    """Also as a sum divided by the count, and the unbiased estimate of torch.var."""
    total = AnyOf(Op("ReduceSum", _squared(x)), Op("ReduceSumSquare", x))
    counted = AnyOf(Op("Div", total, Constant()), Op("Mul", total, Constant()))
    return AnyOf(Product(_mean(_squared(x)), scale=None), counted)


def _root(square: Pattern) -> Pattern:
    """sqrt(square + epsilon), the epsilon inside, outside or absent."""
    plain = Op("Sqrt", square)
    inside = Op("Sqrt", AnyOf(Op("Add", square, Epsilon()), Op("Max", square, Epsilon())))
    return AnyOf(inside, plain, Op("Add", plain, Epsilon()))


def _inverse_root(square: Pattern) -> Pattern:
    inside = AnyOf(Op("Add", square, Epsilon()), square)
    return AnyOf(
        Op("Reciprocal", _root(square)),
        Op("Div", Number(1), _root(square)),
        Op("Pow", inside, Number(-0.5)),
    )


def _divided(x: Pattern, square: Pattern) -> Pattern:
    """x / sqrt(square), also with the weight multiplied to either side."""
    weighted = AnyOf(x, Op("Mul", x, Constant()))
    return AnyOf(
        Op("Div", weighted, _root(square)),
        Op("Mul", x, _inverse_root(square)),
        Op("Mul", x, Op("Mul", _inverse_root(square), Constant())),
    )


_centred = Op("Sub", X, _mean(X))
_inverse = _inverse_root(_mean_square(_centred))
_factor = AnyOf(Op("Mul", _inverse, Constant()), _inverse)
LAYER_NORM = AnyOf(
    _divided(_centred, _mean_square(_centred)),
    # TensorFlow: x * s + (bias - mean * s)
    Op("Add", Op("Mul", X, _factor), Op("Sub", Constant(), Op("Mul", _mean(X), _factor))),
)
RMS_NORM = _divided(X, _mean_square(X))

_sum_of_squares = AnyOf(Op("ReduceSum", _squared(X)), Op("ReduceSumSquare", X))
_norm = AnyOf(Op("ReduceL2", X), _root(_sum_of_squares), Sum(Op("ReduceL2", X), offset=None))
_floored = AnyOf(_norm, Op("Clip", _norm, Epsilon()), Op("Max", _norm, Epsilon()))
L2_NORM = AnyOf(
    Op("Div", X, AnyOf(_floored, Op("Expand", _floored, Anything()))),
    Op("Mul", X, _inverse_root(_sum_of_squares)),
    Op("Mul", X, Op("Reciprocal", _floored)),
)

_grouped = Op("Reshape", Op("InstanceNormalization", Op("Reshape", X, Anything())), Anything())


def find_layer_norm(node: ir.Node) -> Group | None:
    """LayerNorm; InstanceNorm where the mean is taken over all positions of an image."""
    for found in LAYER_NORM.matches(node.outputs[0], Found()):
        reductions = [n for n in found.nodes if is_op(n, "ReduceMean", "ReduceSum")]
        axes = _axes(reductions[0]) if reductions else None
        pooled = any(is_op(n, "GlobalAveragePool") for n in found.nodes)
        source = found.value("x")
        rank = len(source.shape) if source is not None and source.shape is not None else 0
        spatial = rank > 3 and (pooled or axes == list(range(2, rank)))
        count = 1 if axes is None else len(axes)
        group = _with_weights("InstanceNorm" if spatial else "LayerNorm", found, node, count)
        if group is not None:
            return group
    return None


def find_rms_norm(node: ir.Node) -> Group | None:
    for found in RMS_NORM.matches(node.outputs[0], Found()):
        group = _with_weights("RMSNorm", found, node, 1)
        if group is not None:
            return group
    return None


def find_group_norm(node: ir.Node) -> Group | None:
    """Reshape to groups, InstanceNormalization, Reshape back, weight and bias."""
    for found in _grouped.matches(node.outputs[0], Found()):
        source, result = found.value("x"), node.outputs[0]
        if source is None or not _same_shape(source.shape, result.shape):
            continue
        group = _with_weights("GroupNorm", found, node, 1)
        if group is not None:
            return group
    return None


def _same_shape(first: ir.Shape | None, second: ir.Shape | None) -> bool:
    """As far as the sizes are known."""
    if first is None or second is None or len(first) != len(second):
        return False
    pairs = zip(first, second, strict=True)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def find_l2_norm(node: ir.Node) -> Group | None:
    for found in L2_NORM.matches(node.outputs[0], Found()):
        group = Group("L2 norm", found.nodes, node)
        if is_closed(group):
            return group
    return None


def _axes(node: ir.Node) -> list[int] | None:
    """Axes of a reduction, counted from the front where the rank is known."""
    axes = ints_attribute(node, "axes")
    constant = array_of(input_of(node, 1))
    if axes is None and constant is not None:
        axes = [int(axis) for axis in constant.reshape(-1)]
    source = input_of(node, 0)
    if axes is None or source is None or source.shape is None:
        return axes
    return sorted(axis % len(source.shape) for axis in axes)


def _with_weights(kind: str, found: Found, last: ir.Node, axes: int) -> Group | None:
    """The match with the constants that are multiplied and added behind it, if it is closed."""
    nodes = set(found.nodes)
    if not is_closed(Group(kind, frozenset(nodes), last)):
        return None
    for op in ("Mul", "Add"):
        follower = only_consumer(last.outputs[0])
        if follower is None or not is_op(follower, op):
            continue
        others = [value for value in follower.inputs if value is not last.outputs[0]]
        if len(others) == 1 and _is_affine(others[0], axes):
            nodes.add(follower)
            last = follower
    return Group(kind, frozenset(nodes), last)


def _is_affine(value: ir.Value | None, axes: int) -> bool:
    """True for a constant of several numbers that varies along `axes` axes at most."""
    if value is None or not is_constant(value) or value.shape is None:
        return False
    return 1 <= sum(size != 1 for size in value.shape) <= axes


NORMALIZATIONS = (
    Rule(
        "recognise LayerNorm",
        "Treat the operators of a written-out LayerNorm, with its weights, as one layer.",
        frozenset(["Sqrt", "Pow"]),
        frozenset(["Div", "Mul", "Add"]),
        find_layer_norm,
    ),
    Rule(
        "recognise RMSNorm",
        "Treat x / sqrt(mean(x²)), with its weight, as one layer.",
        frozenset(["Sqrt", "Pow"]),
        frozenset(["Div", "Mul"]),
        find_rms_norm,
    ),
    Rule(
        "recognise GroupNorm",
        "Treat InstanceNormalization between two Reshape operators as one GroupNorm.",
        frozenset(["InstanceNormalization"]),
        frozenset(["Reshape"]),
        find_group_norm,
    ),
    Rule(
        "recognise L2 norm",
        "Treat division by the Euclidean norm as one layer.",
        frozenset(["Sqrt", "ReduceL2"]),
        frozenset(["Div", "Mul"]),
        find_l2_norm,
    ),
)
