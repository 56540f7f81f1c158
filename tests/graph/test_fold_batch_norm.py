"""Folding batch norms must not change what a model computes; onnxruntime judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from graph_models import as_graph, assert_same_outputs, export, make_model, node, ops, randomise
from torch import nn

from studio.graph.prepare import prepare

RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def batch_norm(channels: int) -> dict[str, np.ndarray]:
    positive = RNG.uniform(0.2, 3, channels).astype(np.float32)
    return {
        "gamma": floats(channels) * 2,
        "beta": floats(channels),
        "mean": floats(channels),
        "var": positive,
    }


BN = ["gamma", "beta", "mean", "var"]

FOLDING = {
    "conv-bn": (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)), (2, 3, 9, 9)),
    "conv without bias": (
        nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)),
        (2, 3, 9, 9),
    ),
    "conv1d": (nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8)), (2, 3, 9)),
    "conv3d": (nn.Sequential(nn.Conv3d(3, 8, 2), nn.BatchNorm3d(8)), (2, 3, 5, 5, 5)),
    "depthwise": (
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8)),
        (2, 8, 9, 9),
    ),
    "grouped": (nn.Sequential(nn.Conv2d(6, 9, 3, groups=3), nn.BatchNorm2d(9)), (2, 6, 9, 9)),
    "conv transpose": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)),
        (2, 4, 5, 5),
    ),
    "grouped conv transpose": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
        (2, 4, 5, 5),
    ),
    "depthwise conv transpose": (
        nn.Sequential(nn.ConvTranspose2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6)),
        (2, 6, 5, 5),
    ),
    "linear-bn": (nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)), (2, 5)),
    "linear without bias": (
        nn.Sequential(nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7)),
        (2, 5),
    ),
    "bn-conv": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)), (2, 3, 9, 9)),
    "bn-grouped conv": (
        nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 9, 3, groups=3, bias=False)),
        (2, 6, 9, 9),
    ),
    "bn-linear": (nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 7)), (2, 5)),
    "both sides": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)),
        (2, 3, 9, 9),
    ),
    "two in a row": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)),
        (2, 3, 9, 9),
    ),
}


@pytest.mark.parametrize("name", FOLDING)
def test_torch_models_fold_completely(name: str, tmp_path: Path) -> None:
    module, shape = FOLDING[name]
    raw = export(randomise(module), shape, folder=tmp_path)
    graph = prepare(raw)
    assert "BatchNormalization" not in ops(graph)
    assert any(change.rule == "fold batch norm" for change in graph.changes)
    assert not graph.warnings
    assert_same_outputs(raw.to_proto(), graph)


@pytest.mark.parametrize("bias_shape", [(7,), (1, 7), (1,)])
def test_matmul_add_bn(bias_shape: tuple[int, ...]) -> None:
    model = make_model(
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Add", ["b", "m"], ["a"]),
            node("BatchNormalization", ["a", *BN], ["y"]),
        ],
        {"w": floats(5, 7), "b": floats(*bias_shape), **batch_norm(7)},
        x=("N", 5),
    )
    graph = prepare(as_graph(model))
    assert "BatchNormalization" not in ops(graph)
    assert_same_outputs(model, graph)


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("before", [True, False])
def test_gemm_with_factors(trans_b: int, before: bool) -> None:
    gemm = {"alpha": 0.5, "beta": 3.0, "transB": trans_b}
    bn = batch_norm(7 if before else 5)
    nodes = (
        [
            node("Gemm", ["x", "w", "b"], ["m"], **gemm),
            node("BatchNormalization", ["m", *BN], ["y"]),
        ]
        if before
        else [
            node("BatchNormalization", ["x", *BN], ["m"]),
            node("Gemm", ["m", "w", "b"], ["y"], **gemm),
        ]
    )
    weights = {"w": floats(7, 5) if trans_b else floats(5, 7), "b": floats(7), **bn}
    model = make_model(nodes, weights, x=("N", 5))
    graph = prepare(as_graph(model))
    assert ops(graph) == ["Gemm"]
    assert_same_outputs(model, graph)


def test_bn_matmul_becomes_gemm_with_a_bias() -> None:
    model = make_model(
        [node("BatchNormalization", ["x", *BN], ["n"]), node("MatMul", ["n", "w"], ["y"])],
        {"w": floats(5, 7), **batch_norm(5)},
        x=("N", 5),
    )
    graph = prepare(as_graph(model))
    assert ops(graph) == ["Gemm"]
    assert_same_outputs(model, graph)


def test_the_tensor_after_the_bn_keeps_its_name() -> None:
    model = make_model(
        [
            node("Conv", ["x", "w"], ["c"], name="conv"),
            node("BatchNormalization", ["c", *BN], ["normed"]),
            node("Relu", ["normed"], ["y"]),
        ],
        {"w": floats(4, 3, 1, 1), **batch_norm(4)},
        x=("N", 3, 5, 5),
    )
    graph = prepare(as_graph(model))
    assert graph.node("conv").outputs[0].name == "normed"
    assert "conv.bias" in graph.initializers
    assert_same_outputs(model, graph)


def test_weights_shared_by_two_convs_are_folded_for_one_only() -> None:
    model = make_model(
        [
            node("Conv", ["x", "w"], ["c"]),
            node("BatchNormalization", ["c", *BN], ["n"]),
            node("Conv", ["x", "w"], ["d"]),
            node("Add", ["n", "d"], ["y"]),
        ],
        {"w": floats(4, 3, 3, 3), **batch_norm(4)},
        x=("N", 3, 5, 5),
    )
    graph = prepare(as_graph(model))
    assert "BatchNormalization" not in ops(graph)
    assert_same_outputs(model, graph)


def refuses(model: object, reason: str) -> None:
    """It becomes a Mul and an Add, and the change says why."""
    graph = prepare(as_graph(model))
    assert "BatchNormalization" not in ops(graph)
    assert not [change for change in graph.changes if change.rule == "fold batch norm"]
    (split,) = [change for change in graph.changes if change.rule == "split batch norm"]
    assert reason in split.detail
    assert graph.node(split.layer).op_type == "Add"
    assert_same_outputs(model, graph)


def test_refuses_where_the_conv_output_is_used_twice() -> None:
    model = make_model(
        [
            node("Conv", ["x", "w"], ["c"]),
            node("BatchNormalization", ["c", *BN], ["n"]),
            node("Add", ["c", "n"], ["y"]),
        ],
        {"w": floats(4, 3, 3, 3), **batch_norm(4)},
        x=("N", 3, 5, 5),
    )
    refuses(model, "used elsewhere too")


def test_refuses_where_the_conv_output_leaves_the_graph() -> None:
    model = make_model(
        [node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", *BN], ["y"])],
        {"w": floats(4, 3, 3, 3), **batch_norm(4)},
        x=("N", 3, 5, 5),
        extra_outputs=("c",),
    )
    refuses(model, "used elsewhere too")


def test_refuses_forward_into_a_padded_conv() -> None:
    model = make_model(
        [
            node("BatchNormalization", ["x", *BN], ["n"]),
            node("Conv", ["n", "w"], ["y"], pads=[1, 1, 1, 1]),
        ],
        {"w": floats(4, 3, 3, 3), **batch_norm(3)},
        x=("N", 3, 5, 5),
    )
    refuses(model, "pads its input")


def test_refuses_forward_where_the_bn_output_is_used_twice() -> None:
    model = make_model(
        [
            node("BatchNormalization", ["x", *BN], ["n"]),
            node("Conv", ["n", "w"], ["c"]),
            node("Add", ["n", "c"], ["y"]),
        ],
        {"w": floats(3, 3, 1, 1), **batch_norm(3)},
        x=("N", 3, 5, 5),
    )
    refuses(model, "used more than once")


def test_refuses_a_matmul_with_channels_on_another_axis() -> None:
    model = make_model(
        [node("MatMul", ["x", "w"], ["m"]), node("BatchNormalization", ["m", *BN], ["y"])],
        {"w": floats(5, 4), **batch_norm(4)},
        x=("N", 4, 5),
    )
    refuses(model, "another axis")


def test_refuses_undefined_factors() -> None:
    bn = batch_norm(4) | {"var": np.array([-1, 1, 1, 1], np.float32)}
    model = make_model(
        [node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", *BN], ["y"])],
        {"w": floats(4, 3, 1, 1), **bn},
        x=("N", 3, 5, 5),
    )
    graph = prepare(as_graph(model))
    assert "undefined" in graph.warnings[0]


def test_bn_after_a_constant_added_per_channel() -> None:
    model = make_model(
        [
            node("ConvTranspose", ["x", "w"], ["c"], strides=[2, 2]),
            node("Add", ["c", "b"], ["a"]),
            node("BatchNormalization", ["a", *BN], ["y"]),
        ],
        {"w": floats(3, 4, 2, 2), "b": floats(1, 4, 1, 1), **batch_norm(4)},
        x=("N", 3, 5, 5),
    )
    graph = prepare(as_graph(model))
    assert ops(graph) == ["ConvTranspose"]
    assert_same_outputs(model, graph)


def test_bn_used_twice_in_torch(tmp_path: Path) -> None:
    """The module's one batch norm becomes two operators; each goes into its own conv."""
    raw = export(randomise(Twice()), (2, 4, 6, 6), folder=tmp_path)
    graph = prepare(raw)
    assert "BatchNormalization" not in ops(graph)
    assert_same_outputs(raw.to_proto(), graph)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.two(torch.relu(self.bn(self.one(x)))))


