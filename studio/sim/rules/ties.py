"""Tensors that must share one encoding: inputs of Concat with its output, the input of a Relu or
of a limit with its output."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from studio.graph.additions import is_limit
from studio.graph.model import is_constant
from studio.quant.grid import FloatGrid, Grid
from studio.sim import op_rules
from studio.sim.plan import Role, TensorPlan
from studio.sim.rules.context import Context
from studio.sim.rules.names import is_one_of


def tie(context: Context) -> list[str]:
    """Give inputs of `tied_inputs` and `backward_ops` the encoding of the op's output.

    The output has the larger range (Concat) or all the values that matter (Relu). So it is with
    limits of channels, on any target: rounded values that are limited by rounded limits are the
    limited values rounded. An input keeps its own where its range is fixed, its grid is another, or
    it shares another op's already. Returns what to warn of.
    """
    target = context.target
    warnings: list[str] = []
    if target.quantized_inputs is not None:
        return warnings
    for group in reversed(context.groups):
        if len(group.nodes) > 1:
            continue
        last = group.units[-1]
        limit = is_limit(last.last)
        forward = is_one_of(last.label, target.tied_inputs) and not limit
        if not (forward or limit or is_one_of(last.label, target.backward_ops)):
            continue
        output = context.rows.get(last.last.outputs[0].name or "")
        if output is None or output.spec is None or output.dynamic:
            continue
        head = group.nodes[0]
        values = [head.inputs[slot] for slot in op_rules.data_slots(head)]
        for value in dict.fromkeys(values):
            if value is not None and (forward or _is_alone(value, constant=limit)):
                other = _share(context, value, output, head, forward)
                if other is not None and forward and _is_chosen(context, value, group.name):
                    warnings.append(
                        f"{group.name}: {target.title} wants one encoding for all inputs of "
                        f"{last.label}; {value.name} is {other}, the output {output.spec.grid}."
                    )
    return warnings


def _is_chosen(context: Context, value: ir.Value, layer: str) -> bool:
    """True if the user, not the target, decides about `value` or the output of `layer`."""
    layers = (context.rows[value.name or ""].layer, layer)
    return any(key.startswith("act_") for name in layers for key in context.resolver.asked(name))


def _is_alone(value: ir.Value, *, constant: bool) -> bool:
    """True if one node reads `value`, which some node has made, or which is a `constant`."""
    made = value.producer() is not None or (constant and is_constant(value))
    return made and not value.is_graph_output() and len(list(value.uses())) == 1


def _share(
    context: Context, value: ir.Value, output: TensorPlan, node: ir.Node, forward: bool
) -> Grid | FloatGrid | None:
    """Let `value`, and all that share its encoding, use that of `output`; returns the grid that
    keeps it from doing so."""
    row = context.rows.get(value.name or "")
    if row is None or row.spec is None or row.dynamic or row.role is Role.WEIGHT:
        return None
    root = output.tied_to or output.name
    own = context.rows[row.tied_to] if row.tied_to is not None else row
    if own.name == root or own.tied_to is not None or (not forward and own is not row):
        return None
    assert own.spec is not None
    assert output.spec is not None
    if own.spec.fixed_range is not None:
        return None
    if own.spec.grid != output.spec.grid:
        return own.spec.grid
    shares = "its inputs share the encoding of its output" if forward else "values are clipped"
    reason = f"{node.op_type} {node.name}: {shares}"
    for other in list(context.rows.values()):
        if other.name == own.name:
            tied = replace(other, spec=output.spec, tied_to=root, reason=reason)
            context.rows[other.name] = tied
        elif other.tied_to == own.name:
            context.rows[other.name] = replace(other, spec=output.spec, tied_to=root)
    return None
