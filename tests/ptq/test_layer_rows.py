"""Rows of layers: multiplied by the weight matrix they give what torch's layers give."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F

from studio.ptq.layer_rows import take_rows, weight_matrix


def product(head: ir.Node, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> None:
    rows = take_rows(head, x, y, weight, 10**6, torch.Generator().manual_seed(0))
    found = torch.einsum("rgi,goi->rgo", rows.inputs, weight_matrix(head, weight))
    assert rows.targets.numel() == y.numel()
    torch.testing.assert_close(found, rows.targets, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("groups", "stride", "dilation", "pads"),
    [(1, 1, 1, (1, 1, 1, 1)), (2, 2, 1, (0, 1, 2, 1)), (4, 1, 2, (2, 2, 2, 2))],
)
def test_convolutions(groups: int, stride: int, dilation: int, pads: tuple[int, ...]) -> None:
    x, weight = torch.randn(3, 4, 9, 11), torch.randn(8, 4 // groups, 3, 3)
    top, left, bottom, right = pads
    padded = F.pad(x, (left, right, top, bottom))
    y = F.conv2d(padded, weight, None, stride, 0, dilation, groups)
    attributes = {
        "group": groups,
        "strides": [stride, stride],
        "dilations": [dilation, dilation],
        "pads": list(pads),
    }
    product(ir.node("Conv", [ir.Value(), ir.Value()], attributes), x, y, weight)


def test_convolutions_along_time_and_in_space() -> None:
    x, weight = torch.randn(2, 3, 20), torch.randn(5, 3, 4)
    node = ir.node("Conv", [ir.Value(), ir.Value()], {"auto_pad": "SAME_UPPER", "strides": [2]})
    product(node, x, F.conv1d(F.pad(x, (1, 1)), weight, stride=2), weight)
    x, weight = torch.randn(2, 3, 5, 6, 7), torch.randn(4, 3, 2, 3, 2)
    node = ir.node("Conv", [ir.Value(), ir.Value()])
    product(node, x, F.conv3d(x, weight), weight)


def test_matrices() -> None:
    x, weight = torch.randn(6, 5), torch.randn(7, 5)
    node = ir.node("Gemm", [ir.Value(), ir.Value()], {"transB": 1})
    product(node, x, F.linear(x, weight), weight)
    sequence = torch.randn(2, 6, 5)
    node = ir.node("MatMul", [ir.Value(), ir.Value()])
    product(node, sequence, sequence @ weight.t(), weight.t().contiguous())


def test_some_rows_are_drawn_from_everywhere() -> None:
    x, weight = torch.randn(4, 2, 8, 8), torch.randn(2, 2, 1, 1)
    rows = take_rows(
        ir.node("Conv", [ir.Value(), ir.Value()]),
        x,
        F.conv2d(x, weight),
        weight,
        50,
        torch.Generator().manual_seed(0),
    )
    assert len(rows) == 50
    assert len(torch.unique(rows.inputs, dim=0)) == 50
