"""Gradients through the whole executor against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.quant.encoding import encoding_from_range
from studio.quant.grid import Grid
from studio.quant.learned import LearnedQuantizer, LearnedRange, LearnedScale
from studio.quant.rounding import bounds
from studio.runtime.executor import Executor

FAMILIES: dict[str, tuple[list[tuple[Any, ...]], dict[str, tuple[int, ...]]]] = {
    "convolution": (
        [
            ("Conv", "x w b", "c", {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
            ("ConvTranspose", "c v", "t", {"strides": [2, 2]}),
            ("Relu", "t", "y", {}),
        ],
        {"x": (2, 3, 6, 6), "w": (4, 3, 3, 3), "b": (4,), "v": (4, 2, 2, 2)},
    ),
    "depthwise": (
        [("Conv", "x w", "c", {"group": 4, "dilations": [2, 2]}), ("Clip", "c", "y", {})],
        {"x": (2, 4, 7, 7), "w": (4, 1, 3, 3)},
    ),
    "matrix products": (
        [
            ("MatMul", "x w", "m", {}),
            ("Gemm", "m v b", "g", {"transB": 1, "alpha": 0.5}),
            ("Einsum", "g u", "y", {"equation": "ij,kj->ik"}),
        ],
        {"x": (3, 5), "w": (5, 4), "v": (6, 4), "b": (6,), "u": (2, 6)},
    ),
    "arithmetic": (
        [
            ("Add", "x w", "a", {}),
            ("Mul", "a x", "m", {}),
            ("Sub", "m w", "s", {}),
            ("Exp", "w", "e", {}),
            ("Div", "s e", "d", {}),
            ("Sqrt", "e", "r", {}),
            ("Pow", "e r", "p", {}),
            ("Log", "e", "l", {}),
            ("Neg", "l", "n", {}),
            ("Max", "d n", "h", {}),
            ("Abs", "h", "k", {}),
            ("Sum", "k p x", "y", {}),
        ],
        {"x": (3, 4), "w": (4,)},
    ),
    "activations": (
        [
            ("LeakyRelu", "x", "a", {"alpha": 0.2}),
            ("Sigmoid", "a", "b", {}),
            ("Tanh", "b", "c", {}),
            ("Gelu", "c", "d", {}),
            ("HardSwish", "d", "e", {}),
            ("Softplus", "e", "f", {}),
            ("Elu", "f", "g", {}),
            ("PRelu", "x s", "h", {}),
            ("Mish", "h", "i", {}),
            ("Erf", "i", "j", {}),
            ("Add", "g j", "k", {}),
            ("Softmax", "k", "l", {"axis": 1}),
            ("LogSoftmax", "l", "y", {"axis": 1}),
        ],
        {"x": (3, 5), "s": (5,)},
    ),
    "normalization": (
        [
            ("LayerNormalization", "x g b", "l", {"axis": -1}),
            ("InstanceNormalization", "l s o", "i", {}),
            ("GroupNormalization", "i s o", "n", {"num_groups": 2}),
            ("BatchNormalization", "n s o m v", "y", {}),
        ],
        {"x": (2, 4, 6), "g": (6,), "b": (6,), "s": (4,), "o": (4,), "m": (4,), "v": (4,)},
    ),
    "pooling": (
        [
            ("MaxPool", "x", "m", {"kernel_shape": [2, 2]}),
            ("AveragePool", "m", "a", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}),
            ("GlobalAveragePool", "a", "g", {}),
            ("Mul", "a g", "y", {}),
        ],
        {"x": (2, 3, 8, 8)},
    ),
    "reductions": (
        [
            ("ReduceMean", "x", "a", {"keepdims": 1}),
            ("ReduceMax", "x", "b", {"keepdims": 1}),
            ("ReduceL2", "x", "c", {"keepdims": 1}),
            ("ReduceLogSumExp", "x", "d", {"keepdims": 1}),
            ("ReduceSum", "x", "e", {"keepdims": 1}),
            ("Sum", "a b c d e", "f", {}),
            ("Mul", "f x", "y", {}),
        ],
        {"x": (3, 4)},
    ),
    "moving": (
        [
            ("Transpose", "x", "t", {"perm": [0, 2, 3, 1]}),
            ("Split", "t", "p q", {"axis": 3, "num_outputs": 2}),
            ("Concat", "q p q", "c", {"axis": 3}),
            ("Transpose", "c", "d", {"perm": [0, 3, 1, 2]}),
            ("Flatten", "d", "f", {}),
            ("SpaceToDepth", "x", "s", {"blocksize": 2}),
            ("DepthToSpace", "s", "z", {"blocksize": 2}),
            ("Flatten", "z", "g", {}),
            ("Concat", "f g", "y", {"axis": 1}),
        ],
        {"x": (2, 4, 4, 4)},
    ),
    **{
        cell: (
            [(cell, "x w r b", "s y", {"hidden_size": 3, "direction": "bidirectional"})],
            {
                "x": (4, 2, 5),
                "w": (2, gates * 3, 5),
                "r": (2, gates * 3, 3),
                "b": (2, gates * 6),
            },
        )
        for cell, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
    },
}


def opened(
    folder: Path,
    nodes: list[tuple[Any, ...]],
    shapes: dict[str, tuple[int, ...]],
    kind: int = TensorProto.DOUBLE,
) -> ModelGraph:
    """The graph of `nodes` (op, inputs, outputs, attributes); all tensors are inputs, y is the
    output."""
    graph = helper.make_graph(
        [
            helper.make_node(op, inputs.split(), outputs.split(), name=f"n{index}", **attributes)
            for index, (op, inputs, outputs, attributes) in enumerate(nodes)
        ],
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / f"model{kind}.onnx")
    return open_model(folder / f"model{kind}.onnx")


def numbers(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Random values; variances are positive."""
    generator = torch.Generator().manual_seed(3)
    values = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return values | {name: value.abs() + 0.5 for name, value in values.items() if name == "v"}


