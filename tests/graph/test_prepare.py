"""Preparation passes: what they do, that outputs stay, and that a second run changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graph_models import as_graph, assert_same_outputs, export, make_model, node, ops, randomise
from onnx import TensorProto, helper
from torch import nn

from studio.errors import ModelError
from studio.graph.onnx_file import load_onnx
from studio.graph.prepare import PREPARATION, prepare
from studio.graph.prepare.sharing import SHARED_BY

RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def prepared(model: onnx.ModelProto) -> list[str]:
    """Operators after preparation, outputs compared and the second run looked at."""
    graph = prepare(as_graph(model))
    assert_same_outputs(model, graph)
    again = prepare(graph)
    assert again.changes == graph.changes
    assert [n.name for n in again.nodes()] == [n.name for n in graph.nodes()]
    return ops(graph)


def test_every_pass_says_what_it_does() -> None:
    assert len({step.name for step in PREPARATION}) == len(PREPARATION)
    assert all(step.description.endswith(".") for step in PREPARATION)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act(self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.bn = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(), Block())
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(torch.relu(self.bn(self.stem(self.pad(x)))))
        x = torch.nn.functional.adaptive_avg_pool2d(x, 1)
        return self.fc(self.drop(x.view(x.size(0), -1)))


def test_a_torch_network_becomes_its_layers(tmp_path: Path) -> None:
    raw = export(randomise(Net()), (1, 3, 16, 16), folder=tmp_path)
    graph = prepare(raw)
    assert ops(graph) == [
        *("Conv", "Relu"),
        *("Conv", "Clip", "Add"),
        *("Conv", "Clip", "Add"),
        *("GlobalAveragePool", "Reshape", "Gemm"),
    ]
    assert [n.name for n in graph.nodes()] == [
        *("stem", "Relu"),
        *("blocks.0.conv", "blocks.0.act", "blocks.0"),
        *("blocks.1.conv", "blocks.1.act", "blocks.1"),
        *("GlobalAveragePool", "Reshape", "fc"),
    ]
    assert_same_outputs(raw.to_proto(), graph)
    again = prepare(graph)
    assert again.changes == graph.changes
    assert [n.name for n in again.nodes()] == [n.name for n in graph.nodes()]
    layers = {c.layer for c in graph.changes if c.rule == "fold batch norm"}
    assert layers == {"stem", "blocks.0.conv", "blocks.1.conv"}
    assert all(value.shape is not None for n in graph.nodes() for value in n.outputs)


def test_prepare_leaves_the_source_graph_alone(tmp_path: Path) -> None:
    raw = export(randomise(Net()), (1, 3, 16, 16), folder=tmp_path)
    names = [(n.name, [v and v.name for v in n.inputs]) for n in raw.nodes()]
    weights = {name: raw.constant(name).copy() for name in raw.initializers}
    prepare(raw)
    assert [(n.name, [v and v.name for v in n.inputs]) for n in raw.nodes()] == names
    assert weights.keys() == raw.initializers.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(raw.constant(name), array)


def test_identities_and_dead_code() -> None:
    model = make_model(
        [
            node("Identity", ["x"], ["a"]),
            node("Dropout", ["a"], ["b", "mask"]),
            node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
            node("Relu", ["c"], ["d"]),
            node("Sigmoid", ["d"], ["unused"]),
            node("Identity", ["d"], ["y"]),
        ],
        {"nobody": floats(3)},
        x=("N", 4),
    )
    assert prepared(model) == ["Relu"]


@pytest.mark.parametrize("source", ["x", "w"])
def test_an_identity_from_input_to_output_stays(source: str) -> None:
    model = make_model(
        [node("Identity", [source], ["y"]), node("Relu", ["x"], ["z"])],
        {"w": floats(4)},
        x=("N", 4),
        extra_outputs=("z",),
    )
    assert "Identity" in prepared(model)


def test_one_tensor_as_two_outputs() -> None:
    model = make_model(
        [
            node("Relu", ["x"], ["r"]),
            node("Identity", ["r"], ["y"]),
            node("Identity", ["r"], ["z"]),
        ],
        {},
        x=("N", 4),
        extra_outputs=("z",),
    )
    assert sorted(prepared(model)) == ["Identity", "Relu"]


def test_constants_are_folded_and_random_ones_are_not() -> None:
    model = make_model(
        [
            node("Constant", [], ["k"], value_float=2.0),
            node("Mul", ["k", "w"], ["kw"]),
            node("Transpose", ["kw"], ["kwt"], perm=[1, 0]),
            node("MatMul", ["x", "kwt"], ["m"]),
            node("RandomUniformLike", ["w"], ["noise"], seed=1.0),
            node("ReduceSum", ["noise"], ["total"], keepdims=0),
            node("Mul", ["total", "zero"], ["nothing"]),
            node("Add", ["m", "nothing"], ["y"]),
        ],
        {"w": floats(3, 4), "zero": np.float32(0)},
        x=("N", 4),
    )
    assert sorted(prepared(model)) == ["Add", "MatMul", "Mul", "RandomUniformLike", "ReduceSum"]


def test_shapes_of_known_size_are_folded() -> None:
    model = make_model(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "last"], ["n"]),
            node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
            node("Mul", ["x", "f"], ["y"]),
        ],
        {"last": np.array(-1)},
        x=("N", 3, 7),
    )
    assert prepared(model) == ["Mul"]


@pytest.mark.parametrize("allowzero", [0, 1])
def test_reshape_to_its_own_batch(allowzero: int) -> None:
    model = make_model(
        [
            node("Relu", ["x"], ["r"]),
            node("Shape", ["x"], ["s"]),
            node("Slice", ["s", "zero", "one"], ["n"]),
            node("Concat", ["n", "minus"], ["t"], axis=0),
            node("Reshape", ["r", "t"], ["y"], allowzero=allowzero),
        ],
        {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1])},
        x=("N", 3, 7),
    )
    assert prepared(model) == ["Relu", "Reshape"]


def test_reshape_to_the_batch_of_another_tensor_is_not_mistaken() -> None:
    """Flatten(axis=2) merges the batch with the channels; 0 would copy that."""
    model = make_model(
        [
            node("Flatten", ["x"], ["f"], axis=2),
            node("Shape", ["x"], ["s"]),
            node("Slice", ["s", "zero", "one"], ["n"]),
            node("Concat", ["n", "minus"], ["t"], axis=0),
            node("Reshape", ["f", "t"], ["y"]),
        ],
        {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1])},
        x=("N", 3, 7),
    )
    assert "Reshape" in prepared(model)


@pytest.mark.parametrize(
    ("pads", "value", "merged"),
    [
        ([0, 0, 1, 0, 0, 0, 2, 1], 0.0, True),
        ([0, 0, 1, 0, 0, 0, 2, 1], 1.0, False),
        ([0, 1, 0, 0, 0, 0, 0, 0], 0.0, False),
        ([0, 0, -1, 0, 0, 0, 0, 0], 0.0, False),
    ],
)
def test_padding_before_a_conv(pads: list[int], value: float, merged: bool) -> None:
    channels = 3 + pads[1]
    model = make_model(
        [
            node("Pad", ["x", "pads", "value"], ["p"]),
            node("Conv", ["p", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
        ],
        {"pads": np.array(pads), "value": np.float32(value), "w": floats(4, channels, 3, 3)},
        x=("N", 3, 8, 9),
    )
    assert prepared(model) == (["Conv"] if merged else ["Pad", "Conv"])


def test_padding_modes_and_pools_are_left_alone() -> None:
    pads = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": floats(4, 3, 3, 3)}
    reflect = [node("Pad", ["x", "pads"], ["p"], mode="reflect"), node("Conv", ["p", "w"], ["y"])]
    assert prepared(make_model(reflect, pads, x=("N", 3, 8, 8))) == ["Pad", "Conv"]
    pool = [
        node("Pad", ["x", "pads"], ["p"]),
        node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2]),
    ]
    assert prepared(make_model(pool, pads, x=("N", 3, 8, 8))) == ["Pad", "MaxPool"]


def test_bias_added_to_a_conv() -> None:
    model = make_model(
        [
            node("Conv", ["x", "w", "b"], ["c"]),
            node("Add", ["k", "c"], ["y"]),
        ],
        {"w": floats(4, 3, 3, 3), "b": floats(4), "k": floats(4, 1, 1)},
        x=("N", 3, 8, 8),
    )
    assert prepared(model) == ["Conv"]
    not_per_channel = make_model(
        [node("Conv", ["x", "w"], ["c"]), node("Add", ["c", "k"], ["y"])],
        {"w": floats(4, 3, 3, 3), "k": floats(4, 1, 6)},
        x=("N", 3, 8, 8),
    )
    assert prepared(not_per_channel) == ["Conv", "Add"]


@pytest.mark.parametrize(("axes", "pooled"), [([2, 3], True), ([-1, 2], True), ([1, 2], False)])
def test_mean_over_positions_is_pooling(axes: list[int], pooled: bool) -> None:
    model = make_model(
        [node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=1)], {}, x=("N", 3, 8, 8)
    )
    assert prepared(model) == (["GlobalAveragePool"] if pooled else ["ReduceMean"])


def test_shared_biases_are_separated_and_shared_weights_noted() -> None:
    model = make_model(
        [
            node("Conv", ["x", "w", "b"], ["c"], name="one"),
            node("Conv", ["c", "w", "b"], ["y"], name="two"),
        ],
        {"w": floats(3, 3, 3, 3), "b": floats(3)},
        x=("N", 3, 8, 8),
    )
    graph = prepare(as_graph(model))
    assert_same_outputs(model, graph)
    one, two = graph.node("one"), graph.node("two")
    assert one.inputs[1] is two.inputs[1]
    assert [one.inputs[2].name, two.inputs[2].name] == ["b", "two.bias"]
    assert graph.value("w").metadata_props[SHARED_BY] == "one\ntwo"
    assert [c.layer for c in graph.changes if c.rule == "shared weights"] == ["one"]


def test_names_are_filled_in_and_made_unique() -> None:
    model = make_model(
        [
            node("Relu", ["x"], ["a"]),
            node("Relu", ["a"], ["b"], name="same"),
            node("Relu", ["b"], ["y"], name="same"),
        ],
        {},
        x=("N", 3),
    )
    graph = prepare(as_graph(model))
    assert [n.name for n in graph.nodes()] == ["Relu_0", "same", "same_1"]
    assert [n.outputs[0].name for n in graph.nodes()] == ["a", "b", "y"]


def test_functions_are_inlined(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("mine", 1), helper.make_opsetid("", 17)]
    body = [node("Relu", ["a"], ["t"]), node("Sigmoid", ["t"], ["b"])]
    model = make_model([], {}, x=("N", 3))
    model.graph.node.append(helper.make_node("Twist", ["x"], ["y"], domain="mine"))
    model.functions.append(helper.make_function("mine", "Twist", ["a"], ["b"], body, imports))
    model.opset_import.append(imports[0])
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    graph = prepare(load_onnx(tmp_path / "net.onnx"))
    assert ops(graph) == ["Relu", "Sigmoid"]
    assert "Twist" in graph.changes[0].detail
    assert_same_outputs(model, graph)


def old_model(opset: int) -> onnx.ModelProto:
    """Operators whose definition changed between opset 7 and 17."""
    clip = (
        node("Clip", ["s"], ["k"], min=-0.5, max=0.5)
        if opset < 11
        else node("Clip", ["s", "low", "high"], ["k"])
    )
    model = make_model(
        [
            node("Conv", ["x", "w"], ["c"]),
            node("BatchNormalization", ["c", "one", "zero", "zero", "one"], ["n"]),
            node("Softmax", ["n"], ["s"], axis=3),
            clip,
            node("Dropout", ["k"], ["d"]),
            node("Unsqueeze", ["d"], ["u"], axes=[0]),
            node("Squeeze", ["u"], ["q"], axes=[0]),
            node("ReduceSum", ["q"], ["r"], axes=[2, 3], keepdims=0),
            node("Softmax", ["r"], ["y"], axis=1),
        ],
        {
            "w": floats(4, 3, 3, 3),
            "one": np.ones(4, np.float32),
            "zero": np.zeros(4, np.float32),
            "low": np.float32(-0.5),
            "high": np.float32(0.5),
        },
        x=("N", 3, 6, 6),
        opset=opset,
    )
    if opset < 9:  # before IR version 4 initializers are inputs too
        model.ir_version = 3
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in model.graph.initializer
        )
    return model


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12])
def test_old_opsets(opset: int, tmp_path: Path) -> None:
    model = old_model(opset)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    graph = prepare(load_onnx(tmp_path / "net.onnx"))
    assert graph.opset >= 13
    assert [value.name for value in graph.inputs] == ["x"]
    assert_same_outputs(model, graph)
    assert ops(graph).count("Softmax") == 2
    assert "Flatten" not in ops(graph)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("opset", [7, 9, 10])
def test_resizing_of_old_opsets(mode: str, opset: int, tmp_path: Path) -> None:
    if opset == 7:
        resize = node("Upsample", ["x"], ["y"], mode=mode, scales=[1.0, 1.0, 2.0, 2.0])
    else:
        resize = node("Upsample" if opset == 9 else "Resize", ["x", "s"], ["y"], mode=mode)
    scales = {"s": np.array([1, 1, 2, 2], np.float32)} if opset > 7 else {}
    model = make_model([resize], scales, x=("N", 3, 4, 4), opset=opset)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    graph = prepare(load_onnx(tmp_path / "net.onnx"))
    assert ops(graph) == ["Resize"]
    assert_same_outputs(model, graph)


def test_conversion_that_fails_names_the_operator(tmp_path: Path) -> None:
    hardmax = node("Hardmax", ["x"], ["y"], name="pick", axis=1)
    model = make_model([hardmax], {}, x=("N", 3, 4, 4), opset=9)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"net\.onnx.*Hardmax 'pick'"):
        load_onnx(tmp_path / "net.onnx")


def test_captured_tensors_of_subgraphs_survive() -> None:
    """A tensor read only inside an If is in use."""
    then = helper.make_graph(
        [node("Add", ["r", "w"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [node("Identity", ["r"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )
    model = make_model(
        [
            node("Relu", ["x"], ["r"]),
            node("ReduceSum", ["x"], ["total"], keepdims=0),
            node("Greater", ["total", "zero"], ["c"]),
            node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        ],
        {"w": floats(4), "zero": np.float32(0)},
        x=("N", 4),
    )
    assert "If" in prepared(model)
    assert "Relu" in prepared(model)
