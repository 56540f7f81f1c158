"""Rules of preparation one by one, each before and after in onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import preparation_table
import pytest
from graph_models import as_graph, assert_same_outputs, make_model, node, ops
from onnx import TensorProto, helper
from random_graphs import RandomGraph

from studio.errors import ConfigError
from studio.graph.model import ModelGraph
from studio.graph.prepare import PREPARATION, prepare, rules
from studio.graph.prepare.sharing import SHARED_BY
from studio.resource_files import resource

RNG = np.random.default_rng(11)


def floats(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def prepared(model: onnx.ModelProto) -> ModelGraph:
    graph = prepare(as_graph(model))
    assert_same_outputs(model, graph)
    assert prepare(graph).changes == graph.changes
    return graph


def details(graph: ModelGraph, rule: str) -> list[str]:
    return [change.detail for change in graph.changes if change.rule == rule]


# ---- random graphs, and the switches


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_compute_the_same(seed: int) -> None:
    prepared(RandomGraph(seed).model())


@pytest.mark.parametrize("rule", [step.name for step in PREPARATION if step.optional])
def test_every_rule_can_be_switched_off(rule: str) -> None:
    model = RandomGraph(3, length=40).model()
    raw = as_graph(model)
    graph = prepare(replace(raw, source=replace(raw.source, without=(rule,))))
    assert_same_outputs(model, graph)
    assert not details(graph, rule)
    states = {state.name: state for state in rules(graph)}
    assert [name for name, state in states.items() if not state.on] == [rule]


def test_the_page_of_the_rules_is_up_to_date() -> None:
    page = resource("docs", "preparation.md").read_text(encoding="utf-8")
    hint = "run: python tests/graph/preparation_table.py > resources/docs/preparation.md"
    assert page == preparation_table.document(), hint


def test_rules_are_counted() -> None:
    graph = prepared(RandomGraph(3, length=40).model())
    counts = {rule.name: rule.count for rule in rules(graph)}
    assert sum(counts.values()) == len(graph.changes) > 10
    assert list(counts) == [step.name for step in PREPARATION]


@pytest.mark.parametrize(("rule", "says"), [("names", "cannot be"), ("fold bn", "does not exist")])
def test_rules_that_cannot_be_switched_off(rule: str, says: str) -> None:
    raw = as_graph(make_model([node("Relu", ["x"], ["y"])], {}, x=("N", 3)))
    with pytest.raises(ConfigError, match=f"'{rule}' {says}"):
        prepare(replace(raw, source=replace(raw.source, without=(rule,))))


# ---- operators that do nothing

NOTHING: dict[str, tuple[str, dict[str, np.ndarray], dict[str, object]]] = {
    "reshape to the same shape": ("Reshape", {"k": np.array([0, -1, 4])}, {}),
    "reshape with numbers": ("Reshape", {"k": np.array([-1, 6, 4])}, {}),
    "expand to ones": ("Expand", {"k": np.array([1, 6, 1])}, {}),
    "slice of everything": ("Slice", {"a": np.array([0, 0]), "b": np.array([99, 2**62]),
                                      "c": np.array([1, -1])}, {}),
    "pad of zeros": ("Pad", {"k": np.zeros(6, np.int64)}, {}),
    "tile once": ("Tile", {"k": np.array([1, 1, 1])}, {}),
    "concat of one": ("Concat", {}, {"axis": 1}),
    "times one": ("Mul", {"k": np.ones((1, 4), np.float32)}, {}),
    "divided by one": ("Div", {"k": np.float32(1)}, {}),
    "plus zero": ("Add", {"k": np.zeros((6, 4), np.float32)}, {}),
    "to the power of one": ("Pow", {"k": np.float32(1)}, {}),
    "transpose to the same": ("Transpose", {}, {"perm": [0, 1, 2]}),
    "pool of single elements": ("MaxPool", {}, {"kernel_shape": [1]}),
    "clip without bounds": ("Clip", {}, {}),
    "unsqueeze of nothing": ("Unsqueeze", {"k": np.zeros(0, np.int64)}, {}),
    "resize by one": ("Resize", {"": np.zeros(0), "s": np.ones(3, np.float32)}, {}),
    "dropout that does not train": ("Dropout", {"p": np.float32(0.5), "t": np.array(False)}, {}),
    "split into one": ("Split", {}, {"axis": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING)
def test_operators_that_change_nothing_are_removed(name: str) -> None:
    kind, constants, attributes = NOTHING[name]
    weights = {key: array for key, array in constants.items() if key}
    model = make_model(
        [node("Relu", ["x"], ["r"]), node(kind, ["r", *constants], ["n"], **attributes),
         node("Sigmoid", ["n"], ["y"])],
        weights,
        x=("N", 6, 4),
    )  # fmt: skip
    assert ops(prepared(model)) == ["Relu", "Sigmoid"]


SOMETHING: dict[str, tuple[str, dict[str, np.ndarray], dict[str, object]]] = {
    "reshape that regroups": ("Reshape", {"k": np.array([0, 4, 6])}, {}),
    "expand": ("Expand", {"k": np.array([2, 1, 6, 4])}, {}),
    "slice": ("Slice", {"a": np.array([0]), "b": np.array([5]), "c": np.array([1])}, {}),
    "ones that add an axis": ("Mul", {"k": np.ones((1, 1, 1, 1), np.float32)}, {}),
    "one minus": ("Sub", {"k": np.ones((6, 1), np.float32)}, {}),
    "pool": ("MaxPool", {}, {"kernel_shape": [1], "strides": [2]}),
}


@pytest.mark.parametrize("name", SOMETHING)
def test_operators_that_change_something_stay(name: str) -> None:
    kind, constants, attributes = SOMETHING[name]
    model = make_model(
        [node("Relu", ["x"], ["r"]), node(kind, ["r", *constants], ["y"], **attributes)],
        constants,
        x=("N", 6, 4),
    )
    assert kind in ops(prepared(model))


# ---- pairs


def test_pairs_become_one() -> None:
    model = make_model(
        [
            node("Transpose", ["x"], ["a"], perm=[0, 2, 1, 3]),
            node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2]),
            node("Reshape", ["b", "flat"], ["c"]),
            node("Reshape", ["c", "image"], ["d"]),
            node("Cast", ["d"], ["e"], to=TensorProto.DOUBLE),
            node("Cast", ["e"], ["f"], to=TensorProto.FLOAT16),
            node("Cast", ["f"], ["y"], to=TensorProto.FLOAT),
        ],
        {"flat": np.array([0, -1]), "image": np.array([0, 2, 60])},
        x=("N", 4, 5, 6),
    )
    graph = prepared(model)
    assert ops(graph) == ["Transpose", "Reshape", "Cast", "Cast"]
    assert list(graph.node("Transpose_1").attributes["perm"].as_ints()) == [0, 2, 3, 1]


def test_a_cast_that_loses_numbers_stays() -> None:
    model = make_model(
        [
            node("Cast", ["x"], ["a"], to=TensorProto.INT32),
            node("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
        ],
        {},
        x=("N", 4),
    )
    assert ops(prepared(model)) == ["Cast", "Cast"]


# ---- what is there twice


def test_equal_operators_are_computed_once() -> None:
    model = make_model(
        [
            node("Sigmoid", ["x"], ["a"]),
            node("Sigmoid", ["x"], ["b"]),
            node("Softmax", ["a"], ["c"], axis=1),
            node("Softmax", ["b"], ["d"], axis=1),
            node("Softmax", ["b"], ["e"], axis=2),
            node("Sum", ["c", "d", "e"], ["y"]),
        ],
        {},
        x=("N", 3, 4),
    )
    assert ops(prepared(model)) == ["Sigmoid", "Softmax", "Softmax", "Sum"]


def test_noise_is_not_taken_for_equal() -> None:
    model = make_model(
        [
            node("RandomNormalLike", ["x"], ["a"], seed=1.0),
            node("RandomNormalLike", ["x"], ["b"], seed=1.0),
            node("Sub", ["a", "b"], ["y"]),
        ],
        {},
        x=("N", 3),
    )
    assert ops(prepare(as_graph(model))).count("RandomNormalLike") == 2


def test_equal_weights_are_one_constant_with_a_note() -> None:
    weight = floats(4, 4, 3, 3)
    model = make_model(
        [
            node("Conv", ["x", "one"], ["a"], name="first", pads=[1, 1, 1, 1]),
            node("Conv", ["a", "two"], ["b"], name="second", pads=[1, 1, 1, 1]),
            node("Conv", ["b", "other"], ["y"], name="third"),
        ],
        {"one": weight, "two": weight.copy(), "other": weight + 1},
        x=("N", 4, 6, 6),
    )
    graph = prepared(model)
    assert set(graph.initializers) == {"one", "other"}
    assert graph.value("one").metadata_props[SHARED_BY] == "first\nsecond"


def test_weights_filled_with_one_number_are_not_tied() -> None:
    ones = np.ones((4, 4, 3, 3), np.float32)
    model = make_model(
        [node("Conv", ["x", "one"], ["a"]), node("Conv", ["a", "two"], ["y"])],
        {"one": ones, "two": ones.copy()},
        x=("N", 4, 6, 6),
    )
    assert {"one", "two"} <= set(prepared(model).initializers)


@pytest.mark.parametrize("matrix", [False, True])
def test_an_embedding_tied_to_the_last_layer_stays_one(matrix: bool) -> None:
    """W is read by a Gather and, through a Transpose, by a product: one constant, one note."""
    shape, indices = ("N", 6), np.array([3, 1, 4] if matrix else [[3, 1, 4]])
    model = make_model(
        [
            node("Gather", ["w", "tokens"], ["e"], name="embed"),
            node("Relu", ["e"], ["h"]),
            node("Transpose", ["w"], ["t"], perm=[1, 0]),
            node("MatMul", ["h", "t"], ["logits"], name="head"),
            node("ReduceMean", ["x"], ["m"]),
            node("Add", ["logits", "m"], ["y"]),
        ],
        {"w": floats(9, 6), "tokens": indices},
        x=shape,
    )
    raw = as_graph(model)
    graph = prepare(replace(raw, source=replace(raw.source, without=("fold constants",))))
    assert_same_outputs(model, graph)
    assert graph.value("w").metadata_props[SHARED_BY] == "embed\nhead"
    assert ("Transpose" in ops(graph)) is not matrix
    assert [name for name in graph.initializers if graph.value(name).shape == [6, 9]] == []


def test_folding_keeps_a_tied_weight_whole() -> None:
    model = make_model(
        [
            node("MatMul", ["x", "w"], ["a"], name="in"),
            node("Relu", ["a"], ["r"]),
            node("Transpose", ["w"], ["t"], perm=[1, 0]),
            node("MatMul", ["r", "t"], ["y"], name="out"),
        ],
        {"w": floats(6, 9)},
        x=("N", 5, 6),
    )
    graph = prepared(model)
    assert ops(graph) == ["MatMul", "Relu", "Transpose", "MatMul"]
    assert graph.value("w").metadata_props[SHARED_BY] == "in\nout"


# ---- constants


def test_large_results_are_not_written_into_the_model() -> None:
    model = make_model(
        [
            node("Expand", ["row", "huge"], ["a"]),
            node("ReduceMean", ["a"], ["b"], axes=[0], keepdims=1),
            node("Tile", ["row", "often"], ["c"]),
            node("ReduceMean", ["c"], ["d"], axes=[0], keepdims=1),
            node("ConstantOfShape", ["many"], ["e"]),
            node("ReduceMean", ["e"], ["f"], axes=[0], keepdims=1),
            node("Sum", ["x", "b", "d", "f"], ["y"]),
        ],
        {"row": floats(1, 8), "huge": np.array([50000, 8]), "often": np.array([50000, 1]),
         "many": np.array([50000, 8])},
        x=("N", 8),
    )  # fmt: skip
    graph = prepared(model)
    assert {"Expand", "Tile", "ConstantOfShape"} <= set(ops(graph))
    sizes = [graph.constant(name).size for name in graph.initializers]
    assert sum(sizes) < 100


# ---- results that nobody reads


def test_results_nobody_reads_are_not_asked_for() -> None:
    size, features = 3, 4
    model = make_model(
        [
            node("LSTM", ["x", "w", "r"], ["all", "last", "cell"], hidden_size=size, name="lstm"),
            node("Squeeze", ["last", "zero"], ["y"]),
        ],
        {"w": floats(1, 4 * size, features), "r": floats(1, 4 * size, size), "zero": np.array([0])},
        x=(5, "N", features),
    )
    graph = prepared(model)
    assert [value.name or "" for value in graph.node("lstm").outputs] == ["", "last", ""]
    assert not graph.has_value("all")


@pytest.mark.parametrize("sizes", [True, False])
def test_a_split_of_which_one_part_is_read_is_a_slice(sizes: bool) -> None:
    split = node("Split", ["x", *(["sizes"] if sizes else [])], ["a", "b", "c"], axis=-1)
    model = make_model(
        [split, node("Relu", ["b"], ["y"])],
        {"sizes": np.array([1, 3, 2])} if sizes else {},
        x=("N", 6),
    )
    assert ops(prepared(model)) == ["Slice", "Relu"]


# ---- padding


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Conv", "MaxPool", "AveragePool"])
def test_automatic_padding_is_written_down(kind: str, stride: int, mode: str) -> None:
    weights = {"w": floats(4, 3, 3, 2)} if kind == "Conv" else {}
    attributes: dict[str, object] = {"auto_pad": mode, "strides": [stride, stride]}
    if kind == "Conv":
        attributes["dilations"] = [1, 1]  # onnxruntime has no automatic padding with others
    else:
        attributes["kernel_shape"] = [3, 2]
    model = make_model(
        [node(kind, ["x", *weights], ["y"], **attributes)], weights, x=("N", 3, 8, 7)
    )
    graph = prepared(model)
    (layer,) = graph.nodes()
    assert "auto_pad" not in layer.attributes
    assert len(list(layer.attributes["pads"].as_ints())) == 4


def test_automatic_padding_that_depends_on_the_size_stays() -> None:
    model = make_model(
        [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": floats(4, 3, 3, 3)},
        x=("N", 3, "height", "width"),
    )
    (layer,) = prepared(model).nodes()
    assert layer.attributes["auto_pad"].as_string() == "SAME_UPPER"


@pytest.mark.parametrize(
    ("own", "counts", "ceil", "left"),
    [
        ([0, 0, 0, 0], 0, 0, ["AveragePool"]),
        ([1, 1, 1, 1], 1, 0, ["AveragePool"]),
        ([1, 1, 1, 1], 0, 0, ["Pad", "AveragePool"]),
        ([0, 0, 0, 0], 0, 1, ["Pad", "AveragePool"]),
    ],
)
def test_zeros_before_average_pooling(
    own: list[int], counts: int, ceil: int, left: list[str]
) -> None:
    model = make_model(
        [
            node("Pad", ["x", "pads"], ["p"]),
            node("AveragePool", ["p"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=own,
                 count_include_pad=counts, ceil_mode=ceil),
        ],
        {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 1])},
        x=("N", 3, 8, 9),
    )  # fmt: skip
    assert ops(prepared(model)) == left


# ---- operators of com.microsoft

CONTRIB: dict[str, tuple[list[str], dict[str, object], list[str]]] = {
    "FusedConv": (["i", "w4", "b4"], {"activation": "LeakyRelu", "activation_params": [0.2]},
                  ["Conv", "LeakyRelu"]),
    "FusedConv with a residual": (["i", "w4", "b4", "i"], {"activation": "Relu"},
                                  ["Conv", "Add", "Relu"]),
    "FusedConv with bounds": (["i", "w4"], {"activation": "Clip", "activation_params": [0.0, 0.5]},
                              ["Conv", "Clip"]),
    "FusedGemm": (["x", "m", "b5"],
                  {"activation": "LeakyRelu", "activation_alpha": 0.3, "transB": 1},
                  ["Gemm", "LeakyRelu"]),
    "FusedMatMul": (["x", "m"], {"alpha": 0.25, "transB": 1}, ["MatMul"]),
    "FusedMatMul of two": (["x", "x"], {"alpha": 0.25, "transA": 1},
                           ["Transpose", "MatMul", "Mul"]),
    "BiasGelu": (["x", "b16"], {}, ["Add", "Div", "Erf", "Add", "Mul", "Mul"]),
    "Gelu": (["x"], {}, ["Div", "Erf", "Add", "Mul", "Mul"]),
    "FastGelu": (["x", "b16"], {},
                 ["Add", "Pow", "Mul", "Add", "Mul", "Tanh", "Add", "Mul", "Mul"]),
    "QuickGelu": (["x"], {"alpha": 1.7}, ["Mul", "Sigmoid", "Mul"]),
    "SkipLayerNormalization": (["x", "x", "b16", "c16", "d16"], {"epsilon": 1e-5},
                               ["Add", "Add", "LayerNormalization"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRIB)
def test_operators_of_onnxruntime_become_standard_ones(name: str) -> None:
    inputs, attributes, expected = CONTRIB[name]
    kind = name.split()[0]
    weights = {"w4": floats(4, 4, 1, 1), "b4": floats(4), "m": floats(5, 16), "b5": floats(5),
               "b16": floats(16), "c16": floats(16), "d16": floats(16),
               "image": np.array([-1, 4, 2, 2])}  # fmt: skip
    first = [node("Reshape", ["x", "image"], ["i"])] if "i" in inputs else []
    fused = helper.make_node(kind, inputs, ["y"], domain="com.microsoft", **attributes)
    used = {key: weights[key] for key in {*inputs, *(["image"] if first else [])} & set(weights)}
    model = make_model([*first, fused], used, x=(3, 16))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    graph = prepared(model)
    assert ops(graph)[len(first) :] == expected
    assert details(graph, "standard operators")


def test_the_sum_that_a_skip_norm_hands_on() -> None:
    skip = helper.make_node(
        "SkipLayerNormalization", ["x", "x", "g"], ["n", "", "", "s"], domain="com.microsoft"
    )
    model = make_model([skip, node("Add", ["n", "s"], ["y"])], {"g": floats(8)}, x=("N", 3, 8))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert ops(prepared(model)) == ["Add", "LayerNormalization", "Add"]


def test_a_skip_norm_stays_where_no_standard_operator_is_old_enough() -> None:
    """LayerNormalization exists from opset 17 on."""
    skip = helper.make_node(
        "SkipLayerNormalization", ["x", "x", "g"], ["y"], domain="com.microsoft"
    )
    model = make_model([skip], {"g": floats(8)}, x=("N", 3, 8))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.opset_import[0].version = 16
    assert model.opset_import[0].domain == ""
    assert ops(prepared(model)) == ["SkipLayerNormalization"]


# ---- where a node comes from


def test_new_operators_keep_the_module_and_line_of_their_layer(tmp_path: Path) -> None:
    from studio.graph.describe import STACK, scope, source_line
    from studio.graph.scopes import SCOPES

    def traced(name: str, line: int, made: onnx.NodeProto) -> onnx.NodeProto:
        for key, value in (
            (SCOPES, f"['', '{name}', 'aten']"),
            (STACK, f'File "net.py", line {line}, in forward'),
        ):
            made.metadata_props.add(key=key, value=value)
        return made

    statistics = {"g": floats(4), "b": floats(4), "m": floats(4), "v": floats(4) ** 2 + 0.5}
    model = make_model(
        [
            traced("stem.norm", 5, node("BatchNormalization", ["x", *statistics], ["n"])),
            traced("act", 6, node("Relu", ["n"], ["r"])),
            traced("turn", 7, node("Transpose", ["r"], ["t"], perm=[0, 2, 1])),
            traced("fc", 8, node("MatMul", ["t", "w"], ["f"])),
            traced("head.norm", 9, node("Transpose", ["f"], ["u"], perm=[0, 2, 1])),
            traced("head.norm", 9, node("BatchNormalization", ["u", *statistics], ["z"])),
            traced("gate", 10, node("Split", ["z"], ["y", "rest"], axis=1)),
        ],
        {"w": floats(4, 4), **statistics},
        x=("N", 4, 6),
    )
    graph = prepared(model)
    found = [(n.op_type, scope(n), source_line(n)) for n in graph.nodes()]
    assert found == [
        ("Mul", "stem.norm", "net.py:5"),
        ("Add", "stem.norm", "net.py:5"),
        ("Relu", "act", "net.py:6"),
        ("Transpose", "turn", "net.py:7"),
        ("MatMul", "fc", "net.py:8"),
        ("Add", "fc", "net.py:8"),  # the bias that the batch norm left
        ("Transpose", "head.norm", "net.py:9"),
        ("Slice", "gate", "net.py:10"),
    ]


def test_preparing_again_does_not_execute_the_file_again(tmp_path: Path) -> None:
    from studio.graph.open import open_model, prepare_again

    (tmp_path / "net.py").write_text(
        "import pathlib, torch\n"
        "def make():\n"
        "    with pathlib.Path(__file__).with_name('calls').open('a') as file:\n"
        "        file.write('x')\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))\n"
    )
    opened = open_model(f"{tmp_path / 'net.py'}:make", inputs="1,3,8,8", trust=True)
    calls = (tmp_path / "calls").read_text()
    (tmp_path / "net.py").unlink()
    assert ops(opened) == ["Conv"]
    off = prepare_again(opened, ["fold batch norm"])
    assert ops(off) == ["Conv", "BatchNormalization"]
    assert ops(prepare_again(off, [])) == ["Conv"]
    assert (tmp_path / "calls").read_text() == calls
