"""What each bundled target quantizes how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from block_graphs import resnet, transformer
from sim_graphs import graph_of

from studio.errors import ConfigError
from studio.graph.model import ModelGraph
from studio.quant.grid import FloatGrid, Grid
from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.placement import place
from studio.sim.plan import Plan, Role
from studio.sim.target import load_target, target_names

U8 = Grid(8, signed=False, symmetric=False)
HTP = ["qualcomm-htp", "qualcomm-htp-v69", "qualcomm-htp-v68", "qualcomm-htp-v66"]


def placed(graph: ModelGraph, target: str, **defaults: object) -> Plan:
    return place(graph, QuantConfig(target=target).with_defaults(**defaults))


def quantized(plan: Plan) -> set[str]:
    return {name for name, row in plan.tensors.items() if row.spec is not None}


@pytest.mark.parametrize("name", target_names())
@pytest.mark.parametrize("graph", [resnet, transformer])
def test_no_target_asks_for_what_it_cannot_do(name: str, graph) -> None:  # type: ignore[no-untyped-def]
    plan = place(graph(), QuantConfig(target=name))
    assert load_target(name).name == name == plan.target
    assert plan.impossible == ()
    assert plan.warnings == ()
    assert all(row.reason for row in plan.tensors.values())


# --- tensorrt ------------------------------------------------------------------------------------


def test_tensorrt_rounds_the_inputs_of_weighted_ops_and_shortcuts_alone() -> None:
    plan = placed(resnet(), "tensorrt")
    read_by = {
        name: row.read_by
        for name, row in plan.tensors.items()
        if row.spec is not None and row.role is not Role.WEIGHT
    }
    # Identity block: `pool` goes into the convolution and is the shortcut; `a3` stays as it is.
    # Downsample block: `down`, the shortcut's convolution, is rounded, `b3` is not.
    assert read_by == {
        "x": {"Conv0"},
        "pool": {"Conv3", "Add6"},
        "a2": {"Conv5"},
        "out1": {"Conv8", "Conv11"},
        "b2": {"Conv10"},
        "down": {"Add12"},
        "out2": {"GlobalAveragePool14"},
        "flat": {"Gemm16"},
    }
    assert "only the shortcut" in plan.tensors["a3"].reason
    assert "only the shortcut" in plan.tensors["b3"].reason


def test_tensorrt_is_symmetric_with_float_biases() -> None:
    plan = placed(resnet(), "tensorrt")
    assert plan.tensors["pool"].spec.grid == Grid(8, signed=True, symmetric=True)
    assert plan.tensors["w1"].spec.grid == Grid(8, signed=True, symmetric=True, strict=True)
    assert plan.tensors["w1"].spec.axis == 0
    assert plan.tensors["b6"].spec is None


def test_a_float_weight_needs_no_rounded_input() -> None:
    config = QuantConfig(target="tensorrt").with_layers(["Conv5"], weight_enabled=False)
    plan = place(resnet(), config)
    assert plan.tensors["a2"].spec is None


RESIDUAL = """(float[n, 4, 8, 8] x) => (float[n, 4, 8, 8] y) {
    s = Conv(x, w0)
    t = Relu(s)
    %s
}"""


@pytest.mark.parametrize(
    ("nodes", "rounded"),
    [
        # A stem without pooling: both inputs end a convolution; the longer way is the branch.
        ("a = Conv(t, w1) b = Relu(a) c = Conv(b, w2) y = Add(c, t)", "t"),
        ("a = Conv(t, w1) b = Relu(a) c = Conv(b, w2) y = Add(t, c)", "t"),
        # The branch may end in an activation; SiLU is two operators.
        ("a = Conv(t, w1) g = Sigmoid(a) c = Mul(a, g) "
         "d = MaxPool<kernel_shape=[3,3],pads=[1,1,1,1]>(t) y = Add(c, d)", "d"),
        # Both come from one convolution, none from any, a graph input, a constant.
        ("a = Conv(t, w1) b = Relu(a) y = Add(a, b)", None),
        ("a = MaxPool<kernel_shape=[3,3],pads=[1,1,1,1]>(t) b = Tanh(t) y = Add(a, b)", None),
        ("a = Conv(t, w1) y = Add(a, x)", None),
        ("a = Tanh(t) y = Add(a, w3)", None),
    ],
)  # fmt: skip
def test_which_input_of_an_addition_is_the_shortcut(nodes: str, rounded: str | None) -> None:
    shapes = {"w0": (4, 4, 1, 1), "w1": (4, 4, 1, 1), "w2": (4, 4, 1, 1), "w3": (1, 4, 1, 1)}
    used = {name: shape for name, shape in shapes.items() if f"{name})" in RESIDUAL % nodes}
    graph = graph_of(RESIDUAL % nodes, **used)
    add = next(node.name for node in graph.nodes() if node.op_type == "Add")
    plan = placed(graph, "tensorrt")
    readers = {name for name, row in plan.tensors.items() if add in (row.read_by or ())}
    assert readers == ({rounded} if rounded else set())


# --- weights only, dynamic -----------------------------------------------------------------------


def test_weights_only_are_blocks_along_the_input_channels() -> None:
    plan = placed(transformer(), "weight-only")
    assert quantized(plan) == {"wq", "wk", "wv", "wo"}
    for name in quantized(plan):
        spec = plan.tensors[name].spec
        assert (spec.grid, spec.axis, spec.block_size) == (
            Grid(4, signed=True, symmetric=True), 0, 32,
        )  # fmt: skip
    assert plan.observed == ()
    gemm = placed(resnet(), "weight-only")
    assert quantized(gemm) == {"w6"}
    assert gemm.tensors["w6"].spec.axis == 1, "transB: (outputs, inputs)"
    eight = placed(transformer(), "weight-only-int8").tensors["wq"].spec
    assert (eight.grid.bits, eight.block_size) == (8, 32)


def test_dynamic_ranges_what_products_read_and_leaves_the_residual_float() -> None:
    plan = placed(transformer(), "onnxruntime-dynamic")
    dynamic = {name: row.read_by for name, row in plan.tensors.items() if row.dynamic}
    # The addition reads `ln` as it is; products of two activations stay float.
    assert dynamic == {"ln": {"MatMul2", "MatMul3", "MatMul4"}, "res": {"MatMul11"}}
    assert plan.tensors["ln"].spec.grid == U8
    assert plan.observed == ()
    assert "ln" not in plan.quantized
    assert plan.tensors["bo"].spec is None


def test_one_layer_may_be_dynamic_among_static_ones() -> None:
    config = QuantConfig().with_layers(["MatMul11"], act_dynamic=True)
    plan = place(transformer(), config)
    assert plan.tensors["res"].dynamic
    assert plan.tensors["res"].read_by == {"MatMul11"}
    biased = place(resnet(), QuantConfig().with_layers(["Gemm16"], act_dynamic=True))
    assert "scale of the layer's input changes" in biased.tensors["b6"].reason
    assert not plan.tensors["ln"].dynamic
    assert plan.tensors["ln"].spec is not None
    assert plan.impossible == ()


def test_a_moved_tensor_that_is_dynamic_follows_nothing() -> None:
    graph = graph_of(
        """(float[n, 4, 8] x) => (float[n, 8, 3] y) {
            r = Relu(x)
            t = Transpose<perm = [0, 2, 1]>(r)
            y = MatMul(t, w)
        }""",
        w=(4, 3),
    )
    static = placed(graph, "onnxruntime")
    assert static.tensors["t"].tied_to == "r"
    plan = placed(graph, "onnxruntime", act_dynamic=True)
    assert plan.tensors["t"].dynamic
    assert plan.tensors["t"].tied_to is None
    assert not plan.tensors["r"].dynamic


# --- qualcomm ------------------------------------------------------------------------------------


def test_htp_versions_differ_in_granularity() -> None:
    axes = {
        name: [placed(resnet(), name).tensors[weight].spec.axis for weight in ("w1", "w6")]
        for name in HTP
    }
    assert axes == {
        "qualcomm-htp": [0, 0],
        "qualcomm-htp-v69": [0, 0],
        "qualcomm-htp-v68": [0, None],
        "qualcomm-htp-v66": [None, None],
    }


def test_htp_bounds_and_operands_by_version() -> None:
    plans = {name: placed(transformer(), name).tensors for name in HTP}
    assert plans["qualcomm-htp"]["p"].spec.fixed_range == (0.0, 1.0)
    assert plans["qualcomm-htp-v69"]["p"].spec.fixed_range is None
    for name in ("qualcomm-htp-v69", "qualcomm-htp-v68", "qualcomm-htp-v66"):
        for tensor in ("k", "kt", "v"):  # second inputs of products, behind the Transpose too
            assert plans[name][tensor].spec.grid == Grid(8, signed=False, symmetric=True)
        assert plans[name]["q"].spec.grid == U8
    assert plans["qualcomm-htp"]["k"].spec.grid == U8


def test_the_weight_of_a_layer_norm_is_asymmetric_on_htp() -> None:
    row = placed(transformer(), "qualcomm-htp").tensors["gamma"]
    assert row.role is Role.WEIGHT
    assert (row.spec.grid.bits, row.spec.grid.symmetric, row.spec.axis) == (8, False, None)
    assert placed(transformer(), "onnxruntime").tensors["gamma"].spec is None


def test_group_norm_shifts_are_quantized_on_v73_alone() -> None:
    graph = graph_of(
        """(float[n, 4, 4, 4] x) => (float[n, 4, 4, 4] y) {
            y = GroupNormalization<num_groups = 2>(x, scale, shift)
        }""",
        opset=21,
        scale=(4,),
        shift=(4,),
    )
    assert {"scale", "shift"} <= quantized(placed(graph, "qualcomm-htp"))
    assert quantized(placed(graph, "qualcomm-htp-v69")) == {"x", "scale", "y"}


def test_sixteen_bits_where_a_transformer_needs_them() -> None:
    plan = placed(transformer(), "qualcomm-htp-act16")
    bits = {
        name: plan.tensors[name].spec.grid.bits
        for name in ("x", "ln", "q", "k", "scores", "p", "a", "res", "y")
    }
    assert bits == {
        "x": 16, "ln": 16, "q": 8, "k": 8, "scores": 16, "p": 16, "a": 16, "res": 8, "y": 8,
    }  # fmt: skip
    assert "rule for LayerNormalization" in plan.tensors["ln"].reason
    layer = next(layer for layer in plan.layers if layer.output == "ln")
    assert layer.origin("act_bits") == "target qualcomm-htp-act16, rule for LayerNormalization"
    assert layer.origin("weight_bits") == "target qualcomm-htp-act16"


def test_the_user_overrules_a_rule_for_an_op() -> None:
    plan = placed(transformer(), "qualcomm-htp-act16", act_bits=8)
    assert {row.spec.grid.bits for row in plan.tensors.values() if row.observed} == {8}


# --- ties ----------------------------------------------------------------------------------------

CONCAT = """(float[n, 4, 4, 4] x) => (float[n, 12, 4, 4] y) {
    a = Conv(x, w)
    b = Relu(a)
    p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(b)
    t = Tanh(x)
    u = Mul(x, x)
    c = Concat<axis = 1>(p, t, u)
    y = Relu(c)
}"""


def test_inputs_of_concat_share_the_output_s_encoding_where_the_target_wants_it() -> None:
    graph = graph_of(CONCAT, w=(4, 4, 1, 1))
    plan = placed(graph, "openvino")
    # p moves the values of b: all of them use the encoding of c.
    tied = {name: row.tied_to for name, row in plan.tensors.items() if row.tied_to}
    assert tied == {"b": "c", "p": "c", "t": "c", "u": "c"}
    assert plan.tensors["b"].spec == plan.tensors["c"].spec
    assert "Concat" in plan.tensors["b"].reason
    apart = placed(graph, "onnxruntime")
    assert {name for name, row in apart.tensors.items() if row.tied_to} == {"p"}


def test_a_relu_that_runs_alone_ties_what_it_clips() -> None:
    plan = placed(graph_of(CONCAT, w=(4, 4, 1, 1)), "qualcomm-default")
    tied = {name: row.tied_to for name, row in plan.tensors.items() if row.tied_to}
    assert tied == {"b": "y", "p": "y", "t": "y", "u": "y", "c": "y"}
    bounded = placed(graph_of(CONCAT, w=(4, 4, 1, 1)), "qualcomm-htp")
    assert bounded.tensors["t"].tied_to is None, "Tanh has its own range"


def test_a_tie_never_reaches_through_a_fused_layer() -> None:
    plan = placed(resnet(), "qualcomm-htp")
    assert plan.tensors["a3"].tied_to is None, "Add + Relu: the Relu does not clip a3 alone"


def test_different_bits_at_a_concat_are_warned_of() -> None:
    graph = graph_of(CONCAT, w=(4, 4, 1, 1))
    name = next(layer.name for layer in place(graph, QuantConfig()).layers if layer.output == "u")
    plan = place(graph, QuantConfig(target="openvino").with_layers([name], act_symmetric=True))
    assert any("one encoding for all inputs" in text and "u is" in text for text in plan.warnings)


# --- settings and patterns -----------------------------------------------------------------------


def test_patterns_by_op_kind_and_block() -> None:
    layers = {
        "op:MatMul": LayerSettings(weight_bits=4),
        "op:*Norm*": LayerSettings(act_bits=16),
        "block:Attention": LayerSettings(act_symmetric=True),
        "MatMul3": LayerSettings(weight_bits=6),
    }
    plan = place(transformer(), QuantConfig(layers=layers))
    bits = [plan.tensors[name].spec.grid.bits for name in ("wq", "wk", "wo", "ln", "q")]
    assert bits == [4, 6, 4, 16, 8]
    assert plan.tensors["p"].spec.grid.symmetric
    assert not plan.tensors["res"].spec.grid.symmetric
    assert plan.tensors["wk"].reason == "set for this layer"
    assert plan.tensors["wq"].reason == "set for this layer by 'op:MatMul'"
    assert not any("matches no layer" in text for text in plan.warnings)
    unknown = place(transformer(), QuantConfig(layers={"op:Conv": LayerSettings(weight_bits=4)}))
    assert any("'op:Conv'" in text for text in unknown.warnings)


def test_every_new_setting_reaches_its_row() -> None:
    plan = place(
        transformer(),
        QuantConfig(target="custom").with_defaults(
            weight_strict=True, weight_power_of_two=True, weight_block_size=16, weight_lpbq=True,
            act_symmetric=True, act_unsigned_symmetric=True, act_strict=True,
            act_power_of_two=True, act_observer="percentile", act_percentile=99.0,
        ),
    )  # fmt: skip
    weight, output = plan.tensors["wq"].spec, plan.tensors["q"].spec
    assert weight.grid == Grid(8, True, True, strict=True, power_of_two=True)
    assert (weight.block_size, weight.lpbq, weight.axis) == (16, True, 0)
    assert output.grid == Grid(
        8, False, True, strict=True, power_of_two=True, unsigned_symmetric=True
    )
    assert (output.observer, output.percentile) == ("percentile", 99.0)
    floats = placed(transformer(), "custom", weight_format="float8e4m3fn", act_format="float16")
    assert floats.tensors["wq"].spec.grid == FloatGrid("float8e4m3fn")
    assert floats.tensors["p"].spec.grid == FloatGrid("float16")
    assert "no integers" in floats.tensors["bo"].reason


def test_a_layer_says_where_each_setting_comes_from() -> None:
    layers = {"op:MatMul": LayerSettings(weight_bits=4), "MatMul3": LayerSettings(act_bits=16)}
    config = QuantConfig(target="qualcomm-htp", layers=layers)
    plan = place(transformer(), config.with_defaults(act_observer="minmax"))
    described = {key: rest for key, *rest in plan.layer("MatMul3").described()}
    assert described["weight_bits"] == [4, "set for this layer by 'op:MatMul'"]
    assert described["act_bits"] == [16, "set for this layer"]
    assert described["act_observer"] == ["minmax", "default of this configuration"]
    assert described["weight_symmetric"] == [True, "target qualcomm-htp"]
    norm = {key: rest for key, *rest in plan.layer("LayerNormalization1").described()}
    assert norm["weight_symmetric"] == [
        False, "target qualcomm-htp, rule for LayerNormalization",
    ]  # fmt: skip


# --- rule files ----------------------------------------------------------------------------------


def write(path: Path, values: object) -> str:
    path.write_text(json.dumps(values), encoding="utf-8")
    return str(path)


def test_a_file_of_one_s_own_extends_a_bundled_target(tmp_path: Path) -> None:
    name = write(
        tmp_path / "mine.json",
        {
            "extends": "onnxruntime",
            "name": "mine",
            "activations": {"bits": 16},
            "ops": {"Softmax": {"act_bits": 8}},
            "float_bias_ops": None,
        },
    )
    mine, base = load_target(name), load_target("onnxruntime")
    assert mine.activations == base.activations.model_copy(update={"bits": 16})
    assert mine.fusions == base.fusions
    assert base.float_bias_ops
    assert not mine.float_bias_ops
    plan = place(transformer(), QuantConfig(target=name))
    assert plan.tensors["p"].spec.grid.bits == 8
    assert plan.tensors["q"].spec.grid.bits == 16
    again = write(tmp_path / "again.json", {"extends": "mine.json", "name": "again"})
    assert load_target(again).activations.bits == 16


def test_a_rule_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    write(path, {"extends": "custom", "title": "one"})
    assert load_target(str(path)).title == "one"
    write(path, {"extends": "custom", "title": "another"})
    assert load_target(str(path)).title == "another"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"extends": "onnxruntime", "wieghts": {}}, "wieghts"),
        ({"extends": "onnxruntime", "weights": {"bits": 1}}, "weights.bits"),
        ({"extends": "onnxruntime", "ops": {"Conv": {"weihgt_bits": 4}}}, "weihgt_bits"),
        ({"extends": "onnxruntime", "numbers": {"weights": ["int7x"]}}, "numbers.weights"),
        ({"extends": "onnxruntime", "export": {"format": "tflite"}}, "export.format"),
        ({"extends": "nothing"}, "'nothing'"),
        ({"name": "half"}, "version"),
        ([], "JSON object"),
    ],
)
def test_bad_rule_files_name_file_and_key(tmp_path: Path, values: object, words: str) -> None:
    name = write(tmp_path / "bad.json", values)
    with pytest.raises(ConfigError) as caught:
        load_target(name)
    assert words in str(caught.value)
    assert "bad.json" in str(caught.value)


def test_a_rule_file_that_extends_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="extends itself"):
        load_target(write(tmp_path / "loop.json", {"extends": "loop.json"}))
