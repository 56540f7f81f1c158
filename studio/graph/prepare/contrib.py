"""Operators of com.microsoft that onnxruntime's optimiser writes, as the standard ones they are.

Source: onnxruntime/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from studio.graph.edit import (
    Names,
    absorb,
    add_constant,
    float_attribute,
    input_of,
    insert_after,
    insert_before,
    int_attribute,
)
from studio.graph.model import Change
from studio.graph.prepare.channels import rank_of
from studio.graph.scopes import title

DOMAIN = "com.microsoft"
RULE = "standard operators"
OWN = ("activation", "activation_params", "activation_alpha", "activation_beta",
       "activation_gamma")  # fmt: skip


def replace_contrib(model: ir.Model) -> list[Change]:
    """Every com.microsoft operator that standard ones compute exactly becomes those."""
    changes: list[Change] = []
    names: Names | None = None
    opset = model.opset_imports.get("", 0)
    for node in list(model.graph):
        rewrite = REWRITES.get(node.op_type) if node.domain == DOMAIN else None
        if rewrite is None or opset < SINCE.get(node.op_type, 0):
            continue
        if names is None:
            names = Names(model.graph)
        name, op = title(node), node.op_type
        if rewrite(node, names):
            detail = f"{op} of com.microsoft became the standard operators it consists of."
            changes.append(Change(RULE, name, detail))
    return changes


def _fused_conv(node: ir.Node, names: Names) -> bool:
    """activation(Conv(X, W, B) + Z)."""
    residual, attributes = input_of(node, 3), _attributes(node)
    if not _knows_activation(node):
        return False
    result = _restart(node, "Conv", list(node.inputs[:3]), attributes)
    if residual is not None:
        result = insert_after(result, "Add", [result, residual], names)
    _activate(node, result, names)
    return True


def _fused_gemm(node: ir.Node, names: Names) -> bool:
    if not _knows_activation(node):
        return False
    _activate(node, _restart(node, "Gemm", list(node.inputs), _attributes(node)), names)
    return True


def _knows_activation(node: ir.Node) -> bool:
    return _activation(node) in ("", "Relu", "LeakyRelu", "Tanh", "Sigmoid", "Clip", "HardSigmoid")


def _activation(node: ir.Node) -> str:
    attribute = node.attributes.get("activation")
    return "" if attribute is None else attribute.as_string()


def _attributes(node: ir.Node) -> dict[str, ir.Attr]:
    return {name: a for name, a in node.attributes.items() if name not in OWN}


def _restart(
    node: ir.Node, op_type: str, inputs: list[ir.Value | None], attributes: dict[str, ir.Attr]
) -> ir.Value:
    """A standard operator in the place of `node`, which is left without readers; its result."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    new = ir.Node("", op_type, inputs, list(attributes.values()), num_outputs=1, name=node.name,
                  metadata_props=dict(node.metadata_props))  # fmt: skip
    graph.insert_before(node, new)
    absorb(node, new.outputs[0])
    return new.outputs[0]


def _activate(node: ir.Node, value: ir.Value, names: Names) -> None:
    kind, params = _activation(node), _activation_params(node)
    producer = value.producer()
    if not kind or producer is None:
        return
    graph = producer.graph
    assert isinstance(graph, ir.Graph)
    if kind == "Clip":
        bounds = [
            add_constant(graph, names.fresh(f"{title(node)}.{what}"), np.array(number, np.float32))
            for what, number in zip(("min", "max"), params, strict=True)
        ]
        insert_after(value, "Clip", [value, *bounds], names)
        return
    attributes = dict(zip(("alpha", "beta"), params, strict=False))
    insert_after(value, kind, [value], names, **attributes)


def _activation_params(node: ir.Node) -> list[float]:
    """In the order alpha, beta (min, max of a Clip)."""
    listed = node.attributes.get("activation_params")
    if listed is not None:
        return list(listed.as_floats())
    named = [node.attributes.get(f"activation_{name}") for name in ("alpha", "beta")]
    return [attribute.as_float() for attribute in named if attribute is not None]


