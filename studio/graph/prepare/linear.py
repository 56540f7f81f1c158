"""Layers that multiply by constant weights, and an affine map per channel folded into them.

With y = k x + s for each channel: behind a layer W' = k W along the output channels, b' = k b + s.
In front of it W' = W k along the input channels, b' = b + sum over inputs of W s; valid without
padding only, because padding adds zeros after the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    add_constant,
    array_of,
    float_attribute,
    input_of,
    insert_after,
    int_attribute,
    ints_attribute,
    is_op,
    only_consumer,
    replace_node,
)
from studio.graph.model import is_float
from studio.graph.prepare.channels import REGROUPING, Affine, backward, forward, rank_of
from studio.graph.scopes import title


class CannotFoldError(Exception):
    """Why an affine map stays in the graph (internal; becomes a sentence for the user)."""


@dataclass(frozen=True)
class Place:
    """Where an affine map goes: `layer` (a MatMul's Add is the layer of the two).

    `affine` is the map as the layer sees it, `between` are the tensors on the way that will hold
    other numbers afterwards.
    """

    layer: ir.Node
    affine: Affine
    between: tuple[ir.Value, ...]


def place_behind(source: ir.Value, affine: Affine) -> Place:
    """The layer in front of `source` that can take the map behind it; else CannotFoldError."""
    way = list(backward(source, affine))
    value, seen = way[-1]
    layer = value.producer()
    if layer is None:
        raise CannotFoldError("no layer stands before it")
    name = title(layer)
    if is_op(layer, *REGROUPING) and only_consumer(value) is not None:
        raise CannotFoldError(f"{layer.op_type} {name} before it regroups its channels")
    if not is_op(layer, "Conv", "ConvTranspose", "Gemm", "MatMul", "Add"):
        raise CannotFoldError(f"{layer.op_type} {name} before it has no weights")
    if only_consumer(value) is None:
        raise CannotFoldError(f"the result of {name} before it is used elsewhere too")
    weight = _check_weights_before(layer)
    if _channel_axis(layer, value) is None or seen.axis not in (None, _channel_axis(layer, value)):
        raise CannotFoldError(f"{name} before it has its channels on another axis")
    if seen.spread(out_channels(_weighted(layer), weight)) is None:
        raise CannotFoldError(f"{name} has other channels")
    return Place(layer, seen, tuple(v for v, _ in way[1:]))


def place_before(result: ir.Value, affine: Affine) -> Place:
    """The layer behind `result` that can take the map before it; else CannotFoldError."""
    way = list(forward(result, affine))
    value, seen = way[-1]
    layer = only_consumer(value)
    if layer is None:
        raise CannotFoldError("its result is used more than once or is an output")
    name = title(layer)
    if not is_op(layer, "Conv", "Gemm", "MatMul"):
        raise CannotFoldError(f"{layer.op_type} {name} after it has no weights it could go into")
    if layer.inputs[0] is not value:
        raise CannotFoldError(f"{name} after it does not read it as its data")
    weight, bias = array_of(input_of(layer, 1)), input_of(layer, 2)
    if weight is None or (bias is not None and array_of(bias) is None):
        raise CannotFoldError(f"the weights of {name} after it are not constants")
    if is_op(layer, "Conv"):
        auto = layer.attributes.get("auto_pad")
        valid = auto is None or auto.as_string() in ("", "NOTSET", "VALID")
        if not valid or any(ints_attribute(layer, "pads") or []):
            raise CannotFoldError(f"{name} after it pads its input with zeros")
        inputs, axis = weight.shape[1] * int_attribute(layer, "group", 1), 1
    else:
        rank = rank_of(value)
        if rank is None or weight.ndim != 2 or seen.axis not in (None, rank - 1):
            raise CannotFoldError(f"{name} after it has its channels on another axis")
        if is_op(layer, "Gemm") and (not plain_gemm(layer) or int_attribute(layer, "transA", 0)):
            raise CannotFoldError(f"{name} after it has factors or a transposed input")
        inputs, axis = weight.shape[1 if int_attribute(layer, "transB", 0) else 0], rank - 1
    if seen.axis not in (None, axis) or seen.spread(inputs) is None:
        raise CannotFoldError(f"{name} has other channels")
    return Place(layer, seen, tuple(v for v, _ in way[1:]))


def _check_weights_before(layer: ir.Node) -> np.ndarray:
    """The weights of `layer` (of its MatMul, if it is an Add)."""
    name, weighted = title(layer), layer
    if is_op(layer, "Add"):
        matmul, constant = matmul_before(layer)
        if matmul is None or array_of(constant) is None:
            raise CannotFoldError(f"Add {name} before it has no weights")
        weighted = matmul
    weight, bias = array_of(input_of(weighted, 1)), input_of(weighted, 2)
    if weight is None or (bias is not None and array_of(bias) is None):
        raise CannotFoldError(f"the weights of {name} before it are not constants")
    first = input_of(weighted, 1)
    assert first is not None
    if not is_float(first):
        raise CannotFoldError(f"the weights of {name} before it are integers")
    if is_op(weighted, "MatMul") and weight.ndim != 2:
        raise CannotFoldError(f"{name} before it has its channels on another axis")
    if is_op(layer, "Gemm") and not plain_gemm(layer):
        raise CannotFoldError(f"{name} before it has factors or a bias that is no vector")
    if is_op(layer, "Add"):
        array = array_of(matmul_before(layer)[1])
        assert array is not None
        if vector(array, weight.shape[1]) is None:
            raise CannotFoldError(f"{name} before it has its channels on another axis")
    return weight


def _weighted(layer: ir.Node) -> ir.Node:
    matmul = matmul_before(layer)[0] if is_op(layer, "Add") else layer
    assert matmul is not None
    return matmul


def _channel_axis(layer: ir.Node, result: ir.Value) -> int | None:
    if is_op(layer, "Conv", "ConvTranspose", "Gemm"):
        return 1
    rank = rank_of(result)
    return None if rank is None else rank - 1


def matmul_before(add: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The MatMul whose result `add` alone reads, and the other operand."""
    for index in (0, 1):
        value = add.inputs[index]
        producer = value.producer() if value is not None else None
        if value is not None and is_op(producer, "MatMul") and only_consumer(value) is add:
            return producer, add.inputs[1 - index]
    return None, None


def plain_gemm(gemm: ir.Node) -> bool:
    """True if its factors are 1 and its bias, if any, is a vector."""
    if float_attribute(gemm, "alpha", 1.0) != 1.0 or float_attribute(gemm, "beta", 1.0) != 1.0:
        return False
    weight, bias = array_of(gemm.inputs[1]), array_of(input_of(gemm, 2))
    assert weight is not None
    return bias is None or vector(bias, out_channels(gemm, weight)) is not None


def out_channels(layer: ir.Node, weight: np.ndarray) -> int:
    if is_op(layer, "Conv"):
        return int(weight.shape[0])
    if is_op(layer, "ConvTranspose"):
        return int(weight.shape[1]) * int_attribute(layer, "group", 1)
    return int(weight.shape[0 if int_attribute(layer, "transB", 0) else 1])


def vector(array: np.ndarray, size: int) -> np.ndarray | None:
    """`array` as float64 [size] if it varies along the last axis only, else None."""
    if array.size not in (1, size) or (array.size > 1 and array.shape[-1] != size):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (size,))