REGROUPED = {
    "reshape behind a linear layer": (
        [
            node("Gemm", ["x", "w", "b"], ["g"]),
            node("Reshape", ["g", "image"], ["i"]),
            node("BatchNormalization", ["i", *BN], ["y"]),
        ],
        {"w": floats(5, 24), "b": floats(24), "image": np.array([-1, 4, 2, 3])},
        ("N", 5),
        ["Gemm", "Reshape"],
    ),
    "transpose behind a product of tokens": (
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Transpose", ["m"], ["t"], perm=[0, 2, 1]),
            node("BatchNormalization", ["t", *BN], ["y"]),
        ],
        {"w": floats(5, 4)},
        ("N", 7, 5),
        ["MatMul", "Add", "Transpose"],
    ),
    "flatten behind a convolution": (
        [
            node("Conv", ["x", "w"], ["c"]),
            node("Squeeze", ["c", "axes"], ["f"]),
            node("BatchNormalization", ["f", *BN], ["y"]),
        ],
        {"w": floats(4, 3, 2, 2), "axes": np.array([2, 3])},
        ("N", 3, 2, 2),
        ["Conv", "Squeeze"],
    ),
    "flatten before a linear layer": (
        [
            node("BatchNormalization", ["x", *BN], ["n"]),
            node("Flatten", ["n"], ["f"]),
            node("Gemm", ["f", "w", "b"], ["y"], transB=1),
        ],
        {"w": floats(5, 24), "b": floats(5)},
        ("N", 4, 2, 3),
        ["Flatten", "Gemm"],
    ),
    "five axes": (
        [node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", *BN], ["y"])],
        {"w": floats(4, 3, 2, 2, 2)},
        ("N", 3, 4, 4, 4),
        ["Conv"],
    ),
    "three axes": (
        [node("ConvTranspose", ["x", "w"], ["c"]), node("BatchNormalization", ["c", *BN], ["y"])],
        {"w": floats(3, 4, 2)},
        ("N", 3, 6),
        ["ConvTranspose"],
    ),
}


