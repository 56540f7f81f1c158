"""Gradients of the ops against differences, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from studio.runtime.ops.registry import Call, find

MICROSOFT = "com.microsoft"
torch.manual_seed(0)


def real(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


IMAGE = real(1, 2, 5, 4)
TOKENS, WIDE = real(2, 3, 4), real(2, 3, 8)
HEADS = {"num_heads": 2}
LINEAR = {"q_num_heads": 2, "kv_num_heads": 1}
GATE = -real(2, 3, 1).abs()
LABELS = torch.tensor([[0, 2], [1, 1]])
STEPS = real(3, 2, 2)


def weights(gates: int, directions: int) -> list[Tensor]:
    return [real(directions, gates * 2, 2), real(directions, gates * 2, 2)]


# (op, domain, opset, inputs, attributes); the float inputs are differentiated.
Case = tuple[str, str, int, list[Tensor | None], dict[str, Any]]
CASES: list[Case] = [
    ("LSTM", "", 14, [STEPS, *weights(4, 2), real(2, 16)], {"direction": "bidirectional"}),
    ("LSTM", "", 14, [STEPS, *weights(4, 1), real(1, 16), torch.tensor([3, 1])], {}),
    ("GRU", "", 14, [STEPS, *weights(3, 1), real(1, 12)], {"linear_before_reset": 1}),
    ("GRU", "", 14, [STEPS, *weights(3, 1)], {"direction": "reverse"}),
    ("RNN", "", 14, [STEPS, *weights(1, 1)], {"direction": "reverse"}),
    ("DFT", "", 20, [real(2, 5, 2)], {}),
    ("DFT", "", 20, [real(2, 5, 1), torch.tensor(8)], {"onesided": 1}),
    ("STFT", "", 17, [real(1, 12), torch.tensor(3), real(6)], {}),
    (
        "DeformConv",
        "",
        19,
        [IMAGE, real(3, 2, 2, 2), real(1, 8, 4, 3), real(3), real(1, 4, 4, 3)],
        {},
    ),
    ("LinearAttention", "", 27, [WIDE, TOKENS, TOKENS, None, GATE, GATE.exp()], LINEAR),
    (
        "CausalConvWithState",
        "",
        27,
        [real(1, 2, 5), real(2, 1, 3), real(2)],
        {"activation": "silu"},
    ),
    ("NegativeLogLikelihoodLoss", "", 13, [real(2, 3, 2), LABELS], {}),
    ("SoftmaxCrossEntropyLoss", "", 13, [real(2, 3, 2), LABELS], {}),
    ("Col2Im", "", 18, [real(1, 8, 2), torch.tensor([2, 2, 3]), torch.tensor([2, 2, 2])], {}),
    (
        "FlexAttention",
        "ai.onnx.preview",
        1,
        [real(1, 2, 3, 4), real(1, 1, 3, 4), real(1, 1, 3, 4)],
        {},
    ),
    ("FusedConv", MICROSOFT, 1, [IMAGE, real(3, 2, 2, 2), real(3)], {"activation": "Tanh"}),
    ("FusedGemm", MICROSOFT, 1, [real(2, 3), real(3, 2), real(2)], {"activation": "Sigmoid"}),
    ("FusedMatMul", MICROSOFT, 1, [real(2, 3), real(2, 3)], {"transB": 1, "alpha": 0.5}),
    ("BiasGelu", MICROSOFT, 1, [TOKENS, real(4)], {}),
    ("FastGelu", MICROSOFT, 1, [TOKENS, real(4)], {}),
    ("QuickGelu", MICROSOFT, 1, [TOKENS], {}),
    ("SkipLayerNormalization", MICROSOFT, 1, [TOKENS, real(2, 3, 4), real(4), real(4)], {}),
    ("SkipSimplifiedLayerNormalization", MICROSOFT, 1, [TOKENS, real(2, 3, 4), real(4)], {}),
    ("Attention", MICROSOFT, 1, [TOKENS, real(4, 12), real(12)], HEADS | {"unidirectional": 1}),
    ("MultiHeadAttention", MICROSOFT, 1, [TOKENS, real(2, 5, 4), real(2, 5, 4)], HEADS),
    ("RotaryEmbedding", MICROSOFT, 1, [WIDE, torch.tensor([1]), real(6, 2), real(6, 2)], HEADS),
    ("GroupNorm", MICROSOFT, 1, [real(1, 2, 2, 4), real(4), real(4)], {"groups": 2}),
    (
        "CropAndResize",
        MICROSOFT,
        1,
        [
            IMAGE,
            torch.tensor([[0.1, 0.2, 0.8, 0.7]]).double(),
            torch.tensor([0]),
            torch.tensor([3, 3]),
        ],
        {},
    ),
]


@pytest.mark.parametrize(
    ("op", "domain", "opset", "inputs", "attributes"),
    CASES,
    ids=[f"{op}-{i}" for i, (op, *_) in enumerate(CASES)],
)
def test_gradient(
    op: str, domain: str, opset: int, inputs: list[Tensor | None], attributes: dict[str, Any]
) -> None:
    function = find(domain, op).function
    call = Call(op, opset, attributes)
    trained = [i for i, x in enumerate(inputs) if x is not None and x.is_floating_point()]

    def value(*leaves: Tensor) -> Tensor:
        arguments = list(inputs)
        for i, leaf in zip(trained, leaves, strict=True):
            arguments[i] = leaf
        result = function(call, *arguments)
        return result if isinstance(result, Tensor) else result[0]

    leaves = [inputs[i].clone().requires_grad_() for i in trained]
    assert torch.autograd.gradcheck(value, leaves)


def test_gradient_of_region_pooling_reaches_the_image() -> None:
    boxes, image = torch.tensor([[0.3, 0.2, 2.8, 3.9]]), torch.tensor([0])
    function = find("", "RoiAlign").function
    for mode in ("avg", "max"):
        call = Call("RoiAlign", 16, {"output_height": 2, "output_width": 2, "mode": mode})
        leaf = IMAGE.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, call=call: function(call, x, boxes, image), leaf)


def test_gradient_of_packed_weights_reaches_the_scales() -> None:
    packed = torch.randint(0, 256, (3, 2, 8), dtype=torch.uint8)
    call = Call("MatMulNBits", 1, {"N": 3, "K": 32, "block_size": 16})
    function = find(MICROSOFT, "MatMulNBits").function
    leaves = (real(2, 32).requires_grad_(), real(3, 2).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, scales: function(call, a, packed, scales), leaves)