# ---- the arithmetic


def fold_behind(place: Place, names: Names) -> None:
    """Scale and shift the outputs of `place.layer`. The tensors between get new names."""
    layer = place.layer
    weighted = _weighted(layer)
    weight = array_of(weighted.inputs[1])
    assert weight is not None
    channels = out_channels(weighted, weight)
    spread = place.affine.spread(channels)
    assert spread is not None
    scale, shift = spread
    wide = weight.astype(np.float64)
    if is_op(weighted, "Conv"):
        wide *= scale.reshape(-1, *[1] * (weight.ndim - 1))
    elif is_op(weighted, "ConvTranspose"):  # [in, out / groups, ...], groups one after the other
        groups = int_attribute(weighted, "group", 1)
        per_group = scale.reshape(groups, 1, channels // groups)
        factors = np.repeat(per_group, weight.shape[0] // groups, axis=1)
        wide *= factors.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
    else:
        wide *= scale[:, None] if int_attribute(weighted, "transB", 0) else scale
    _rename(place.between, names)
    if is_op(layer, "Add"):
        constant = matmul_before(layer)[1]
        array = array_of(constant)
        assert array is not None
        old = vector(array, channels)
        assert old is not None
        _set_constant(weighted, 1, wide, names)
        _set_constant(layer, 0 if layer.inputs[0] is constant else 1, old * scale + shift, names)
        return
    bias = array_of(input_of(layer, 2))
    before = np.zeros(channels) if bias is None else vector(bias, channels)
    assert before is not None
    store(layer, wide, before * scale + shift, names)


def fold_before(place: Place, names: Names) -> None:
    """Scale and shift the inputs of `place.layer`. The tensors between get new names."""
    layer = place.layer
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

        channels = place.affine.spread(inputs * groups)
        assert channels is not None
        added = (wide * spread(channels[1])).reshape(outputs, -1).sum(axis=1)
        wide *= spread(channels[0])
    else:
        transposed = bool(int_attribute(layer, "transB", 0))
        channels = place.affine.spread(weight.shape[1 if transposed else 0])
        assert channels is not None
        added = wide @ channels[1] if transposed else channels[1] @ wide
        wide *= channels[0] if transposed else channels[0][:, None]
    _rename(place.between, names)
    bias = array_of(input_of(layer, 2))
    old = np.zeros(len(added)) if bias is None else vector(bias, len(added))
    assert old is not None
    store(layer, wide, old + added, names)


def store(layer: ir.Node, weight: np.ndarray, bias: np.ndarray, names: Names) -> None:
    """New weights and bias, in the type of the old weights.

    A MatMul of matrices becomes a Gemm to have a bias, another one gets an Add behind it.
    """
    graph, old = layer.graph, array_of(layer.inputs[1])
    assert isinstance(graph, ir.Graph)
    assert old is not None
    _set_constant(layer, 1, weight, names)
    if input_of(layer, 2) is not None:
        _set_constant(layer, 2, bias, names)
        return
    if is_op(layer, "MatMul") and not bias.any():
        return
    value = add_constant(graph, names.fresh(f"{title(layer)}.bias"), bias.astype(old.dtype))
    if not is_op(layer, "MatMul"):
        layer.resize_inputs(3)
        layer.replace_input_with(2, value)
    elif rank_of(layer.outputs[0]) == 2:
        replace_node(layer, "Gemm", [layer.inputs[0], layer.inputs[1], value])
    else:
        insert_after(layer.outputs[0], "Add", [layer.outputs[0], value], names)


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


def _rename(values: tuple[ir.Value, ...], names: Names) -> None:
    """A name stands for the same numbers before and after preparation; these have changed."""
    for value in values:
        value.name = names.fresh(f"{value.name}_scaled")
