"""Tensors ranged at every inference: DynamicQuantizeLinear, and DequantizeLinear behind it."""

from __future__ import annotations

import onnx_ir as ir

from studio.graph.edit import Names
from studio.graph.quantized.found import NotLiftableError
from studio.graph.quantized.qlinear import Rewriter


class Ranged(Rewriter):
    """A rewriter that makes one such pair for each tensor."""

    def __init__(self, graph: ir.Graph, names: Names) -> None:
        super().__init__(graph, names)
        self._dequantized: dict[ir.Node, ir.Value] = {}
        self._ranging: dict[ir.Value, ir.Node] = {}

    def dequantized(self, ranging: ir.Node) -> ir.Value:
        """What the DynamicQuantizeLinear `ranging` rounds its input to."""
        if ranging not in self._dequantized:
            source = ranging.inputs[0]
            assert source is not None
            dq = ir.node("DequantizeLinear", list(ranging.outputs))
            dq.name = self.names.fresh(f"{source.name}_DequantizeLinear")
            result = dq.outputs[0]
            result.name = self.names.fresh(f"{source.name}_dequantized")
            result.dtype, result.shape = ir.DataType.FLOAT, source.shape
            self.graph.insert_after(ranging, dq)
            self._dequantized[ranging] = result
        return self._dequantized[ranging]

    def ranged(self, node: ir.Node, value: ir.Value | None) -> ir.Value:
        """`value` rounded before `node`, for an operator that does so inside."""
        if value is None:
            raise NotLiftableError("it has no input")
        if value not in self._ranging:
            ranging = ir.node("DynamicQuantizeLinear", [value], num_outputs=3)
            ranging.name = self.names.fresh(f"{value.name}_DynamicQuantizeLinear")
            endings = ("quantized", "scale", "zero_point")
            kinds = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
            for output, ending, kind in zip(ranging.outputs, endings, kinds, strict=True):
                output.name = self.names.fresh(f"{value.name}_{ending}")
                output.dtype = kind
                output.shape = value.shape if ending == "quantized" else ir.Shape(())
            self.graph.insert_before(node, ranging)
            self._ranging[value] = ranging
        return self.dequantized(self._ranging[value])
