"""The quantized ONNX of an export, in the form its options ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from studio import __version__
from studio.errors import ExportError
from studio.exporting.operators import (
    use_dynamic_operators,
    use_matmul_nbits,
    use_qlinear_operators,
)
from studio.exporting.options import ExportForm
from studio.graph.model import ModelGraph
from studio.graph.quantized.found import is_dequantize, is_quantize
from studio.quant.encoding import Encoding
from studio.sim.found import constant_integers
from studio.sim.plan import Plan, Role
from studio.sim.qdq import Constants, Storage, insert_qdq, needed_opset, required_opset

PRODUCER = "quantization-studio"


def quantized_model(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding], form: ExportForm
) -> ir.Model:
    """The quantized ONNX of `graph`. Raises ExportError, naming the tensor, for what the target or
    the opset cannot express."""
    if form.rule.zero_points == "zero":
        refuse_zero_points(plan, encodings)
    storage = file_storage(graph, plan, form)
    constants = Constants.PAIR if form.float_constants else Constants.INTEGER
    model = insert_qdq(graph, plan, encodings, constants=constants, storage=storage)
    if form.format == "qoperator":
        use_dynamic_operators(model, contrib=form.contrib_ops)
        use_qlinear_operators(model, contrib=form.contrib_ops)
    elif form.format == "dynamic":
        use_dynamic_operators(model, contrib=form.contrib_ops)
    elif form.format == "weight-only" and form.contrib_ops:
        use_matmul_nbits(model)
    model.producer_name, model.producer_version = PRODUCER, __version__
    return model


def float_model(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding], form: ExportForm
) -> ir.Model:
    """The float ONNX that goes with an encodings file, its weights rounded if the form asks (not
    its biases: who reads int32 biases rounds them at their product of scales)."""
    if not form.round_float_model:
        return graph.ir
    model = graph.ir.clone()
    for name in plan.quantized:
        row = plan.tensors[name]
        if row.role in (Role.WEIGHT, Role.CONSTANT) and row.read_by is None:
            integers = constant_integers(graph, row, encodings[name])
            value = model.graph.initializers[name]
            value.const_value = ir.tensor(encodings[name].dequantize(integers), name=name)
    return model


def kept_as_pairs(model: ir.Model) -> tuple[str, ...]:
    """Names of operators that compute in float between DequantizeLinear and QuantizeLinear."""
    found = []
    for node in model.graph:
        if is_quantize(node) or is_dequantize(node):
            continue
        reads = any(
            value is not None and value.producer() is not None and is_dequantize(value.producer())
            for value in node.inputs
        )
        if reads:
            found.append(node.name or node.op_type)
    return tuple(found)


def file_storage(graph: ModelGraph, plan: Plan, form: ExportForm) -> Storage:
    """Types and opset: the one asked for, or the lowest that graph, types and target agree on."""
    storage = Storage(
        weight_bits=form.weight_storage_bits,
        activation_bits=form.activation_storage_bits,
        float_bias=form.float_bias,
        contrib=form.contrib_ops,
    )
    opset = form.opset
    if opset is None:
        needed = required_opset(plan, replace(storage, contrib=False))
        if needed > form.rule.opset_maximum:
            needed = required_opset(plan, storage)
        if needed > form.rule.opset_maximum:
            rows = [row for row in plan.tensors.values() if row.spec is not None]
            worst = max(rows, key=lambda row: needed_opset(row, storage)[0])
            raise ExportError(
                f"{worst.name} needs opset {needed} ({needed_opset(worst, storage)[1]}), but the "
                f"target reads no opset above {form.rule.opset_maximum}.",
                "Choose another number format for it, or 8-bit storage.",
            )
        lowest = max(graph.opset, needed, form.rule.opset_minimum)
        opset = min(lowest, form.rule.opset_maximum)
    return replace(storage, opset=opset)


def refuse_zero_points(plan: Plan, encodings: Mapping[str, Encoding]) -> None:
    shifted = [name for name in plan.quantized if np.any(encodings[name].zero_point)]
    dynamic = [name for name, row in plan.tensors.items() if row.dynamic]
    for name in [*shifted, *dynamic][:1]:
        count = len(shifted) + len(dynamic)
        more = f" and {count - 1} more tensors" if count > 1 else ""
        raise ExportError(
            f"The target {plan.target} knows no zero points, which {name}{more} need.",
            "Set symmetric (signed) activations and weights, and calibrate again.",
        )
