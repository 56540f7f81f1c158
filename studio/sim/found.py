"""As in the file: the quantization a model came with, where the user has not asked for another.

Rows and layers are placed by the target's rules first; what the file says then replaces them. The
settings of a layer (or the defaults) of a kind, `weight_...` or `act_...`, take its tensors of that
kind away from the file again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from studio.graph.model import ModelGraph
from studio.graph.quantized.found import FoundQuantization
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid, Grid
from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.plan import DYNAMIC, FROM_FILE, Layer, Plan, QuantSpec, Role, TensorPlan
from studio.sim.settings import SettingsResolver

AS_IN_FILE = "as in the file"
LEFT_FLOAT = "the file leaves it float"


def uses_file(graph: ModelGraph, config: QuantConfig) -> bool:
    """True if `graph` came quantized and `config` keeps that."""
    return config.source_encodings and bool(graph.found)


def found_spec(found: FoundQuantization) -> QuantSpec:
    """How a tensor is quantized that the file describes so."""
    if found.dynamic:
        return QuantSpec(_grid(found), None, DYNAMIC)
    return QuantSpec(
        _grid(found),
        found.axis,
        FROM_FILE,
        block_size=found.block_size,
        lpbq=found.integer_scale is not None,
        storage_bits=found.storage_bits,
    )


def _grid(found: FoundQuantization) -> Grid | FloatGrid:
    if found.float_format is not None:
        return FloatGrid(found.float_format, found.power_of_two)
    symmetric = False if found.dynamic else found.symmetric
    if symmetric is None:
        middle = 0 if found.signed else 2 ** (found.bits - 1)
        symmetric = bool((found.zero_point == middle).all())
    return Grid(
        found.bits,
        found.signed,
        symmetric,
        found.strict,
        found.power_of_two,
        found.unsigned_symmetric,
    )


def found_encoding(found: FoundQuantization) -> Encoding:
    """The encoding the file gives a tensor."""
    return Encoding(
        _grid(found),
        found.scale,
        found.zero_point,
        found.axis,
        found.block_size,
        found.integer_scale,
    )


def as_found(encoding: Encoding) -> FoundQuantization:
    """What a file says that gives a tensor `encoding`."""
    grid, whole = encoding.grid, encoding.grid if isinstance(encoding.grid, Grid) else None
    return FoundQuantization(
        encoding.scale,
        encoding.zero_point,
        encoding.axis,
        grid.bits,
        whole is None or whole.signed,
        None,
        symmetric=grid.symmetric,
        strict=whole is not None and whole.strict,
        unsigned_symmetric=whole is not None and whole.unsigned_symmetric,
        power_of_two=grid.power_of_two,
        float_format=None if isinstance(grid, Grid) else grid.format,
        block_size=encoding.block_size,
        integer_scale=encoding.integer_scale,
    )


def found_encodings(graph: ModelGraph, plan: Plan) -> dict[str, Encoding]:
    """Encodings of all tensors that `plan` takes from the file."""
    return {
        name: found_encoding(graph.found[name])
        for name, row in plan.tensors.items()
        if row.from_file
    }


def constant_integers(graph: ModelGraph, row: TensorPlan, encoding: Encoding) -> np.ndarray:
    """Integers (int64) of the constant of `row`: those in the file, or its values rounded."""
    found = graph.found.get(row.name)
    if row.from_file and found is not None and found.integers is not None:
        return found.integers
    return encoding.quantize(graph.constant(row.name))


def as_in_file(
    graph: ModelGraph, config: QuantConfig, plan: Plan, settings: SettingsResolver
) -> Plan:
    """`plan`, placed by rules, with the file's quantization where no setting asks for another."""
    return _Overlay(graph, config, plan, settings).run()


