"""A little language for subgraphs: patterns are matched backwards from a tensor.

    x = Var("x")
    silu = Product(x, Op("Sigmoid", x))

`Product` and `Sum` match any association and order of their operands and any way of writing the
scalar factor (`Mul(x, 0.5)`, `Div(x, 2)`): one pattern covers the spellings of several exporters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import onnx_ir as ir

from studio.graph.edit import array_of, input_of, is_op
from studio.graph.model import is_constant

COMMUTATIVE = frozenset(["Add", "Mul", "Max", "Min"])
TOLERANCE = 2e-3  # of constants: exporters round sqrt(2) and its kin


@dataclass(frozen=True)
class Found:
    """What a pattern has matched so far: the tensors of its variables, and the nodes."""

    values: tuple[tuple[str, ir.Value], ...] = ()
    nodes: frozenset[ir.Node] = frozenset()

    def value(self, name: str) -> ir.Value | None:
        """The tensor that the variable `name` stands for."""
        return next((value for known, value in self.values if known == name), None)

    def bind(self, name: str, value: ir.Value) -> Found:
        return Found((*self.values, (name, value)), self.nodes)

    def with_node(self, node: ir.Node) -> Found:
        return Found(self.values, self.nodes | {node})


class Pattern(ABC):
    """Something a tensor can match, possibly in several ways."""

    @abstractmethod
    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        """All ways to match `value`, each `found` with more in it."""


@dataclass(frozen=True)
class Var(Pattern):
    """Any tensor that is computed or fed; the same one wherever the name stands."""

    name: str

    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        known = found.value(self.name)
        if known is value:
            yield found
        elif known is None and not is_constant(value):
            yield found.bind(self.name, value)


@dataclass(frozen=True)
class Constant(Pattern):
    """A constant of any shape and content."""

    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        if is_constant(value):
            yield found


@dataclass(frozen=True)
class Anything(Pattern):
    """Whatever it is, a shape for example; not part of the match."""

    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        yield found


@dataclass(frozen=True)
class Number(Pattern):
    """A constant of a single element, of about this value."""

    number: float

    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        number = scalar(value)
        if number is not None and close(number, self.number):
            yield found


@dataclass(frozen=True)
class Epsilon(Pattern):
    """A small constant that keeps a divisor from being zero."""

    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        number = scalar(value)
        if number is not None and 0 <= number <= 0.1:
            yield found


class Op(Pattern):
    """The result of an operator of type `op`; operands beyond those given must be constants."""

    def __init__(
        self, op: str, *operands: Pattern, where: Callable[[ir.Node], bool] = lambda node: True
    ) -> None:
        self.op = op
        self.operands = operands
        self.where = where

    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        node = value.producer()
        if node is None or not is_op(node, self.op) or not self.where(node):
            return
        count = len(self.operands)
        inputs = [input_of(node, index) for index in range(max(count, len(node.inputs)))]
        if any(value is None for value in inputs[:count]):
            return
        if any(value is not None and not is_constant(value) for value in inputs[count:]):
            return
        orders = [self.operands]
        if self.op in COMMUTATIVE and count == 2:
            orders.append(self.operands[::-1])
        for operands in orders:
            yield from _match_all(operands, inputs, found.with_node(node))


def _match_all(
    operands: tuple[Pattern, ...], values: list[ir.Value | None], found: Found
) -> Iterator[Found]:
    if not operands:
        yield found
        return
    assert values[0] is not None
    for more in operands[0].matches(values[0], found):
        yield from _match_all(operands[1:], values[1:], more)


class AnyOf(Pattern):
    """One of several spellings, the first that fits first."""

    def __init__(self, *patterns: Pattern) -> None:
        self.patterns = patterns

    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        for pattern in self.patterns:
            yield from pattern.matches(value, found)


class Product(Pattern):
    """`scale` times all `factors`, in any order and association; scale None: any number."""

    def __init__(self, *factors: Pattern, scale: float | None = 1.0) -> None:
        self.factors = factors
        self.scale = scale

    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        for more, scale in _products(value, self.factors, found):
            if self.scale is None or close(scale, self.scale):
                yield more


def _products(
    value: ir.Value, factors: tuple[Pattern, ...], found: Found
) -> Iterator[tuple[Found, float]]:
    """(what matched, s) with value = s x product of factors."""
    if len(factors) == 1:
        for more in factors[0].matches(value, found):
            yield more, 1.0
    node = value.producer()
    if node is None:
        return
    inside = found.with_node(node)
    if is_op(node, "Neg"):
        yield from _scaled(node.inputs[0], factors, inside, -1.0)
    elif is_op(node, "Div"):
        number = scalar(node.inputs[1])
        if number:
            yield from _scaled(node.inputs[0], factors, inside, 1.0 / number)
    elif is_op(node, "Mul"):
        first, second = node.inputs
        for one, other in ((first, second), (second, first)):
            number = scalar(other)
            if number is not None:
                yield from _scaled(one, factors, inside, number)
        yield from _split(first, second, factors, inside)


def _scaled(
    value: ir.Value | None, factors: tuple[Pattern, ...], found: Found, number: float
) -> Iterator[tuple[Found, float]]:
    if value is not None:
        for more, scale in _products(value, factors, found):
            yield more, scale * number


def _split(
    first: ir.Value | None, second: ir.Value | None, factors: tuple[Pattern, ...], found: Found
) -> Iterator[tuple[Found, float]]:
    if first is None or second is None:
        return
    everything = range(len(factors))
    for size in range(1, len(factors)):
        for chosen in combinations(everything, size):
            left = tuple(factors[index] for index in chosen)
            right = tuple(factors[index] for index in everything if index not in chosen)
            sides = [(first, left), (second, right)]
            sides.sort(key=lambda side: isinstance(side[1][0], Var))  # what fails soonest first
            for more, scale in _products(*sides[0], found):
                for most, other in _products(*sides[1], more):
                    yield most, scale * other


class Sum(Pattern):
    """`offset` plus all `terms` (one or two), in any order."""

    def __init__(self, *terms: Pattern, offset: float | None = 0.0) -> None:
        self.terms = terms
        self.offset = offset

    def matches(self, value: ir.Value, found: Found) -> Iterator[Found]:
        for more, offset in _sums(value, self.terms, found):
            if self.offset is None or close(offset, self.offset):
                yield more


def _sums(
    value: ir.Value, terms: tuple[Pattern, ...], found: Found
) -> Iterator[tuple[Found, float]]:
    """(what matched, c) with value = c + sum of terms."""
    if len(terms) == 1:
        for more in terms[0].matches(value, found):
            yield more, 0.0
    node = value.producer()
    if node is None or not is_op(node, "Add", "Sub"):
        return
    inside = found.with_node(node)
    first, second = node.inputs
    sign = 1.0 if is_op(node, "Add") else -1.0
    pairs = [(first, second)] + ([(second, first)] if sign > 0 else [])
    for one, other in pairs:
        number = scalar(other)
        if number is not None and one is not None:
            for more, offset in _sums(one, terms, inside):
                yield more, offset + sign * number
    if len(terms) == 2 and sign > 0:
        for one, other in pairs:
            if one is not None and other is not None:
                for more in _match_all(terms, [one, other], inside):
                    yield more, 0.0


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of a single element, else None."""
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    if value.const_value.size != 1:
        return None
    array = array_of(value)
    return None if array is None else float(array.reshape(-1)[0])


def close(number: float, wanted: float) -> bool:
    """True if two numbers agree within rounding of a few digits."""
    return math.isclose(number, wanted, rel_tol=TOLERANCE, abs_tol=1e-9)
