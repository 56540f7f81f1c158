"""Batch normalization at inference is an affine map per channel: fold it into its neighbour.

BN(x) = k x + s with k = gamma / sqrt(var + eps), s = beta - mean k.

Backward (layer, then BN): W' = k W along the output channels, b' = k b + s.
Forward (BN, then layer): W' = W k along the input channels, b' = b + sum over inputs of W s; valid
without padding only, because padding adds zeros after the BN. Backward has priority.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    absorb,
    add_constant,
    array_of,
    bypass,
    can_bypass,
    float_attribute,
    input_of,
    int_attribute,
    ints_attribute,
    is_op,
    only_consumer,
    replace_node,
)
from studio.graph.model import Change
from studio.graph.scopes import title

RULE = "fold batch norm"


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift for each channel, float64 [channels]."""

    scale: np.ndarray
    shift: np.ndarray


class CannotFoldError(Exception):
    """Why a batch normalization stays in the graph (internal; becomes a warning)."""


def fold_batch_norms(model: ir.Model) -> list[Change]:
    """Fold every BatchNormalization that has a layer to go into."""
    changes, names = [], Names(model.graph)
    for node in list(model.graph):
        if not is_op(node, "BatchNormalization"):
            continue
        try:
            changes.append(_fold(node, names))
        except CannotFoldError:
            continue
    return changes


def unfolded_batch_norms(model: ir.Model) -> list[str]:
    """One sentence for each BatchNormalization that stays, with the reason."""
    sentences = []
    for node in model.graph:
        if is_op(node, "BatchNormalization"):
            try:
                _plan(node)
            except CannotFoldError as reason:
                sentences.append(f"Batch norm {title(node)} was not folded: {reason}.")
    return sentences


def _fold(bn: ir.Node, names: Names) -> Change:
    layer, backward = _plan(bn)
    affine = _affine(bn)
    layer_name, bn_name = title(layer), title(bn)
    if not backward:
        _fold_forward(layer, affine, names)
        source = bn.inputs[0]
        assert source is not None
        bypass(bn, source)
        detail = f"Multiplied the input channels of its weights by batch norm {bn_name}, before it."
        return Change(RULE, layer_name, detail)
    source = bn.inputs[0]
    assert source is not None
    if is_op(layer, "Add"):
        _fold_into_matmul_add(layer, affine, names)
    else:
        _fold_backward(layer, affine, names)
        source = bn.inputs[0]  # a MatMul has become a Gemm
        assert source is not None
    absorb(bn, source)
    detail = f"Multiplied the output channels of its weights by batch norm {bn_name}, after it."
    return Change(RULE, layer_name, detail)


def _plan(bn: ir.Node) -> tuple[ir.Node, bool]:
    """The layer `bn` goes into, and whether it stands before `bn`; else CannotFoldError."""
    if int_attribute(bn, "training_mode", 0) or any(output.uses() for output in bn.outputs[1:]):
        raise CannotFoldError("it is in training mode")
    affine, source = _affine(bn), bn.inputs[0]
    producer = source.producer() if source is not None else None
    before = "no layer stands before it"
    if source is not None and producer is not None:
        before = _why_not_backward(producer, source, affine)
        if not before:
            return producer, True
    consumer = only_consumer(bn.outputs[0])
    if consumer is None:
        raise CannotFoldError(f"{before}, and its result is used more than once or is an output")
    after = _why_not_forward(consumer, bn, affine)
    if not after:
        return consumer, False
    raise CannotFoldError(f"{before}, and {after}")


def _affine(bn: ir.Node) -> Affine:
    arrays = [array_of(input_of(bn, index)) for index in range(1, 5)]
    if any(array is None for array in arrays):
        raise CannotFoldError("its statistics are not constants")
    gamma, beta, mean, var = (a.astype(np.float64).ravel() for a in arrays if a is not None)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(var + float_attribute(bn, "epsilon", 1e-5))
        shift = beta - mean * scale
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise CannotFoldError("its statistics give infinite or undefined factors")
    return Affine(scale, shift)


# ---- which layers can take it