def slopes(
    function: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor], step: float
) -> dict[str, Tensor]:
    """Central differences of a scalar function in every coordinate."""
    found = {}
    for name, value in at.items():
        slope = torch.zeros_like(value)
        for index in range(value.numel()):
            ends = []
            for sign in (1, -1):
                moved = value.clone()
                moved.view(-1)[index] += sign * step
                with torch.no_grad():
                    ends.append(float(function({**at, name: moved})))
            slope.view(-1)[index] = (ends[0] - ends[1]) / (2 * step)
        found[name] = slope
    return found


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family(family: str, tmp_path: Path) -> None:
    """Float64, no quantizers: all inputs and weights."""
    nodes, shapes = FAMILIES[family]
    executor = Executor(opened(tmp_path, nodes, shapes))
    values = numbers(shapes)

    def loss(at: dict[str, Tensor]) -> Tensor:
        output = executor.run(at)["y"]
        mix = torch.arange(output.numel(), dtype=output.dtype).cos().view_as(output)
        return (output * mix).sum()

    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    loss(leaves).backward()
    for name, slope in slopes(loss, values, 1e-6).items():
        grad = leaves[name].grad
        assert grad is not None
        torch.testing.assert_close(grad, slope, rtol=1e-5, atol=1e-6, msg=lambda m: f"{name}: {m}")  # noqa: B023


QUANTIZED = (
    [
        ("Conv", "x w b", "c", {"pads": [1, 1, 1, 1]}),
        ("Relu", "c", "r", {}),
        ("AveragePool", "r", "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Sigmoid", "p", "s", {}),
        ("Add", "s p", "a", {}),
        ("Flatten", "a", "f", {}),
        ("MatMul", "f u", "y", {}),
    ],
    {"x": (2, 3, 4, 4), "w": (4, 3, 3, 3), "b": (4,), "u": (16, 3)},
)