class _Overlay:
    """Rows that others are tied to come first, then the tied ones; biases last."""

    def __init__(
        self, graph: ModelGraph, config: QuantConfig, plan: Plan, settings: SettingsResolver
    ) -> None:
        self.graph = graph
        self.config = config
        self.plan = plan
        defaults = config.defaults.given()
        self.asked = {
            layer: {*defaults, *settings.asked(layer)}
            for layer in {row.layer for row in plan.tensors.values()}
        }
        self.rows: dict[str, TensorPlan] = {}

    def run(self) -> Plan:
        for tied in (False, True):
            for row in self.plan.tensors.values():
                if row.role is not Role.BIAS and (row.tied_to is not None) is tied:
                    self.rows[row.name] = self._row(row)
        for row in self.plan.tensors.values():
            if row.role is Role.BIAS:
                self.rows[row.name] = self._bias(row)
        return replace(
            self.plan,
            tensors={name: self.rows[name] for name in self.plan.tensors},
            layers=tuple(self._layer(layer) for layer in self.plan.layers),
        )

    def _edited(self, row: TensorPlan) -> bool:
        if row.role is Role.WEIGHT:
            return any(key.startswith("weight_") for key in self.asked[row.layer])
        own = self.asked[row.layer] - {"act_dynamic"}  # belongs to what the layer reads
        return any(key.startswith("act_") for key in own)

    def _ranges_edited(self, row: TensorPlan) -> bool:
        """True if a layer that reads the tensor says when it is ranged."""
        return any(
            "act_dynamic" in self.asked[layer.name]
            for layer in self.plan.layers
            if row.name in layer.inputs
        )

    def _row(self, row: TensorPlan) -> TensorPlan:
        if row.tied_to is not None:
            root = self.rows[row.tied_to]
            if root.spec is not None and root.reason != AS_IN_FILE:
                return row
        elif self._edited(row):
            return row
        found = self.graph.found.get(row.name)
        if found is not None and found.dynamic and self._ranges_edited(row):
            return replace(row, tied_to=None)  # what it followed is as in the file
        if found is None:
            return row if self.graph.found_partly else _left_float(row)
        tied_to = row.tied_to
        if tied_to is not None and not _alike(found, self.graph.found.get(tied_to)):
            tied_to = None
        spec = found_spec(found)
        return replace(row, spec=spec, reason=AS_IN_FILE, tied_to=tied_to, read_by=None)

    def _bias(self, row: TensorPlan) -> TensorPlan:
        if self.config.bias is not None:
            return self._by_rule(row)
        found = self.graph.found.get(row.name)
        sources = [self.rows[name] for name in row.bias_of or ()]
        if not sources and any(key.startswith("weight_") for key in self.asked[row.layer]):
            return row
        if not all(source.reason in (AS_IN_FILE, LEFT_FLOAT) for source in sources):
            return self._by_rule(row)
        if found is None:
            return self._by_rule(row) if self.graph.found_partly else _left_float(row)
        bias_of = row.bias_of if self._is_product(found, row.bias_of) else None
        return replace(row, spec=found_spec(found), reason=AS_IN_FILE, bias_of=bias_of)

    def _by_rule(self, row: TensorPlan) -> TensorPlan:
        """The bias of a layer whose input or weight follows the settings."""
        if row.spec is None or row.bias_of is None:
            return row
        source, weight = (self.rows[name] for name in row.bias_of)
        for what, needed in (("input", source), ("weight", weight)):
            if needed.spec is None:
                reason = f"stays float because the layer's {what} is not quantized"
                return replace(row, spec=None, reason=reason, bias_of=None)
        shape = self.graph.value(row.name).shape
        assert shape is not None
        assert weight.spec is not None
        floats = any(
            isinstance(item.spec.grid, FloatGrid) for item in (source, weight) if item.spec
        )
        if weight.spec.block_size is not None or floats or source.dynamic:
            reason = "stays float because input and weight have no integer scales for each channel"
            return replace(row, spec=None, reason=reason, bias_of=None)
        axis = None if weight.spec.axis is None else len(shape) - 1
        return replace(row, spec=replace(row.spec, axis=axis))

    def _is_product(self, found: FoundQuantization, bias_of: tuple[str, str] | None) -> bool:
        """True if the file's scale is exactly input scale times weight scale."""
        sources = [self.graph.found.get(name) for name in bias_of or ()]
        if not sources or found.bits != 32 or found.zero_point.any():
            return False
        product = np.ones((), np.float32)
        for source in sources:
            if source is None:
                return False
            product = product * source.scale
        return np.array_equal(product, found.scale)

    # --- layers ---------------------------------------------------------------------------------

    def _layer(self, layer: Layer) -> Layer:
        """`layer` with the settings that its tensors have now."""
        first = self.rows[layer.output]
        weights = [name for name in layer.weights if self._listed(name)]
        weights += [
            row.name
            for row in self.rows.values()
            if row.layer == layer.name and row.role is Role.CONSTANT and row.spec is not None
        ]
        settings, follows = layer.settings, layer.follows
        if follows is not None and first.tied_to is None:
            follows = None
        if layer.weights and layer.editable_weight:
            settings = _shown(settings, "weight", self.rows[layer.weights[0]])
        if layer.editable_act:
            settings = _shown(settings, "act", first)
        if settings.act_dynamic is not None and "act_dynamic" not in self.asked[layer.name]:
            ranged = any(self._as_found_ranged(name) for name in layer.inputs)
            settings = settings.model_copy(update={"act_dynamic": ranged})
        note = "" if first.spec is not None else first.reason
        return replace(
            layer,
            weights=tuple(dict.fromkeys(weights)),
            settings=settings,
            follows=follows,
            note=note,
        )

    def _as_found_ranged(self, name: str) -> bool:
        return self.rows[name].dynamic and self.rows[name].reason == AS_IN_FILE

    def _listed(self, name: str) -> bool:
        row = self.rows[name]
        return row.role is Role.WEIGHT or row.spec is not None


def _left_float(row: TensorPlan) -> TensorPlan:
    if row.spec is None:
        return row
    return replace(row, spec=None, reason=LEFT_FLOAT, tied_to=None, bias_of=None)


def _alike(found: FoundQuantization, other: FoundQuantization | None) -> bool:
    return (
        other is not None
        and not found.dynamic
        and not other.dynamic
        and found_encoding(found) == found_encoding(other)
        and found.storage_bits == other.storage_bits
    )


def _shown(settings: LayerSettings, kind: str, row: TensorPlan) -> LayerSettings:
    """`settings` as the row has them, where the file decided."""
    if row.spec is None:
        off = {f"{kind}_enabled": False} if row.reason == LEFT_FLOAT else {}
        return settings.model_copy(update=off)
    if not row.from_file:
        return settings
    given: Mapping[str, object] = {
        f"{kind}_format": "int" if isinstance(row.spec.grid, Grid) else row.spec.grid.format,
        f"{kind}_bits": row.spec.grid.bits,
        f"{kind}_symmetric": row.spec.grid.symmetric,
        f"{kind}_enabled": True,
        **(_granularity(row.spec) if kind == "weight" else {}),
    }
    return settings.model_copy(update=dict(given))


def _granularity(spec: QuantSpec) -> dict[str, object]:
    return {
        "weight_per_channel": spec.axis is not None,
        "weight_block_size": spec.block_size or 0,
        "weight_lpbq": spec.lpbq,
    }
