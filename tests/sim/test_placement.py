"""Placement: every tensor has a row, and the rows follow the target's rules."""

from __future__ import annotations

import pytest
from sim_graphs import conv_net, graph_of

from studio.errors import ConfigError
from studio.sim.config import LayerSettings, QuantConfig, parse_config, parse_override
from studio.sim.placement import place
from studio.sim.plan import Role
from studio.sim.target import load_target, target_names


@pytest.mark.parametrize("target", target_names())
def test_every_tensor_is_quantized_or_says_why_not(target: str) -> None:
    graph = conv_net()
    plan = place(graph, QuantConfig(target=target))
    names = {value.name for value in graph.inputs} | set(graph.initializers)
    names |= {value.name for node in graph.nodes() for value in node.outputs}
    assert set(plan.tensors) == names
    assert all(row.reason for row in plan.tensors.values())


def test_every_node_is_in_exactly_one_layer() -> None:
    graph = conv_net()
    nodes = [name for layer in place(graph, QuantConfig()).layers for name in layer.nodes]
    assert sorted(nodes) == sorted(node.name for node in graph.nodes())


def test_activations_fuse_with_convolutions_depthwise_too() -> None:
    plan = place(conv_net(), QuantConfig())
    assert [layer.title for layer in plan.layers] == [
        "Input", "Conv + Relu", "Conv + Clip", "MaxPool", "Conv", "Add + Relu",
        "GlobalAveragePool", "Flatten", "Gemm", "Softmax",
    ]  # fmt: skip
    for inside, outside in (("a", "b"), ("c", "d"), ("g", "h")):
        assert plan.tensors[inside].spec is None
        assert "one kernel" in plan.tensors[inside].reason
        assert plan.tensors[outside].spec is not None


def test_data_movement_follows_its_input() -> None:
    plan = place(conv_net(), QuantConfig())
    assert plan.tensors["e"].tied_to == "d"
    assert plan.tensors["j"].tied_to == "i"
    assert "e" not in plan.observed


def test_weights_are_per_channel_and_biases_int32() -> None:
    plan = place(conv_net(), QuantConfig())
    assert [plan.tensors[name].spec.axis for name in ("w1", "w2", "w3", "w4")] == [0, 0, 0, 0]
    bias = plan.tensors["b4"]
    assert bias.role is Role.BIAS
    assert bias.spec.grid.bits == 32
    assert bias.bias_of == ("j", "w4")


def test_residual_is_not_swallowed_by_the_convolution() -> None:
    graph = graph_of(
        """(float[n, 4, 4, 4] x) => (float[n, 4, 4, 4] y) {
            a = Conv(x, w)
            b = Add(a, x)
            y = Relu(b)
        }""",
        w=(4, 4, 1, 1),
    )
    assert [layer.title for layer in place(graph, QuantConfig()).layers] == [
        "Input",
        "Conv",
        "Add + Relu",
    ]


def test_result_read_twice_is_not_fused() -> None:
    graph = graph_of(
        """(float[n, 4, 4, 4] x) => (float[n, 4, 4, 4] y, float[n, 4, 4, 4] a) {
            a = Conv(x, w)
            y = Relu(a)
        }""",
        w=(4, 4, 1, 1),
    )
    assert [layer.title for layer in place(graph, QuantConfig()).layers] == [
        "Input",
        "Conv",
        "Relu",
    ]


def test_matmul_with_added_constant_is_a_linear_layer() -> None:
    text = """(float[n, 6, 4] x) => (float[n, 6, 3] y) {
        a = MatMul(x, w)
        y = Add(a, b)
    }"""
    graph = graph_of(text, w=(4, 3), b=(3,))
    for target in ("qualcomm-htp", "onnxruntime"):
        plan = place(graph, QuantConfig(target=target))
        assert plan.tensors["a"].spec is None
        assert plan.tensors["b"].role is Role.BIAS
        assert plan.tensors["w"].spec.axis == 1


def test_settings_of_one_layer() -> None:
    graph = conv_net()
    layer = place(graph, QuantConfig()).layers[2].name
    config = QuantConfig().with_layers(
        [layer], weight_bits=4, weight_per_channel=False, act_bits=12, act_symmetric=True
    )
    plan = place(graph, config)
    weight, output = plan.tensors["w2"].spec, plan.tensors["d"].spec
    assert (weight.grid.bits, weight.axis) == (4, None)
    assert (output.grid.bits, output.grid.symmetric) == (12, True)
    assert plan.tensors["w2"].reason.startswith("set for this layer")
    assert plan.layers[2].changed == {
        "weight_bits",
        "weight_per_channel",
        "act_bits",
        "act_symmetric",
    }
    assert plan.tensors["e"].spec == output, "the pooling behind it follows"


def test_switching_off_says_so_and_makes_the_bias_float() -> None:
    graph = conv_net()
    layer = place(graph, QuantConfig()).layers[1].name
    plan = place(graph, QuantConfig().with_layers([layer], weight_enabled=False, act_enabled=False))
    assert plan.tensors["w1"].spec is None
    assert "switched off" in plan.tensors["w1"].reason
    assert "switched off" in plan.tensors["b"].reason
    assert "weight is not quantized" in plan.tensors["b1"].reason
    assert "input is not quantized" in plan.tensors["b2"].reason


def test_later_patterns_win() -> None:
    graph = conv_net()
    names = [layer.name for layer in place(graph, QuantConfig()).layers if "Conv" in layer.ops]
    config = QuantConfig(
        layers={"*": LayerSettings(weight_bits=6), names[1]: LayerSettings(weight_bits=3)}
    )
    plan = place(graph, config)
    assert [plan.layer(name).settings.weight_bits for name in names] == [6, 3, 6]


def test_setting_that_matches_no_layer_is_reported() -> None:
    plan = place(conv_net(), QuantConfig(layers={"nothing": LayerSettings(weight_bits=4)}))
    assert any("'nothing'" in warning for warning in plan.warnings)


def test_integer_tensors_are_left_alone_with_a_reason() -> None:
    graph = graph_of(
        """(float[n, 4] x) => (int64[n] y) {
            a = Relu(x)
            y = ArgMax<axis = 1, keepdims = 0>(a)
        }"""
    )
    row = place(graph, QuantConfig()).tensors["y"]
    assert row.spec is None
    assert "int64" in row.reason


@pytest.mark.parametrize(
    "text", ["conv", "conv:weight_bits", ":weight_bits=4", "conv:weight_bits=1", "conv:bits=4"]
)
def test_bad_overrides_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"weight_bits|override|bits"):
        parse_override(text)


def test_override_may_name_a_layer_with_colons() -> None:
    assert parse_override("model:0/conv:weight_bits=4,act_enabled=false") == (
        "model:0/conv",
        {"weight_bits": 4, "act_enabled": False},
    )


def test_unknown_keys_and_targets_are_named() -> None:
    with pytest.raises(ConfigError, match="wieght_bits"):
        parse_config({"defaults": {"wieght_bits": 4}})
    with pytest.raises(ConfigError, match="no target 'tpu'"):
        load_target("tpu")


def test_config_survives_json() -> None:
    config = QuantConfig(target="qualcomm-htp").with_layers(["a"], weight_bits=4)
    assert parse_config(config.model_dump(mode="json")) == config
