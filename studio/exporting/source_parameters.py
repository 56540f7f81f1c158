"""Where the parameters of the source model are in the prepared graph.

A parameter is a floating-point constant of the graph as it was captured, under the name the source
has for it. Preparation may have transposed it, folded batch normalization into it, or merged it
with others; what is said here holds only where the prepared numbers prove it. Batch normalization
is taken out again (`unfolded_norms`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from studio.exporting.parameter_views import (
    SAME_ELEMENTS,
    View,
    captured_numbers,
    fill_of,
    parameter_views,
)
from studio.exporting.unfolded_norms import (
    Layer,
    Norm,
    Unfolded,
    from_layer_before,
    from_layer_behind,
    from_scale_and_shift,
)
from studio.graph.edit import array_of, float_attribute, input_of, is_op
from studio.graph.model import ModelGraph
from studio.sim import op_rules

Numbers = Callable[[str], np.ndarray]
"""A prepared constant as it is now, by name."""


@dataclass(frozen=True)
class Part:
    """What a parameter of the source has to be: `of` the prepared constants, in any shape of as
    many elements; `constant` is the one whose rounding it takes (None: it is not rounded)."""

    of: Callable[[Numbers], np.ndarray]
    constant: str | None = None


@dataclass(frozen=True)
class Correspondence:
    """`parts`: parameter -> where its numbers are now. `folded`: batch normalization (its node in
    the source) -> the layer that holds it. `lost`: parameter -> why it has no part."""

    parts: Mapping[str, Part]
    folded: Mapping[str, str]
    lost: Mapping[str, str]


def source_parameters(graph: ModelGraph) -> Correspondence:
    """Every floating-point parameter of the source of `graph`, in one of `parts` and `lost`."""
    return _Search(graph).run()


class _Search:
    def __init__(self, graph: ModelGraph) -> None:
        self.graph = graph
        self.captured = graph.captured or graph
        self.views = parameter_views(self.captured)
        self.parts: dict[str, Part] = {}
        self.folded: dict[str, str] = {}
        self.lost: dict[str, str] = {}

    def run(self) -> Correspondence:
        for node in self.captured.nodes():
            if is_op(node, "BatchNormalization"):
                self._batch_norm(node)
        for name in self.captured.initializers:
            if name not in self.parts and self._is_parameter(name):
                self._plain(name)
        return Correspondence(self.parts, self.folded, self.lost)

    def _is_parameter(self, name: str) -> bool:
        view = self.views.get(name)
        return view is not None and view.parameter == name

    def _plain(self, name: str) -> None:
        """A parameter that is in the prepared graph as it was, maybe in another shape."""
        own = self.captured.constant(name)
        changed = False
        for value, view in self.views.items():
            if view.parameter != name or value not in self.graph.initializers:
                continue
            now = self.graph.constant(value)
            if now.size == own.size and np.array_equal(view.back(now), own, equal_nan=True):
                self.parts[name] = _the_constant(value, view)
                return
            changed = True
        if changed:
            self.lost[name] = "preparation merged something else into it"
            return
        twin = self._equal(own)
        if twin is not None:
            self.parts[name] = Part(lambda now: now(twin), twin)
            return
        self.lost[name] = "preparation computed other constants of it"

    def _equal(self, own: np.ndarray) -> str | None:
        """A prepared constant that is no parameter's view and has the same numbers, or the one that
        equal weights were merged into."""
        for name in self.graph.initializers:
            value = self.graph.value(name)
            if value.dtype is None or not value.dtype.is_floating_point() or own.size < 2:
                continue
            array = self.graph.constant(name)
            same = array.dtype == own.dtype and array.size == own.size
            same = same and (name not in self.views or array.shape == own.shape)
            if same and np.array_equal(array.reshape(own.shape), own):
                return name
        return None

    # --- batch normalization --------------------------------------------------------------------

    def _batch_norm(self, node: ir.Node) -> None:
        """Parts of a batch normalization and the layer that holds it now, if that can be proved."""
        names = [value.name or "" if value is not None else "" for value in node.inputs[1:5]]
        arrays = [self._filled(value) for value in node.inputs[1:5]]
        if len(names) < 4 or any(array is None for array in arrays):
            return
        if any(n in self.graph.initializers and n in self.views for n in names[2:]):
            return  # it is still there
        used = [use for name in names[2:] for use in self.captured.value(name).uses()]
        if any(use.node is not node for use in used):
            return
        gamma, beta, mean, var = (np.asarray(a, np.float64).reshape(-1) for a in arrays)
        gamma, beta = np.broadcast_to(gamma, mean.shape), np.broadcast_to(beta, mean.shape)
        norm = Norm(gamma, beta, mean, var, float_attribute(node, "epsilon", 1e-5))
        own = _Names(*(name if self._is_parameter(name) else "" for name in names))
        if not (own.mean and own.var) or (not own.gamma and (gamma != 1).any()):
            return
        folded = self._folded_behind(node, norm, own) or self._folded_before(node, norm, own)
        if not folded:
            self._split(node, norm, own)

    def _folded_behind(self, bn: ir.Node, norm: Norm, own: _Names) -> bool:
        value = bn.inputs[0]
        layer = value.producer() if value is not None else None
        while layer is not None and layer.op_type in (*SAME_ELEMENTS, "Transpose"):
            value = layer.inputs[0]
            layer = value.producer() if value is not None else None
        found = self._layer(layer)
        if found is None:
            return False
        axis = op_rules.channel_axis(found.now)
        old, new = found.old_weight, found.new_weight
        if axis is None or old.shape != new.shape or old.shape[axis] != norm.mean.size:
            return False
        plain = Layer(old, np.broadcast_to(found.old_bias, norm.mean.shape), axis)
        if not _close(new, old * plain.along(norm.scale)):
            return False
        if not _close(found.new_bias, found.old_bias * norm.scale + norm.shift):
            return False

        def taken_out(now: Numbers) -> Unfolded:
            return from_layer_before(found.as_now(now, plain), plain, norm, affine=own.affine)

        changed = own.beta if own.affine else own.mean
        self.parts[changed] = Part(
            lambda now: taken_out(now).beta if own.affine else taken_out(now).mean,
            found.bias or None,
        )
        self._accept(bn, found, own, taken_out)
        return True

    def _folded_before(self, bn: ir.Node, norm: Norm, own: _Names) -> bool:
        uses = list(bn.outputs[0].uses())
        found = self._layer(uses[0].node) if len(uses) == 1 else None
        if found is None or not found.bias_parameter:
            return False
        if not found.old_bias.any() and not self.graph.source.is_module:
            return False  # the bias may be one that an exporter put there
        old, new = found.old_weight, found.new_weight
        out = op_rules.channel_axis(found.now)
        if out is None or old.ndim < 2 or old.shape[1 - out] != norm.mean.size:
            return False  # groups: nothing was folded from before there, or the rule differs
        plain = Layer(old, found.old_bias, 1 - out)
        others = tuple(axis for axis in range(old.ndim) if axis != out)
        added = (old * plain.along(norm.shift)).sum(axis=others)
        if not _close(new, old * plain.along(norm.scale)):
            return False
        if not _close(found.new_bias, found.old_bias + added):
            return False

        def taken_out(now: Numbers) -> Unfolded:
            return from_layer_behind(found.as_now(now, plain), plain, norm, affine=own.affine)

        self.parts[found.bias_parameter] = Part(lambda now: taken_out(now).bias, found.bias or None)
        self._accept(bn, found, own, taken_out)
        return True

    def _accept(
        self, bn: ir.Node, found: _Layer, own: _Names, taken_out: Callable[[Numbers], Unfolded]
    ) -> None:
        """The parts that both ways of folding have in common; what has none yet stays."""
        view = self.views[found.weight]
        weight = Part(lambda now: view.back(taken_out(now).weight), found.weight)
        self.parts[view.parameter] = weight
        if own.gamma:
            self.parts[own.gamma] = Part(lambda now: taken_out(now).gamma)
        for name in (own.beta, own.mean, own.var, found.bias_parameter):
            if name and name not in self.parts:
                self.parts[name] = self._as_it_was(name)
        self.folded[_module(own, bn)] = view.parameter

    def _as_it_was(self, name: str) -> Part:
        return Part(lambda _: self.captured.constant(name))

    def _split(self, bn: ir.Node, norm: Norm, own: _Names) -> None:
        """Scale and shift of their own, in the place of the batch normalization."""
        name = bn.outputs[0].name or ""
        add = self.graph.value(name).producer() if self.graph.has_value(name) else None
        mul = next(
            (
                v.producer()
                for v in (add.inputs if is_op(add, "Add") and add else ())
                if v is not None and v.producer()
            ),
            None,
        )
        if add is None or not is_op(mul, "Mul") or mul is None:
            return
        constants = []
        for node, expected in ((mul, norm.scale), (add, norm.shift)):
            matching = [
                value.name or ""
                for value in filter(None, node.inputs)
                if (array := array_of(value)) is not None and _close(array.reshape(-1), expected)
            ]
            constants += matching[:1]
        if len(constants) != 2 or not own.affine:
            return
        by, plus = constants

        def back(now: Numbers) -> Norm:
            return from_scale_and_shift(_flat(now(by)), _flat(now(plus)), norm)

        self.parts[own.gamma] = Part(lambda now: back(now).gamma, by)
        self.parts[own.beta] = Part(lambda now: back(now).beta, plus)
        for name in (own.mean, own.var):
            self.parts[name] = self._as_it_was(name)
        self.folded[_module(own, bn)] = ""

    def _filled(self, value: ir.Value | None) -> np.ndarray | None:
        """A captured constant, or one that the exporter computes by filling."""
        array = array_of(value)
        fill = fill_of(value) if array is None and value is not None else None
        return array if fill is None else np.asarray(fill)

    def _numbers_of(self, value: ir.Value) -> np.ndarray | None:
        """A captured constant, or the parameter that a captured tensor is a view of."""
        view = self.views.get(value.name or "")
        return array_of(value) if view is None else self.captured.constant(view.parameter)

    def _layer(self, node: ir.Node | None) -> _Layer | None:
        """The captured layer `node` with weights (a MatMul's Add counts), and what it is now."""
        if node is None:
            return None
        extra = None
        if is_op(node, "Add"):
            products = [v.producer() for v in node.inputs if v is not None]
            matmul = next((n for n in products if is_op(n, "MatMul")), None)
            constants = [v for v in node.inputs if array_of(v) is not None]
            if matmul is None or not constants:
                return None
            node, extra = matmul, constants[0]
        if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
            return None
        weight, bias = node.inputs[1], extra or input_of(node, 2)
        name = weight.name or "" if weight is not None else ""
        if name not in self.views or name not in self.graph.initializers:
            return None
        readers = list(self.graph.value(name).uses())
        old = captured_numbers(self.captured, name, self.views)
        if len(readers) != 1 or old is None:
            return None
        now = readers[0].node
        new_bias = input_of(now, 2)
        if new_bias is None and is_op(now, "MatMul"):
            uses = list(now.outputs[0].uses())
            adds = [use.node for use in uses if is_op(use.node, "Add")]
            found = [v for add in adds for v in add.inputs if array_of(v) is not None]
            new_bias = found[0] if found else None
        before = None if bias is None else self._numbers_of(bias)
        parameter = ""
        if bias is not None and (bias.name or "") in self.views:
            parameter = self.views[bias.name or ""].parameter
        elif bias is not None and (before is None or before.any()):
            before = array_of(bias)
            if before is None and fill_of(bias) != 0:
                return None
        after = array_of(new_bias)
        return _Layer(
            now,
            name,
            old,
            self.graph.constant(name).astype(np.float64),
            (new_bias.name or "") if new_bias is not None else "",
            parameter,
            np.zeros(1) if before is None else _flat(before),
            np.zeros(1) if after is None else _flat(after),
        )


@dataclass(frozen=True)
class _Layer:
    """A layer with weights: its node `now`, its constants there by name, old and new numbers."""

    now: ir.Node
    weight: str
    old_weight: np.ndarray
    new_weight: np.ndarray
    bias: str
    bias_parameter: str
    old_bias: np.ndarray
    new_bias: np.ndarray

    def as_now(self, now: Numbers, own: Layer) -> Layer:
        """The layer `own` with its constants as they are now."""
        bias = _flat(now(self.bias)) if self.bias else self.new_bias
        return Layer(now(self.weight).astype(np.float64), bias, own.axis)


@dataclass(frozen=True)
class _Names:
    """Parameters of a batch normalization ("" for what is no parameter)."""

    gamma: str
    beta: str
    mean: str
    var: str

    @property
    def affine(self) -> bool:
        return bool(self.gamma and self.beta)


def _the_constant(name: str, view: View) -> Part:
    return Part(lambda now: view.back(now(name)), name)


def _module(own: _Names, bn: ir.Node) -> str:
    """The module of the batch normalization: what its parameters' names begin with."""
    return own.mean.rpartition(".")[0] or bn.name or own.mean


def _flat(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64).reshape(-1)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal to within float32's rounding."""
    largest = float(np.abs(expected).max(initial=1e-30))
    try:
        return bool(np.allclose(found, expected, rtol=1e-5, atol=1e-6 * largest))
    except ValueError:
        return False