class Frozen:
    """A quantizer whose rounding errors, and which values saturate, stay as at first: the function
    whose true gradient the straight-through one is. Parameters as those of `learned`, in float64.
    """

    def __init__(self, learned: LearnedQuantizer) -> None:
        self.learned = learned
        self.error: Tensor | None = None
        self.below = self.above = torch.zeros((), dtype=torch.bool)
        self.moved: Tensor | None = None

    def __call__(self, x: Tensor, at: dict[str, Tensor]) -> Tensor:
        low, high = bounds(self.learned.grid)
        if isinstance(self.learned, LearnedScale):
            scale, zero = at["scale"], at.get("zero_point", torch.zeros(()).double())
        else:
            scale = (at["maximum"] - at["minimum"]) / (high - low)
            ratio = at["minimum"] / scale
            if self.moved is None:
                self.moved = ratio.round() - ratio
            zero = low - (ratio + self.moved)
            zero = zero if not self.learned.grid.symmetric else torch.zeros(()).double()
        if self.learned.layout.axis is not None:
            scale = scale.view(-1, 1, 1, 1)
        steps = x / scale
        if self.error is None:
            self.error = steps.round() - steps
            numbers = steps.round()
            self.below, self.above = numbers < low - zero, numbers > high - zero
        inside = steps + self.error
        ends = torch.where(self.below, low - zero, torch.where(self.above, high - zero, inside))
        return scale * ends


@pytest.mark.parametrize("kind", [LearnedScale, LearnedRange])
def test_learned_ranges(kind: type[LearnedQuantizer], tmp_path: Path) -> None:
    """Every scale, zero point and end of a range of weights and activations, and every weight: the
    straight-through gradient of the executor in float32 against finite differences, in float64, of
    the same network with frozen rounding errors."""
    nodes, shapes = QUANTIZED
    single = Executor(opened(tmp_path, nodes, shapes, TensorProto.FLOAT))
    values = {name: value.float().double() for name, value in numbers(shapes).items()}
    with torch.no_grad():
        floats = {name: value.float() for name, value in values.items()}
        inner = single.run(floats, ["x", "r", "s", "a", "y"])
    weight, activation = (
        Grid(4, signed=True, symmetric=True),
        Grid(4, signed=False, symmetric=False),
    )
    learned: dict[str, LearnedQuantizer] = {}
    for name in ("w", "u"):
        array = floats[name].numpy()
        axes, axis = ((1, 2, 3), 0) if name == "w" else (None, None)
        ends = 0.8 * array.min(axes), 0.8 * array.max(axes)
        encoding = encoding_from_range(*ends, weight, axis)
        learned[name] = kind(encoding, array.ndim)
    for name, value in inner.items():
        # A share of the values saturates.
        ends = 0.5 * float(value.min()), 0.5 * float(value.max())
        encoding = encoding_from_range(*ends, activation)
        more = {"learn_zero_point": True} if kind is LearnedScale else {}
        learned[name] = kind(encoding, value.ndim, **more)
    executor = Executor(opened(tmp_path, nodes, shapes, TensorProto.FLOAT), quantize=learned)
    mix = torch.arange(6, dtype=torch.float64).cos().view(2, 3)
    leaves = {name: value.clone().requires_grad_() for name, value in floats.items()}
    (executor.run(leaves)["y"] * mix.float()).sum().backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items()}
    at = dict(values)
    for name, quantizer in learned.items():
        for key, parameter in quantizer.named_parameters():
            at[f"{name}/{key}"] = parameter.detach().double()
            gradients[f"{name}/{key}"] = parameter.grad
    frozen = {name: Frozen(quantizer) for name, quantizer in learned.items()}
    double = opened(tmp_path, nodes, shapes)

    def loss(at: dict[str, Tensor]) -> Tensor:
        def hook(name: str) -> Callable[[Tensor], Tensor]:
            own = {k.partition("/")[2]: v for k, v in at.items() if k.startswith(f"{name}/")}
            return lambda x: frozen[name](x, own)

        surrogate = Executor(double, quantize={name: hook(name) for name in frozen})
        return (surrogate.run({name: at[name] for name in shapes})["y"] * mix).sum()

    loss(at)  # takes the rounding errors
    for name, slope in slopes(loss, at, 1e-6).items():
        grad = gradients[name]
        assert grad is not None, name
        scale = float(slope.abs().max())
        assert scale > 0, name
        np.testing.assert_allclose(
            grad.double().numpy(), slope.numpy(), rtol=2e-3, atol=2e-4 * scale, err_msg=name
        )