@pytest.mark.parametrize("name", REGROUPED)
def test_channels_are_followed_through_regrouping(name: str) -> None:
    nodes, weights, shape, left = REGROUPED[name]
    model = make_model(nodes, {**weights, **batch_norm(4)}, x=shape)
    graph = prepare(as_graph(model))
    assert ops(graph) == left
    assert_same_outputs(model, graph)


def test_tensors_on_the_way_do_not_keep_a_name_for_other_numbers() -> None:
    nodes, weights, shape, _ = REGROUPED["reshape behind a linear layer"]
    model = make_model(nodes, {**weights, **batch_norm(4)}, x=shape)
    graph = prepare(as_graph(model))
    assert not graph.has_value("g")
    assert not graph.has_value("i")  # it holds what y did


def test_a_channel_that_is_cut_in_two_is_not_followed() -> None:
    model = make_model(
        [
            node("Gemm", ["x", "w"], ["g"]),
            node("Reshape", ["g", "image"], ["i"]),
            node("BatchNormalization", ["i", *BN], ["y"]),
        ],
        {"w": floats(5, 24), "image": np.array([-1, 4, 3]), **batch_norm(4)},
        x=("N", 5),
    )
    refuses(model, "Reshape Reshape_1 before it regroups its channels")


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 5, 5), (4, 3, 3, 3)])
def test_alone_it_becomes_scale_and_shift(shape: tuple[int, ...]) -> None:
    model = make_model(
        [node("BatchNormalization", ["x", *BN], ["n"], name="norm"), node("Relu", ["n"], ["y"])],
        batch_norm(4),
        x=("N", *shape),
    )
    graph = prepare(as_graph(model))
    assert ops(graph) == ["Mul", "Add", "Relu"]
    assert [graph.has_value("n"), graph.node("norm").op_type] == [True, "Add"]
    assert_same_outputs(model, graph)


