"""`quant-studio validate`: what to know about a model before calibrating it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.cli.output import print_json, print_table
from studio.readable import count, percent, plural, size

if TYPE_CHECKING:
    from studio.analysis.validation import Validation


def print_validation(report: Validation, *, layers: bool, as_json: bool) -> None:
    """Totals, findings, tensors that stay float; a row a layer with `layers`."""
    if as_json:
        print_json(report)
        return
    share = 100 * report.integer_macs / report.macs if report.macs else 0.0
    print(f"target {report.target}, one sample:")
    if report.costs_known:
        print(f"  {count(report.macs)} multiply-accumulates, {percent(share)} of them in integers")
        print(f"  {count(report.bit_operations)} bit-operations")
    print(f"  weights {size(report.float_bytes)} float, {size(report.quantized_bytes)} quantized")
    if report.unknown_macs:
        print(f"  without {plural(len(report.unknown_macs), 'layer')} of unknown shape")
    if report.shape_layers:
        left_out = plural(len(report.shape_layers), "layer")
        print(f"  without {left_out} of arithmetic of sizes")
    for finding in report.findings:
        print(f"{finding.severity.value}: {finding.message}")
        if finding.hint:
            print(f"    {finding.hint}")
    if report.float_tensors:
        print("tensors that stay float:")
        for group in report.float_tensors:
            print(f"  {len(group.tensors):5}  {group.reason}")
    if layers:
        print_table(
            ("layer", "ops", "MACs", "bit-operations", "weights", "quantized", "runs in"),
            [
                (
                    layer.name,
                    layer.title,
                    "?" if layer.cost.macs is None else count(layer.cost.macs),
                    "?" if layer.cost.bit_operations is None else count(layer.cost.bit_operations),
                    size(layer.cost.float_bytes),
                    size(layer.cost.quantized_bytes),
                    f"float: {layer.reason}" if layer.reason else "integers",
                )
                for layer in report.layers
            ],
        )