def _why_not_backward(layer: ir.Node, result: ir.Value, affine: Affine) -> str:
    """Empty if `layer`, which makes `result`, can take the batch norm behind it."""
    name, channels = title(layer), len(affine.scale)
    if not is_op(layer, "Conv", "ConvTranspose", "Gemm", "MatMul", "Add"):
        return f"{layer.op_type} {name} before it has no weights"
    if only_consumer(result) is None:
        return f"the result of {name} before it is used elsewhere too"
    if is_op(layer, "Add"):
        return _why_not_matmul_add(layer, channels)
    weight, bias = array_of(input_of(layer, 1)), input_of(layer, 2)
    if weight is None or (bias is not None and array_of(bias) is None):
        return f"the weights of {name} before it are not constants"
    if is_op(layer, "MatMul") and _rank(result) != 2:
        return f"{name} before it has its channels on another axis"
    if is_op(layer, "Gemm") and not _plain_gemm(layer):
        return f"{name} before it has factors or a bias that is no vector"
    return "" if _out_channels(layer, weight) == channels else f"{name} has other channels"


def _why_not_forward(layer: ir.Node, bn: ir.Node, affine: Affine) -> str:
    """Empty if `layer`, which reads the result of `bn`, can take the batch norm before it."""
    name, channels = title(layer), len(affine.scale)
    result, source = bn.outputs[0], bn.inputs[0]
    if not is_op(layer, "Conv", "Gemm", "MatMul"):
        return f"{layer.op_type} {name} after it has no weights it could go into"
    if layer.inputs[0] is not result or source is None or not can_bypass(bn, source):
        return f"{name} after it does not read it as its data"
    weight, bias = array_of(input_of(layer, 1)), input_of(layer, 2)
    if weight is None or (bias is not None and array_of(bias) is None):
        return f"the weights of {name} after it are not constants"
    if is_op(layer, "Conv"):
        auto = layer.attributes.get("auto_pad")
        valid = auto is None or auto.as_string() in ("", "NOTSET", "VALID")
        if not valid or any(ints_attribute(layer, "pads") or []):
            return f"{name} after it pads its input with zeros"
        fits = weight.shape[1] * int_attribute(layer, "group", 1) == channels
        return "" if fits else f"{name} has other channels"
    if is_op(layer, "MatMul") and (_rank(result) != 2 or weight.ndim != 2):
        return f"{name} after it has its channels on another axis"
    if is_op(layer, "Gemm") and (not _plain_gemm(layer) or int_attribute(layer, "transA", 0)):
        return f"{name} after it has factors or a transposed input"
    inputs = weight.shape[1 if int_attribute(layer, "transB", 0) else 0]
    return "" if inputs == channels else f"{name} has other channels"


def _why_not_matmul_add(add: ir.Node, channels: int) -> str:
    matmul, constant = _matmul_add(add)
    if matmul is None or constant is None:
        return f"Add {title(add)} before it has no weights"
    weight, array = array_of(matmul.inputs[1]), array_of(constant)
    if weight is None or weight.ndim != 2 or array is None:
        return f"the weights of {title(matmul)} before it are not constants"
    if _rank(matmul.outputs[0]) != 2 or _vector(array, channels) is None:
        return f"{title(matmul)} before it has its channels on another axis"
    return "" if weight.shape[1] == channels else f"{title(matmul)} has other channels"


