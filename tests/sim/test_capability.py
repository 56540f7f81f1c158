"""What a target cannot do is named: layer, setting, and what is possible."""

from __future__ import annotations

from typing import Any

import pytest
from block_graphs import resnet, transformer

from studio import QuantSim
from studio.errors import ConfigError
from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.placement import place
from studio.sim.plan import require_possible


@pytest.mark.parametrize(
    ("target", "layer", "settings", "words"),
    [
        ("tensorrt", "Conv3", {"act_bits": 16}, ["Conv3", "act_bits=16", "int8, float8e4m3fn"]),
        ("tensorrt", "Conv3", {"act_symmetric": False}, ["Conv3", "act_symmetric=False"]),
        ("tensorrt", "Conv3", {"weight_symmetric": False}, ["weight_symmetric=False"]),
        ("tensorrt", "Conv3", {"weight_bits": 12}, ["weight_bits=12", "int4, int8"]),
        ("openvino", "Conv3", {"act_bits": 4}, ["act_bits=4", "activations there are int8"]),
        ("qualcomm-htp-v66", "Conv3", {"weight_format": "float16"}, ["weight_format=float16"]),
        ("tensorrt", "Gemm16", {"weight_block_size": 32}, ["weight_block_size=32", "64, 128"]),
        ("arm-ethos", "Gemm16", {"weight_block_size": 2}, ["no blocks", "set it to 0"]),
        ("openvino", "Gemm16", {"weight_block_size": 3}, ["does not divide the 4 input channels"]),
        ("onnxruntime", "Conv3", {"weight_block_size": 2},
         ["not possible for Conv", "Gemm, MatMul"]),
        ("onnxruntime", "Gemm16", {"weight_lpbq": True}, ["weight_lpbq needs blocks"]),
        ("openvino", "Gemm16", {"weight_lpbq": True, "weight_block_size": 2},
         ["scales of their own"]),
        ("custom", "Gemm16",
         {"weight_lpbq": True, "weight_block_size": 2, "weight_symmetric": False},
         ["weight_lpbq needs symmetric"]),
        ("onnxruntime", "Conv3", {"act_dynamic": True}, ["not possible for Conv", "MatMul"]),
        ("tensorrt", "Gemm16", {"act_dynamic": True}, ["not possible for Gemm", "no op"]),
    ],
)  # fmt: skip
def test_one_setting(target: str, layer: str, settings: dict[str, Any], words: list[str]) -> None:
    plan = place(resnet(), QuantConfig(target=target).with_layers([layer], **settings))
    assert len(plan.impossible) == 1, plan.impossible
    for word in [layer, *words]:
        assert word in plan.impossible[0]
    with pytest.raises(ConfigError, match=target) as caught:
        require_possible(plan)
    assert plan.impossible[0] in str(caught.value)


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("tensorrt", {"weight_bits": 6}),  # held by int8
        ("tensorrt", {"weight_format": "float8e4m3fn", "act_format": "float8e4m3fn"}),
        ("qualcomm-htp", {"weight_bits": 4, "act_bits": 16}),
        ("onnxruntime", {"weight_bits": 3, "act_bits": 12}),
        ("custom", {"act_bits": 5, "weight_block_size": 3, "weight_lpbq": True}),
        ("weight-only", {"weight_block_size": 64}),
        ("onnxruntime", {"weight_block_size": 32}),  # for all: convolutions just have none
        ("onnxruntime", {"act_dynamic": True}),
    ],
)
def test_possible_settings_for_all_layers(target: str, settings: dict[str, Any]) -> None:
    for graph in (resnet(), transformer()):
        plan = place(graph, QuantConfig(target=target).with_defaults(**settings))
        assert plan.impossible == ()
        require_possible(plan)


def test_layers_with_the_same_trouble_are_named_together() -> None:
    config = QuantConfig(target="tensorrt", layers={"*": LayerSettings(act_bits=16)})
    (text,) = place(resnet(), config).impossible
    assert text.startswith("x, MaxPool2, Conv3 and 5 more layers: act_bits=16")


def test_blocks_for_a_pattern_leave_convolutions_per_channel() -> None:
    config = QuantConfig(layers={"*": LayerSettings(weight_block_size=2)})
    plan = place(resnet(), config)
    assert plan.impossible == ()
    assert plan.tensors["w1"].spec.block_size is None
    assert "without blocks" in plan.tensors["w1"].reason
    assert plan.tensors["w6"].spec.block_size == 2
    assert "scale for each block" in plan.tensors["b6"].reason


def test_numbers_without_a_kernel_are_warned_of() -> None:
    plan = place(resnet(), QuantConfig().with_layers(["Conv3"], weight_bits=16))
    (text,) = plan.warnings
    assert text.startswith("Conv3: int8 activations with int16 weights are computed in float")
    assert "int8 x int8" in text


def test_calibration_refuses_before_it_reads_data() -> None:
    def data():  # type: ignore[no-untyped-def]
        raise AssertionError("read")
        yield

    config = QuantConfig(target="tensorrt").with_layers(["Conv3"], act_bits=16)
    with pytest.raises(ConfigError, match="act_bits=16"):
        QuantSim(resnet(), config).calibrate(data())
