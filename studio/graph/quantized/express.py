"""Integer operators as float operators between QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from studio.errors import ModelError
from studio.graph.edit import Names
from studio.graph.model import Change, ModelGraph
from studio.graph.prepare.dead_code import remove_dead_code
from studio.graph.prepare.names import fill_names
from studio.graph.prepare.shapes import infer_shapes
from studio.graph.quantized.casts import express_casts, is_rounding_cast
from studio.graph.quantized.dynamic import DYNAMIC_OPS, MISFIT, lift_dynamic
from studio.graph.quantized.found import NotLiftableError
from studio.graph.quantized.moving import express_moving
from studio.graph.quantized.qlinear import RULES, Rewriter
from studio.graph.quantized.weight_blocks import express_matmul_nbits

REFUSED = frozenset(
    [
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QMoE",
        "QOrderedAttention",
        "QOrderedGelu",
        "QOrderedLayerNormalization",
        "QOrderedLongformerAttention",
        "QOrderedMatMul",
    ]
)
"""Operators on integers that cannot stay: nothing could be configured or measured around them."""


def express_as_qdq(graph: ModelGraph) -> ModelGraph:
    """`graph` with its QLinear, integer and MatMulNBits operators in float between Q and DQ.

    Scales and zero points are those of the file; activations that the file quantizes at run time
    are between DynamicQuantizeLinear and DQ. Raises ModelError that names the operators
    which cannot be written so, with the reason. A graph without any is returned as it is.
    """
    if not any(_concerned(node) for node in graph.ir.graph):
        return graph
    model = graph.ir.clone()
    fill_names(model)
    infer_shapes(model)
    names = Names(model.graph)
    problems: dict[tuple[str, str], list[str]] = {}
    expressed: dict[str, int] = {}
    dynamic = lift_dynamic(model.graph, names, problems)
    rewriter = Rewriter(model.graph, names)
    for node in list(model.graph):
        rule = RULES.get(node.op_type)
        if rule is None or node.graph is None:
            continue
        try:
            rule(rewriter, node)
        except NotLiftableError as problem:
            problems.setdefault((node.op_type, str(problem)), []).append(node.name or "")
            continue
        except (
            IndexError,
            ValueError,
        ):  # operands missing, or of shapes that contradict each other
            problems.setdefault((node.op_type, MISFIT), []).append(node.name or "")
            continue
        expressed[node.op_type] = expressed.get(node.op_type, 0) + 1
    express_moving(model.graph, names)
    blocks = express_matmul_nbits(model.graph, names)
    express_casts(model.graph, names)
    remove_dead_code(model)
    _refuse(graph, model, problems)
    infer_shapes(model)
    warnings = [*graph.warnings, *dynamic.warnings, *blocks.warnings]
    counts = {**expressed, **dynamic.expressed, **blocks.expressed}
    changes = [
        Change("integer operators", "", f"{count} {op} written in float, with their scales kept.")
        for op, count in sorted(counts.items())
    ]
    return replace(graph, ir=model, changes=(*graph.changes, *changes), warnings=tuple(warnings))


def _concerned(node: ir.Node) -> bool:
    return (
        node.op_type in RULES
        or node.op_type in DYNAMIC_OPS
        or node.op_type in REFUSED
        or node.op_type in ("MatMulNBits", "QuantizeLinear", "DequantizeLinear")
        or is_rounding_cast(node)
    )


def _refuse(graph: ModelGraph, model: ir.Model, problems: dict[tuple[str, str], list[str]]) -> None:
    reasons = dict(problems.keys())
    left: dict[str, list[str]] = {}
    for body in model.graphs():
        for node in body:
            if node.op_type in REFUSED or node.op_type.startswith("QLinear"):
                left.setdefault(node.op_type, []).append(node.name or "")
    if not left:
        return
    lines = []
    for op, nodes in sorted(left.items()):
        more = f" and {len(nodes) - 5} more" if nodes[5:] else ""
        reason = reasons.get(op, "the studio knows no float form of it")
        lines.append(f"  {op} ({reason}): {', '.join(nodes[:5])}{more}")
    raise ModelError(
        f"{graph.source.file_name} is quantized already, with operators that cannot be turned back "
        "into float ones:\n" + "\n".join(lines),
        "Open the float model it was made from, or quantize that one in QDQ format.",
    )
