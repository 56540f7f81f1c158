"""Models that come quantized already: their float graph, and the quantization found in the file.

`express_as_qdq` writes integer operators (QLinearConv, MatMulInteger, MatMulNBits, ...) as float
operators between QuantizeLinear and DequantizeLinear, before preparation. `lift_quantization` then
takes those pairs out of the prepared graph and keeps what they said, a `FoundQuantization` for each
tensor. Preparation runs in between, while the pairs are in the graph, so it never merges operators
that the file rounds in between.
"""

from studio.graph.quantized.express import express_as_qdq
from studio.graph.quantized.lift import lift_quantization

__all__ = ["express_as_qdq", "lift_quantization"]
