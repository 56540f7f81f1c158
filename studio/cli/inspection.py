"""`quant-studio inspect`: the model as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.cli.output import print_json, print_table
from studio.graph.describe import display_shape, macs, parameters
from studio.graph.macs import MAC_OPS
from studio.graph.prepare import rules
from studio.readable import plural

if TYPE_CHECKING:
    from studio.project.document import Document
    from studio.sim.plan import Layer, TensorPlan


def print_inspection(
    document: Document, *, tensors: bool, sizes: bool = False, as_json: bool
) -> None:
    """Inputs, layers (or tensors) and what preparation did; with `sizes` also the layers that only
    compute sizes."""
    graph, plan = document.graph, document.plan
    hidden = frozenset() if sizes else document.shape_layers
    layers = [layer for layer in plan.layers if layer.name not in hidden]
    if as_json:
        print_json(
            {
                "model": graph.source.name,
                "opset": graph.opset,
                "target": plan.target,
                "inputs": {value.name: display_shape(value) for value in graph.inputs},
                "outputs": {value.name: display_shape(value) for value in graph.outputs},
                "layers": [_layer(document, layer) for layer in layers],
                "shape_layers": [x.name for x in plan.layers if x.name in hidden],
                "tensors": [_tensor(row) for row in plan.tensors.values()],
                "rules": rules(graph),
                "changes": graph.changes,
                "warnings": [*graph.warnings, *plan.warnings],
            }
        )
        return
    inputs = ", ".join(f"{value.name} {display_shape(value)}" for value in graph.inputs)
    outputs = ", ".join(f"{value.name} {display_shape(value)}" for value in graph.outputs)
    print(f"{graph.source.name}: opset {graph.opset}; {inputs} -> {outputs}; target {plan.target}")
    if tensors:
        rows = [tuple(map(str, _tensor(row).values())) for row in plan.tensors.values()]
        print_table(("tensor", "role", "layer", "quantized", "why"), rows)
    else:
        rows = [tuple(map(str, _layer(document, layer).values())) for layer in layers]
        print_table(
            ("layer", "ops", "output", "weights", "activations", "parameters", "MACs", "note"), rows
        )
        if hidden:
            print(f"\nwithout {plural(len(hidden), 'layer')} of arithmetic of sizes (--sizes)")
    print(f"\npreparation ({len(graph.changes)} changes):")
    listed = rules(graph)
    width = max(len(rule.name) for rule in listed)
    for rule in listed:
        done = str(rule.count) if rule.on else "off (--without)"
        print(f"  {rule.name:<{width}} {done:>5}  {rule.description}")
    for warning in (*graph.warnings, *plan.warnings):
        print(f"note: {warning}")


def _layer(document: Document, layer: Layer) -> dict[str, str | int]:
    graph = document.graph
    settings = layer.settings
    weights = activations = "-"
    if settings.weight_bits is not None:
        granularity = "per channel" if settings.weight_per_channel else "per tensor"
        weights = f"{settings.weight_bits} bit {granularity}" if settings.weight_enabled else "off"
    if settings.act_bits is not None:
        activations = f"{settings.act_bits} bit" if settings.act_enabled else "off"
    elif layer.follows:
        activations = "follows"
    nodes = [graph.node(name) for name in layer.nodes]
    work = [macs(graph, node) for node in nodes if node.op_type in MAC_OPS]
    return {
        "layer": layer.name,
        "ops": layer.title,
        "output": display_shape(graph.value(layer.output)),
        "weights": weights,
        "activations": activations,
        "parameters": sum(parameters(node) for node in nodes),
        "macs": "?" if None in work else sum(count for count in work if count is not None),
        "note": layer.note or (f"uses the encoding of {layer.follows}" if layer.follows else ""),
    }


def _tensor(row: TensorPlan) -> dict[str, str]:
    quantized = "no"
    if row.spec is not None:
        quantized = str(row.spec.grid) + ("" if row.spec.axis is None else " per channel")
    return {
        "name": row.name,
        "role": row.role.value,
        "layer": row.layer,
        "quantized": quantized,
        "why": row.reason,
    }
