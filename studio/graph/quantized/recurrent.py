"""DynamicQuantizeLSTM of onnxruntime, as ONNX's LSTM.

(docs/ContribOperators.md, com.microsoft.DynamicQuantizeLSTM: W (directions, inputs, 4 * hidden) and
R (directions, hidden, 4 * hidden) in integers, scales and zero points for each direction or each
column of each direction; input and state are ranged at every step.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from studio.graph.edit import array_of, input_of
from studio.graph.quantized.constants import plain_name
from studio.graph.quantized.found import WEIGHT_BITS_NOTE, NotLiftableError
from studio.graph.quantized.ranged import Ranged


def express_lstm(rewriter: Ranged, node: ir.Node) -> None:
    """Put an LSTM with its input and weights behind DequantizeLinear in place of `node`."""
    if len(node.inputs) < 12:
        raise NotLiftableError("its weights have no scales and zero points")
    weights = [_read(node, position) for position in (1, 2)]
    stored = [_weight(rewriter, node, *weight) for weight in weights]
    inputs: list[ir.Value | None] = [rewriter.ranged(node, node.inputs[0]), *stored]
    inputs += [input_of(node, position) for position in range(3, 8)]
    while inputs[-1] is None:
        inputs.pop()
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    new = ir.node("LSTM", inputs, attributes, num_outputs=len(node.outputs))
    name = node.name or ""
    plain = name.removesuffix("_quant")
    new.name = name if plain == name else rewriter.names.fresh(plain)
    new.metadata_props.update(node.metadata_props)
    new.metadata_props.pop(WEIGHT_BITS_NOTE, None)
    rewriter.graph.insert_before(node, new)
    for old, made in zip(node.outputs, new.outputs, strict=True):
        made.type, made.shape = old.type, old.shape
        old.replace_all_uses_with(made, replace_graph_outputs=True)
        made.name, old.name = old.name, None
    rewriter.graph.remove(node, safe=True)


def _read(
    node: ir.Node, position: int
) -> tuple[str, npt.NDArray, npt.NDArray, npt.NDArray, int | None, int | None]:
    """Name, integers (directions, 4 * hidden, inputs), scale, zero point, axis and block size of
    the weight at `position`."""
    value = node.inputs[position]
    slot = 8 + 2 * (position - 1)
    integers, scale, zero = (array_of(input_of(node, at)) for at in (position, slot, slot + 1))
    if value is None or integers is None or scale is None or zero is None:
        raise NotLiftableError("its weights are computed while the model runs")
    if integers.ndim != 3 or scale.ndim not in (1, 2) or scale.size != zero.size:
        raise NotLiftableError("its weights, scales and zero points do not fit together")
    directions, inputs, columns = integers.shape
    if scale.shape not in ((directions,), (directions, columns)):
        raise NotLiftableError("its weights, scales and zero points do not fit together")
    name = plain_name(value.name or "") or value.name or ""
    turned = np.ascontiguousarray(integers.transpose(0, 2, 1))
    zero = zero.reshape(scale.shape)
    axis: int | None = None
    block: int | None = None
    if (scale == scale[0]).all() and (zero == zero[0]).all():  # the same in all directions
        axis, scale, zero = (None if scale.ndim == 1 else 1), scale[0], zero[0]
    elif scale.ndim == 1:
        axis = 0
    else:  # a block is all that one column of one direction sums up
        axis, block, scale, zero = 2, inputs, scale[..., None], zero[..., None]
    return name, turned, np.asarray(scale), np.asarray(zero), axis, block


def _weight(
    rewriter: Ranged,
    node: ir.Node,
    name: str,
    integers: npt.NDArray,
    scale: npt.NDArray,
    zero_point: npt.NDArray,
    axis: int | None,
    block: int | None,
) -> ir.Value:
    result = rewriter.dequantize(
        node,
        rewriter.constant(f"{name}_integers", integers),
        rewriter.constant(f"{name}_scale", scale),
        rewriter.constant(f"{name}_zero_point", zero_point),
        axis,
        block,
    )
    result.name = rewriter.names.fresh(f"{name}_dequantized")
    return result
