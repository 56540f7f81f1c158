"""Recognition: operators that are one layer for a person and for quantization.

Each rule marks what it finds (`marks`); the graph itself stays as it is. `RECOGNITION` lists the
rules in the order they run: a rule leaves alone what an earlier one has taken.
"""

from studio.graph.patterns.activations import ACTIVATIONS
from studio.graph.patterns.attention import ATTENTION
from studio.graph.patterns.linear import LINEAR
from studio.graph.patterns.marks import Mark, block_of, float_reason, layer_of
from studio.graph.patterns.normalization import NORMALIZATIONS
from studio.graph.patterns.sizes import SIZES, shape_arithmetic
from studio.graph.patterns.softmax import SOFTMAXES

RECOGNITION = (LINEAR, *NORMALIZATIONS, *ACTIVATIONS, *SOFTMAXES, ATTENTION, SIZES)

__all__ = ["RECOGNITION", "Mark", "block_of", "float_reason", "layer_of", "shape_arithmetic"]
