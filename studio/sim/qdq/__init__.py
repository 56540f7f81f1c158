"""The quantized graph: QuantizeLinear / DequantizeLinear around every quantized tensor.

What is exported is what is simulated: `Constants.FLOAT` gives the same graph with its constants
already rounded and written in float, which runs faster.
"""

from studio.sim.qdq.insert import Constants, insert_qdq
from studio.sim.qdq.names import dequantized_name, quantized_name
from studio.sim.qdq.storage import Storage, check_opset, needed_opset, required_opset

__all__ = [
    "Constants",
    "Storage",
    "check_opset",
    "dequantized_name",
    "insert_qdq",
    "needed_opset",
    "quantized_name",
    "required_opset",
]
