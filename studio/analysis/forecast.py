"""Which layers a target will compute in integers, and which in float and why, before exporting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from studio.analysis.kernel_rules import Kernel, Rounded, Runs, onnxruntime_kernel
from studio.graph.model import ModelGraph, is_constant, is_float
from studio.quant.encoding import Encoding
from studio.sim import op_rules
from studio.sim.plan import Layer, Plan
from studio.sim.qdq import Storage
from studio.sim.target import Target

__all__ = ["Forecast", "LayerForecast", "Runs", "forecast"]


@dataclass(frozen=True)
class LayerForecast:
    """How a target will run one layer.

    kernel: the operator expected to do the work. reason: why it is not an integer one, "" if it is.
    hint: what would make it one, "" where nothing does. warning: why it computes something else
    than the simulation, "" if it does not.
    """

    layer: str
    title: str
    runs: Runs
    kernel: str
    reason: str = ""
    hint: str = ""
    warning: str = ""

    @property
    def integer(self) -> bool:
        """True if the layer computes in integers, or moves them."""
        return self.runs in (Runs.INTEGER, Runs.ABSORBED)


@dataclass(frozen=True)
class Forecast:
    """One row a layer, in execution order, without the model's inputs."""

    target: str
    layers: tuple[LayerForecast, ...]

    def layer(self, name: str) -> LayerForecast:
        """The row of layer `name`; KeyError if there is none."""
        for row in self.layers:
            if row.layer == name:
                return row
        raise KeyError(name)

    @property
    def float_layers(self) -> tuple[LayerForecast, ...]:
        return tuple(row for row in self.layers if row.runs is Runs.FLOAT)


def forecast(
    graph: ModelGraph,
    plan: Plan,
    target: Target,
    encodings: Mapping[str, Encoding] | None = None,
    *,
    storage: Storage | None = None,
) -> Forecast:
    """How `target` will run the layers of `graph` under `plan`.

    `storage` is that of the file, where an export asks for another than the target's. Whether a
    fused activation disappears depends on the zero point of the output: `encodings`, once there are
    any, decide what is assumed of the grid before.
    """
    rounded = Rounded(graph, plan, storage or storage_of(target), encodings or {})
    return Forecast(
        target.name,
        tuple(_row(graph, target, layer, rounded) for layer in plan.layers if layer.nodes),
    )


def _row(graph: ModelGraph, target: Target, layer: Layer, rounded: Rounded) -> LayerForecast:
    kernel = _kernel(graph, target, layer, rounded)
    return LayerForecast(
        layer.name,
        layer.title,
        kernel.runs,
        kernel.name,
        kernel.reason,
        kernel.hint,
        kernel.warning,
    )


def _kernel(graph: ModelGraph, target: Target, layer: Layer, rounded: Rounded) -> Kernel:
    head = graph.node(layer.nodes[0])
    data = [head.inputs[slot] for slot in op_rules.data_slots(head) if slot < len(head.inputs)]
    read = [value for value in data if value is not None and _is_float_data(value)]
    made = graph.value(layer.output)
    name = head.op_type
    if not _is_float_data(made) or all(is_constant(value) for value in read):
        return Kernel(Runs.ABSORBED, name)
    written_out = bool(layer.kind) and not layer.kind.startswith("Linear")
    if written_out and target.integer_ops is not None:
        text = f"{target.title} computes the operators of a recognised {layer.kind} in float"
        return Kernel(Runs.FLOAT, layer.kind, text)
    if written_out:  # constants inside are parameters of the one layer
        read = [value for value in read if not is_constant(value)]
    if name in target.float_ops:
        return Kernel(Runs.FLOAT, name, target.float_ops[name])
    if target.integer_ops is not None:
        needed = target.integer_ops.get(name)
        if needed is None:
            return Kernel(Runs.FLOAT, name, f"{target.title} has no integer kernel for {name}")
        for attribute, wanted in needed.items():
            found = head.attributes.get(attribute)
            if found is not None and found.value != wanted:
                text = f"{target.title} has an integer {name} for {attribute}={wanted} only"
                return Kernel(Runs.FLOAT, name, text)
    if target.export.contrib_ops:  # only onnxruntime runs those
        return onnxruntime_kernel(graph, layer, rounded)
    at_inputs = target.quantized_inputs
    shortcut = at_inputs is not None and at_inputs.residual_add and name == "Add"
    if shortcut and any(not rounded.why_float(value.name or "", layer) for value in read):
        return Kernel(Runs.ABSORBED, name)  # added by the convolution before it
    # Where operators are rounded at their inputs, whoever reads a result rounds it.
    for value in read if at_inputs is not None else (*read, made):
        why = rounded.why_float(value.name or "", layer)
        if why:
            return Kernel(Runs.FLOAT, name, why)
    return Kernel(Runs.INTEGER, name)


def storage_of(target: Target) -> Storage:
    """How files for `target` store integers, unless an export asks for something else."""
    return Storage(target.export.weight_storage_bits, target.export.activation_storage_bits)


def _is_float_data(value: ir.Value) -> bool:
    return is_float(value) and value.dtype is not None