def _matmul_add(add: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The MatMul whose result `add` alone reads, and the other operand."""
    for index in (0, 1):
        value = add.inputs[index]
        producer = value.producer() if value is not None else None
        if value is not None and is_op(producer, "MatMul") and only_consumer(value) is add:
            return producer, add.inputs[1 - index]
    return None, None


def _plain_gemm(gemm: ir.Node) -> bool:
    if float_attribute(gemm, "alpha", 1.0) != 1.0 or float_attribute(gemm, "beta", 1.0) != 1.0:
        return False
    weight, bias = array_of(gemm.inputs[1]), array_of(input_of(gemm, 2))
    assert weight is not None
    return bias is None or _vector(bias, _out_channels(gemm, weight)) is not None


def _out_channels(layer: ir.Node, weight: np.ndarray) -> int:
    if is_op(layer, "Conv"):
        return int(weight.shape[0])
    if is_op(layer, "ConvTranspose"):
        return int(weight.shape[1]) * int_attribute(layer, "group", 1)
    if weight.ndim != 2:
        return -1
    return int(weight.shape[0 if int_attribute(layer, "transB", 0) else 1])


def _vector(array: np.ndarray, size: int) -> np.ndarray | None:
    """`array` as float64 [size] if it varies along the last axis only, else None."""
    if array.size not in (1, size) or (array.size > 1 and array.shape[-1] != size):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (size,))


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


# ---- the arithmetic


def _fold_backward(layer: ir.Node, affine: Affine, names: Names) -> None:
    weight, channels = array_of(layer.inputs[1]), len(affine.scale)
    assert weight is not None
    wide = weight.astype(np.float64)
    if is_op(layer, "Conv"):
        wide *= affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
    elif is_op(layer, "ConvTranspose"):  # [in, out / groups, ...], groups one after the other
        groups = int_attribute(layer, "group", 1)
        per_group = affine.scale.reshape(groups, 1, channels // groups)
        factors = np.repeat(per_group, weight.shape[0] // groups, axis=1)
        wide *= factors.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
    else:
        wide *= affine.scale[:, None] if int_attribute(layer, "transB", 0) else affine.scale
    bias = array_of(input_of(layer, 2))
    old = np.zeros(channels) if bias is None else _vector(bias, channels)
    assert old is not None
    _store(layer, wide, old * affine.scale + affine.shift, names)


def _fold_forward(layer: ir.Node, affine: Affine, names: Names) -> None:
    weight = array_of(layer.inputs[1])
    assert weight is not None
    wide = weight.astype(np.float64)
    if is_op(layer, "Conv"):
        outputs, inputs = weight.shape[:2]
        groups = int_attribute(layer, "group", 1)
        spatial = [1] * (weight.ndim - 2)

        def spread(channel: np.ndarray) -> np.ndarray:  # [in] -> [out, in / groups, 1, ...]
            grouped = np.repeat(channel.reshape(groups, inputs), outputs // groups, axis=0)
            return grouped.reshape(outputs, inputs, *spatial)

        added = (wide * spread(affine.shift)).reshape(outputs, -1).sum(axis=1)
        wide *= spread(affine.scale)
    elif int_attribute(layer, "transB", 0):
        added = wide @ affine.shift
        wide *= affine.scale
    else:
        added = affine.shift @ wide
        wide *= affine.scale[:, None]
    bias = array_of(input_of(layer, 2))
    old = np.zeros(len(added)) if bias is None else _vector(bias, len(added))
    assert old is not None
    _store(layer, wide, old + added, names)


def _fold_into_matmul_add(add: ir.Node, affine: Affine, names: Names) -> None:
    matmul, constant = _matmul_add(add)
    assert matmul is not None
    assert constant is not None
    weight, array = array_of(matmul.inputs[1]), array_of(constant)
    assert weight is not None
    assert array is not None
    vector = _vector(array, len(affine.scale))
    assert vector is not None
    _set_constant(matmul, 1, weight * affine.scale, names)
    index = 0 if add.inputs[0] is constant else 1
    _set_constant(add, index, vector * affine.scale + affine.shift, names)


def _store(layer: ir.Node, weight: np.ndarray, bias: np.ndarray, names: Names) -> None:
    """New weights and bias, in the type of the old weights; a MatMul becomes a Gemm to have one."""
    graph, old = layer.graph, array_of(layer.inputs[1])
    assert isinstance(graph, ir.Graph)
    assert old is not None
    _set_constant(layer, 1, weight, names)
    if input_of(layer, 2) is not None:
        _set_constant(layer, 2, bias, names)
        return
    value = add_constant(graph, names.fresh(f"{title(layer)}.bias"), bias.astype(old.dtype))
    if is_op(layer, "MatMul"):
        replace_node(layer, "Gemm", [layer.inputs[0], layer.inputs[1], value])
        return
    layer.resize_inputs(3)
    layer.replace_input_with(2, value)


def _set_constant(node: ir.Node, index: int, array: np.ndarray, names: Names) -> None:
    """Give operand `index` these numbers; other readers of the constant keep the old ones."""
    value, graph = node.inputs[index], node.graph
    assert value is not None
    assert isinstance(graph, ir.Graph)
    old = array_of(value)
    assert old is not None
    array = array.astype(old.dtype)
    if len(value.uses()) > 1 or value.is_graph_output():
        name = names.fresh(f"{title(node)}.{'weight' if array.ndim > 1 else 'bias'}")
        node.replace_input_with(index, add_constant(graph, name, array))
        return
    tensor = ir.tensor(array, name=value.name)
    value.const_value, value.shape = tensor, ir.Shape(array.shape)
