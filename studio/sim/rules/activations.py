"""Rows of inputs and activations."""

from __future__ import annotations

import onnx_ir as ir

from studio.quant.grid import FloatGrid
from studio.sim.fusion import FusedGroup
from studio.sim.plan import DYNAMIC, QuantSpec, Role, TensorPlan
from studio.sim.rules.context import Context, first_input, not_quantizable
from studio.sim.rules.grids import activation_grid
from studio.sim.rules.names import is_one_of, names_of, unit_names
from studio.sim.rules.readers import Readers, reached
from studio.sim.settings import ResolvedSettings


class Activations:
    """Decides the rows of tensors that data flow through."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.readers = Readers(context)

    def place_input(self, value: ir.Value, layer: str, settings: ResolvedSettings) -> TensorPlan:
        """Put the row of a model input."""
        if not self.context.target.model_inputs and not not_quantizable(value):
            reason = f"model inputs stay float on {self.context.target.title}"
            return self.context.leave(value.name or "", Role.INPUT, layer, reason)
        return self._own(value, Role.INPUT, layer, settings, frozenset())

    def place_output(
        self, group: FusedGroup, value: ir.Value, settings: ResolvedSettings
    ) -> TensorPlan:
        """Put the row of `value`, an output of the group."""
        name, target = value.name or "", self.context.target
        reason = not_quantizable(value)
        if not reason and name in self.followers(group):
            row = self._follow(group.nodes[-1], value, group.name)
            if row is not None:
                return row
        reason = reason or self._never(group)
        if reason:
            return self.context.leave(name, Role.ACTIVATION, group.name, reason)
        if not target.model_outputs and value.is_graph_output():
            reason = f"model outputs stay float on {target.title}"
            return self.context.leave(name, Role.ACTIVATION, group.name, reason)
        made_by = unit_names(group.units[-1])
        return self._own(value, Role.ACTIVATION, group.name, settings, made_by)

    def can_quantize_input(self, value: ir.Value) -> bool:
        """True if settings decide about the model input `value`."""
        if not_quantizable(value) or not self.context.target.model_inputs:
            return False
        return self._is_read(value)

    def _is_read(self, value: ir.Value) -> bool:
        rounded = self.readers.rounded(value)
        return rounded is None or bool(rounded)

    def can_quantize(self, group: FusedGroup, value: ir.Value) -> bool:
        """True if settings decide about `value`, an output of the group."""
        if not_quantizable(value) or self._never(group):
            return False
        return self._is_read(value)

    def followers(self, group: FusedGroup) -> set[str | None]:
        """Outputs of the group that use the encoding of its input, where that has one."""
        target, last = self.context.target, group.units[-1]
        if target.quantized_inputs is not None:
            return set()
        if not is_one_of(last.label, target.follow_ops.exact | target.follow_ops.within_range):
            return set()
        return {value.name for value in last.last.outputs if not not_quantizable(value)}

    def _never(self, group: FusedGroup) -> str:
        rules = self.context.target.float_ops
        label = group.units[-1].label
        return next((rules[name] for name in sorted(names_of(label)) if name in rules), "")

    def _own(
        self,
        value: ir.Value,
        role: Role,
        layer: str,
        settings: ResolvedSettings,
        made_by: frozenset[str],
    ) -> TensorPlan:
        """Give `value` an encoding of its own, if anybody reads it rounded."""
        name = value.name or ""
        reason = not_quantizable(value)
        read_by = None if reason else self.readers.rounded(value)
        if not reason and read_by is not None and not read_by:
            reason = self.readers.why_float(value)
        if not reason and not settings.values.act_enabled:
            reason = f"switched off: {settings.origin('act_enabled')}"
        if reason:
            return self.context.leave(name, role, layer, reason)
        settings = self._for_operands(value, settings)
        spec = self._spec(settings, made_by)
        dynamic = self.readers.dynamic(value)
        if dynamic:
            spec = QuantSpec(spec.grid, None, DYNAMIC)
            reason = f"ranged anew at every inference for {_listed(dynamic)}"
            return self.context.put(
                TensorPlan(name, role, layer, spec, reason, read_by=dynamic | (read_by or dynamic))
            )
        shown = "act_bits" if settings.values.act_format == "int" else "act_format"
        reason = settings.origin(shown)
        if read_by is not None:
            reason += f"; rounded for {_listed(read_by)}"
        return self.context.put(TensorPlan(name, role, layer, spec, reason, read_by=read_by))

    def _spec(self, settings: ResolvedSettings, made_by: frozenset[str]) -> QuantSpec:
        values = settings.values
        assert values.act_observer is not None
        assert values.act_percentile is not None
        grid = activation_grid(values, self.context.target)
        fixed = None if isinstance(grid, FloatGrid) else self._fixed_range(made_by)
        return QuantSpec(
            grid, None, values.act_observer, percentile=values.act_percentile, fixed_range=fixed
        )

    def _fixed_range(self, made_by: frozenset[str]) -> tuple[float, float] | None:
        for op, (low, high) in self.context.target.fixed_ranges.items():
            if op in made_by and low is not None and high is not None:
                return low, high
        return None

    def _for_operands(self, value: ir.Value, settings: ResolvedSettings) -> ResolvedSettings:
        """`settings` with what the target wants of an input that reads `value`."""
        target = self.context.target
        if not target.operands:
            return settings
        for node, slot in reached(self.context, value):
            unit = self.context.unit_of.get(node)
            whole = unit is not None and bool(unit.kind) and unit.kind != "Linear"
            slot = 0 if whole else slot
            names = unit_names(unit) if unit is not None else names_of(node.op_type)
            for op, positions in target.operands.items():
                if op in names and slot in positions:
                    origin = f"target {target.name}: input {slot} of {op} {node.name}"
                    settings = settings.under_user(positions[slot], origin)
        return settings

    def _follow(self, node: ir.Node, value: ir.Value, layer: str) -> TensorPlan | None:
        """Put the row of an output that uses its input's encoding; None where that has none of its
        own for all readers, or where `value` itself is ranged at every inference."""
        name, source = value.name or "", first_input(node)
        origin = self.context.rows.get(source)
        if origin is None or origin.spec is None:
            reason = f"follows {source}, which is not quantized"
            if self.readers.dynamic(value):
                return None
            return self.context.leave(name, Role.ACTIVATION, layer, reason)
        if origin.dynamic or self.readers.dynamic(value):
            return None
        if origin.spec.axis is not None:
            reason = f"follows {source}, which is quantized per channel"
            return self.context.leave(name, Role.ACTIVATION, layer, reason)
        root = origin.tied_to or source
        moves = is_one_of(node.op_type, self.context.target.follow_ops.exact)
        verb = "only moves values" if moves else "stays in its input's range"
        reason = f"{node.op_type} {verb}: uses the encoding of {root}"
        return self.context.put(
            TensorPlan(name, Role.ACTIVATION, layer, origin.spec, reason, tied_to=root)
        )


def _listed(nodes: frozenset[str], shown: int = 3) -> str:
    names = sorted(nodes)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