def _fused_matmul(node: ir.Node, names: Names) -> bool:
    """alpha * op(A) op(B), where op may swap the last two axes."""
    if int_attribute(node, "transBatchA", 0) or int_attribute(node, "transBatchB", 0):
        return False
    operands = list(node.inputs)
    for index, attribute in enumerate(("transA", "transB")):
        value = operands[index]
        if value is None or not int_attribute(node, attribute, 0):
            continue
        rank = rank_of(value)
        if rank is None or rank < 2:
            return False
        perm = [*range(rank - 2), rank - 1, rank - 2]
        operands[index] = insert_before(node, "Transpose", [value], names, perm=perm)
        turned = operands[index]
        if turned is not None and value.shape is not None:
            turned.shape = ir.Shape([value.shape[axis] for axis in perm])
    alpha = float_attribute(node, "alpha", 1.0)
    result = _restart(node, "MatMul", operands, {})
    if alpha != 1.0:
        producer = result.producer()
        assert producer is not None
        factor = _near(producer, result, alpha, names)
        insert_after(result, "Mul", [result, factor], names)
    return True


def _bias_gelu(node: ir.Node, names: Names) -> bool:
    source = insert_before(node, "Add", [node.inputs[0], node.inputs[1]], names)
    return _gelu_of(node, source, names)


def _gelu(node: ir.Node, names: Names) -> bool:
    source = node.inputs[0]
    return source is not None and _gelu_of(node, source, names)


def _gelu_of(node: ir.Node, source: ir.Value, names: Names) -> bool:
    """0.5 x (1 + erf(x / sqrt(2)))."""
    value = insert_before(node, "Div", [source, _near(node, source, 2**0.5, names)], names)
    value = insert_before(node, "Erf", [value], names)
    value = insert_before(node, "Add", [value, _near(node, source, 1.0, names)], names)
    value = insert_before(node, "Mul", [source, value], names)
    _restart(node, "Mul", [value, _near(node, source, 0.5, names)], {})
    return True


def _fast_gelu(node: ir.Node, names: Names) -> bool:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) of x plus bias."""
    source = node.inputs[0]
    if source is None:
        return False
    if input_of(node, 1) is not None:
        source = insert_before(node, "Add", [source, node.inputs[1]], names)
    cube = insert_before(node, "Pow", [source, _near(node, source, 3.0, names)], names)
    value = insert_before(node, "Mul", [cube, _near(node, source, 0.044715, names)], names)
    value = insert_before(node, "Add", [source, value], names)
    factor = _near(node, source, (2 / np.pi) ** 0.5, names)
    value = insert_before(node, "Mul", [value, factor], names)
    value = insert_before(node, "Tanh", [value], names)
    value = insert_before(node, "Add", [value, _near(node, source, 1.0, names)], names)
    value = insert_before(node, "Mul", [source, value], names)
    _restart(node, "Mul", [value, _near(node, source, 0.5, names)], {})
    return True


def _quick_gelu(node: ir.Node, names: Names) -> bool:
    """x sigmoid(alpha x)."""
    source, alpha = node.inputs[0], float_attribute(node, "alpha", 1.702)
    if source is None:
        return False
    value = source
    if alpha != 1.0:
        value = insert_before(node, "Mul", [source, _near(node, source, alpha, names)], names)
    value = insert_before(node, "Sigmoid", [value], names)
    _restart(node, "Mul", [source, value], {})
    return True


def _skip_layer_norm(node: ir.Node, names: Names) -> bool:
    """LayerNormalization of input + skip + bias over the last axis; output 3 is that sum."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:3]):
        return False
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    total = insert_before(node, "Add", [node.inputs[0], node.inputs[1]], names)
    if input_of(node, 4) is not None:
        total = insert_before(node, "Add", [total, node.inputs[4]], names)
    if len(node.outputs) > 3 and (node.outputs[3].uses() or node.outputs[3].is_graph_output()):
        asked = node.outputs[3]
        name = asked.name
        asked.replace_all_uses_with(total, replace_graph_outputs=True)
        asked.name, total.name = "", name
    attributes = {
        "axis": ir.AttrInt64("axis", -1),
        "epsilon": ir.AttrFloat32("epsilon", float_attribute(node, "epsilon", 1e-12)),
    }
    operands = [total, node.inputs[2]]
    if input_of(node, 3) is not None:
        operands.append(node.inputs[3])
    _restart(node, "LayerNormalization", operands, attributes)
    return True


def _near(node: ir.Node, like: ir.Value, number: float, names: Names) -> ir.Value:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    dtype = np.float32 if like.dtype is None else like.dtype.numpy()
    return add_constant(graph, names.fresh(f"{title(node)}.constant"), np.array(number, dtype))


SINCE = {"SkipLayerNormalization": 17}
"""Opset from which the standard operators exist; before it the operator stays as it is."""

REWRITES: dict[str, Callable[[ir.Node, Names], bool]] = {
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "BiasGelu": _bias_gelu,
    "Gelu": _gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_norm,
}