def test_switched_off_it_stays() -> None:
    model = make_model(
        [node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", *BN], ["y"])],
        {"w": floats(4, 3, 1, 1), **batch_norm(4)},
        x=("N", 3, 5, 5),
    )
    raw = as_graph(model)
    off = prepare(replace(raw, source=replace(raw.source, without=("fold batch norm",))))
    assert ops(off) == ["Conv", "BatchNormalization"]
    assert not off.warnings


MERGED = {
    "scale": (["Mul"], (4, 1, 1), "Conv"),
    "scale of one number": (["Mul"], (), "Conv"),
    "division": (["Div"], (1, 4, 1, 1), "ConvTranspose"),
    "subtraction": (["Sub"], (4, 1, 1), "Conv"),
    "scale and shift": (["Mul", "Add", "Div", "Sub"], (4, 1, 1), "Conv"),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", MERGED)
def test_scale_and_shift_behind_a_layer(name: str, reverse: bool) -> None:
    kinds, shape, layer = MERGED[name]
    if reverse and "Div" in kinds:
        pytest.skip("a constant divided by the result is no scale")
    nodes, weights, value = [node(layer, ["x", "w", "b"], ["v"], group=2)], {}, "v"
    for index, kind in enumerate(kinds):
        weights[f"k{index}"] = RNG.uniform(0.5, 2, shape).astype(np.float32)
        operands = [f"k{index}", value] if reverse else [value, f"k{index}"]
        nodes.append(node(kind, operands, [f"v{index}"]))
        value = f"v{index}"
    nodes.append(node("Relu", [value], ["y"]))
    inputs = (4, 3) if layer == "Conv" else (6, 2)
    model = make_model(
        nodes, {"w": floats(*inputs, 2, 2), "b": floats(4), **weights}, x=("N", 6, 5, 5)
    )
    graph = prepare(as_graph(model))
    assert ops(graph) == [layer, "Relu"]
    assert_same_outputs(model, graph)


@pytest.mark.parametrize("shape", [(7,), (1, 7)])
def test_a_linear_layer_takes_scale_and_bias(shape: tuple[int, ...]) -> None:
    model = make_model(
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Mul", ["m", "k"], ["s"]),
            node("Add", ["s", "b"], ["y"]),
        ],
        {"w": floats(5, 7), "k": floats(*shape), "b": floats(*shape)},
        x=("N", 5),
    )
    graph = prepare(as_graph(model))
    assert ops(graph) == ["Gemm"]
    assert_same_outputs(model, graph)


@pytest.mark.parametrize(
    ("constant", "kind"),
    [(floats(5, 1), "Mul"), (floats(4, 5, 5), "Mul"), (floats(2, 1, 1, 1, 1), "Add"),
     (np.zeros((4, 1, 1), np.float32), "Div")],
)  # fmt: skip
def test_what_is_not_per_channel_stays(constant: np.ndarray, kind: str) -> None:
    model = make_model(
        [node("Conv", ["x", "w"], ["c"]), node(kind, ["c", "k"], ["y"])],
        {"w": floats(4, 3, 1, 1), "k": constant},
        x=("N", 3, 5, 5),
    )
    assert kind in ops(prepare(as_graph(model)))


def test_a_scale_does_not_part_shared_weights() -> None:
    model = make_model(
        [
            node("Conv", ["x", "w"], ["a"]),
            node("Mul", ["a", "k"], ["s"]),
            node("Conv", ["s", "w"], ["y"]),
        ],
        {"w": floats(3, 3, 1, 1), "k": floats(3, 1, 1)},
        x=("N", 3, 5, 5),
    )
    graph = prepare(as_graph(model))
    assert ops(graph) == ["Conv", "Mul", "Conv"]
    assert_same_outputs(model, graph)
