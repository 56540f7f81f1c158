"""What is shown about a node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from graph_models import as_graph, make_model, node
from torch.utils.flop_counter import FlopCounterMode

from studio.graph.describe import (
    display_shape,
    macs,
    op_summary,
    parameters,
    scope,
    source_line,
)
from studio.graph.model import ModelGraph
from studio.graph.prepare import prepare


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def single(
    op: str, inputs: dict[str, np.ndarray], x: tuple[int | str, ...], **attrs: object
) -> tuple[ModelGraph, ir.Node]:
    model = make_model([node(op, ["x", *inputs], ["y"], name="it", **attrs)], inputs, x=x)
    graph = prepare(as_graph(model))
    return graph, graph.node("it")


@pytest.mark.parametrize(
    ("op", "weights", "x", "attrs", "summary"),
    [
        ("Conv", [(8, 3, 3, 3)], (1, 3, 9, 9), {"strides": [2, 2]}, "Conv 3×3, stride 2"),
        ("Conv", [(6, 1, 5, 5)], (1, 6, 9, 9), {"group": 6}, "Conv 5×5 depthwise"),
        ("Conv", [(6, 2, 1, 3)], (1, 6, 9, 9), {"group": 3}, "Conv 1×3, 3 groups"),
        ("Conv", [(6, 2, 3)], (1, 2, 9), {"dilations": [2]}, "Conv 3, dilation 2"),
        ("ConvTranspose", [(6, 1, 2, 2)], (1, 6, 4, 4), {"group": 6},
         "ConvTranspose 2×2 depthwise"),
        ("Gemm", [(5, 7)], (1, 7), {"transB": 1}, "Gemm 7→5"),
        ("MatMul", [(7, 5)], (1, 7), {}, "MatMul 7→5"),
        ("MaxPool", [], (1, 3, 8, 8), {"kernel_shape": [3, 2], "strides": [2, 1]},
         "MaxPool 3×2, stride 2×1"),
        ("Softmax", [], (1, 3), {"axis": 1}, "Softmax, axis 1"),
        ("Relu", [], (1, 3), {}, "Relu"),
    ],
)  # fmt: skip
def test_op_summary(
    op: str, weights: list[tuple[int, ...]], x: tuple[int, ...], attrs: dict, summary: str
) -> None:
    inputs = {f"w{i}": floats(*shape) for i, shape in enumerate(weights)}
    _, it = single(op, inputs, x, **attrs)
    assert op_summary(it) == summary


def test_op_summary_of_clip() -> None:
    limits = {"low": np.float32(0), "high": np.float32(6)}
    _, it = single("Clip", limits, (1, 3))
    assert op_summary(it) == "Clip 0 to 6"


@pytest.mark.parametrize(
    ("op", "weight", "x", "attrs", "call"),
    [
        ("Conv", (8, 3, 3, 3), (1, 3, 9, 9), {"strides": [2, 2]},
         lambda x, w: torch.conv2d(x, w, stride=2)),
        ("Conv", (6, 2, 3, 3), (1, 6, 9, 9), {"group": 3},
         lambda x, w: torch.conv2d(x, w, groups=3)),
        ("ConvTranspose", (6, 4, 2, 2), (1, 6, 5, 5), {"strides": [2, 2]},
         lambda x, w: torch.conv_transpose2d(x, w, stride=2)),
        ("Gemm", (5, 7), (3, 7), {"transB": 1}, lambda x, w: torch.mm(x, w.T)),
        ("MatMul", (7, 5), (2, 3, 7), {}, lambda x, w: torch.matmul(x, w)),
    ],
)  # fmt: skip
def test_macs_are_half_of_torchs_flops(
    op: str, weight: tuple[int, ...], x: tuple[int, ...], attrs: dict, call: object
) -> None:
    graph, it = single(op, {"w": floats(*weight)}, x, **attrs)
    with FlopCounterMode(display=False) as counter:
        call(torch.zeros(x), torch.zeros(weight))
    assert macs(graph, it) == counter.get_total_flops() // 2


def test_macs_for_one_sample_and_unknown() -> None:
    graph, it = single("Conv", {"w": floats(8, 3, 3, 3)}, ("N", 3, 9, 9))
    assert macs(graph, it) == 8 * 7 * 7 * 27
    graph, it = single("Conv", {"w": floats(8, 3, 3, 3)}, ("N", 3, "H", 9))
    assert macs(graph, it) is None
    graph, it = single("Relu", {}, ("N", 3))
    assert macs(graph, it) is None


def test_display_shape() -> None:
    def shown(*sizes: object) -> str:
        return display_shape(ir.Value(name="v", shape=ir.Shape(sizes)))

    assert shown("batch", 96, 56, 56) == "N×96×56×56"
    assert shown(1, 3, "height", "unk__4") == "1×3×height×?"
    assert shown(None, "floor(h/2)") == "N×?"
    assert shown() == "scalar"
    assert display_shape(ir.Value(name="v")) == ""


def test_parameters_count_floats_only() -> None:
    _, conv = single("Conv", {"w": floats(8, 3, 3, 3), "b": floats(8)}, (1, 3, 9, 9))
    assert parameters(conv) == 8 * 27 + 8
    _, reshape = single("Reshape", {"shape": np.array([0, -1])}, (1, 3, 9))
    assert parameters(reshape) == 0


def metadata_node(**metadata: str) -> ir.Node:
    props = {f"pkg.torch.onnx.{key}": value for key, value in metadata.items()}
    return ir.Node("", "Relu", [], metadata_props=props)


def test_scope_and_source_line() -> None:
    assert scope(metadata_node(name_scopes="['', 'a', 'a.b', 'conv2d']")) == "a.b"
    assert scope(metadata_node(name_scopes="['', 'relu']")) == ""
    assert scope(metadata_node(name_scopes="[broken")) == ""
    assert scope(metadata_node()) == ""
    trace = (
        'File "/home/me/model.py", line 30, in forward\n    x = self.block(x)\n'
        '  File "/home/me/model.py", line 118, in forward\n    return self.pad(x)\n'
        '  File "/venv/lib/python3.11/site-packages/torch/nn/padding.py", line 9, in forward'
    )
    assert source_line(metadata_node(stack_trace=trace)) == "model.py:118"
    windows = 'File "C:\\models\\net.py", line 7, in forward'
    assert source_line(metadata_node(stack_trace=windows)) == "net.py:7"
    assert source_line(metadata_node()) == ""
