"""AIMET's quantsim configurations, written from the description of those it ships."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from block_graphs import resnet, transformer

from studio.errors import ConfigError
from studio.quant.grid import Grid
from studio.sim.aimet_config import aimet_config, is_aimet_config, target_from_aimet
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.target import Target, load_target, target_names

PER_CHANNEL = ("Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu")
BASIC = ["Conv Relu", "ConvTranspose Relu", "Conv Clip", "Add Relu", "Gemm Relu"]
V69 = ["ConvTranspose Relu", "Add Relu", "Gemm Relu"]
V73 = [
    "Add Relu", "ConvTranspose Relu", "Gemm Relu",
    *(f"Conv BatchNormalization {op}" for op in ("HardSwish", "PRelu", "LeakyRelu", "Relu")),
    *(f"Conv Transpose {op}" for op in ("Relu", "PRelu", "LeakyRelu")),
    *(f"Conv {op}" for op in ("Clip", "PRelu", "LeakyRelu", "Relu")),
]  # fmt: skip
ENPU_HEADS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool", "MaxPool", "Add", "Sub", "Mul"),
    "BatchNormalization",
)
ENPU_ENDS = ("Relu", "Clip", "Sigmoid", "Tanh", "PRelu", "LeakyRelu", "HardSwish", "Gelu")
ENPU = [f"{head} {end}" for head in ENPU_HEADS for end in ENPU_ENDS]
STATISTICS_OFF = {
    "params": {"running_mean": {"is_quantized": "False"}, "running_var": {"is_quantized": "False"}}
}
ASYMMETRIC = {"params": {"weight": {"is_symmetric": "False"}}}
PASSES = ["LayerNormalization", "RMSNormalization", "MatmulAdd"]


def config(
    op_type: dict[str, Any],
    fusions: list[str],
    passes: list[str],
    per_channel: tuple[str, ...] = (),
    **defaults: Any,
) -> dict[str, Any]:
    ops = deepcopy(op_type)
    for op in per_channel:
        ops.setdefault(op, {})["per_channel_quantization"] = "True"
    values: dict[str, Any] = {
        "defaults": {
            "ops": {"is_output_quantized": "True"},
            "params": {"is_quantized": "True", "is_symmetric": "True"},
            "strict_symmetric": "False",
            "per_channel_quantization": "False",
            **defaults,
        },
        "params": {"bias": {"is_quantized": "False"}},
        "op_type": ops,
        "supergroups": [{"op_list": names.split()} for names in fusions],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }
    return {**values, "supergroup_pass_list": passes} if passes else values


def off(*ops: str) -> dict[str, Any]:
    return {op: {"is_output_quantized": "False"} for op in ops}


def htp(version: int, per_channel: tuple[str, ...], **kernels: Any) -> dict[str, Any]:
    ops = {
        **off("Cast", "ChannelShuffle", "Gather", "NonMaxSuppression"),
        "BatchNormalization": STATISTICS_OFF,
        **{f"{kind}Normalization": ASYMMETRIC for kind in ("Layer", "Instance", "RMS")},
        "Relu": {"encoding_constraints": {"min": 0.0}},
        **{
            op: {"encoding_constraints": {"min": -1.0, "max": 1.0}} for op in ("Sin", "Cos", "Tanh")
        },
    }
    if version >= 73:
        ops["GroupNormalization"] = {"params": {"bias": {"is_quantized": "True"}}}
        for op in ("Sigmoid", "Softmax"):
            ops[op] = {"encoding_constraints": {"min": 0.0, "max": 1.0}}
    if version == 66:
        ops.update(off("Flatten"))
    return config(
        ops,
        V73 if version >= 73 else V69,
        [] if version == 66 else PASSES,
        per_channel,
        unsigned_symmetric="False",
        hw_version=f"V{version}",
        **kernels,
    )


KERNELS = [
    {"activation": {"bitwidth": bits, "dtype": kind}, "param": {"bitwidth": weight, "dtype": kind}}
    for bits, weight, kind in ((8, 8, "int"), (16, 8, "int"), (16, 16, "float"))
]
BATCH_NORM = {**off("Cast"), "BatchNormalization": STATISTICS_OFF}
ENPU_OPS = {"ops": {"is_output_quantized": "True", "is_symmetric": "True"}}

SHIPPED = {
    "default_config": config(BATCH_NORM, BASIC, ["MatmulAdd"]),
    "default_config_per_channel": config(BATCH_NORM, BASIC, ["MatmulAdd"], PER_CHANNEL),
    "dsp_quantsim_config": config(
        {**BATCH_NORM, **off("Mean")}, BASIC, [],
        params={"is_quantized": "True", "is_symmetric": "False"},
    ),
    "enpu_v6": config({}, ENPU, [], **ENPU_OPS),
    "enpu_v7": config({}, [*ENPU, "Conv Add Relu"], [], **ENPU_OPS),
    "enpu_v7_per_channel": config({}, ENPU, [], PER_CHANNEL, **ENPU_OPS),
    "htp_v66": htp(66, ()),
    "htp_v68": htp(68, ("Conv", "ConvTranspose", "PRelu")),
    "htp_v69": htp(69, PER_CHANNEL, supported_kernels=KERNELS),
    **{
        f"htp_v{version}": htp(version, PER_CHANNEL, supported_kernels=KERNELS)
        for version in (73, 75, 79, 81, 85)
    },
}  # fmt: skip


def read(name: str) -> Target:
    return target_from_aimet(SHIPPED[name], name, f"{name}.json")


@pytest.mark.parametrize("name", SHIPPED)
def test_read_written_read_is_the_same(name: str, tmp_path: Path) -> None:
    target = read(name)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(aimet_config(target)), encoding="utf-8")
    assert load_target(str(path)) == target


@pytest.mark.parametrize("name", SHIPPED)
def test_places_every_tensor(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(SHIPPED[name]), encoding="utf-8")
    for graph in (resnet(), transformer()):
        plan = place(graph, QuantConfig(target=str(path)))
        assert plan.impossible == ()
        assert all(row.reason for row in plan.tensors.values())


def test_what_is_written_is_aimet_s_schema() -> None:
    written = aimet_config(read("htp_v73"))
    assert set(written) == {
        "defaults", "params", "op_type", "supergroups", "supergroup_pass_list", "model_input",
        "model_output",
    }  # fmt: skip
    assert written["defaults"]["ops"] == {"is_output_quantized": "True", "is_symmetric": "False"}
    assert written["defaults"]["hw_version"] == "V73"
    assert written["defaults"]["supported_kernels"] == KERNELS
    assert written["params"] == {"bias": {"is_quantized": "False"}}
    assert written["op_type"]["LayerNormalization"] == ASYMMETRIC
    assert written["op_type"]["BatchNormalization"] == STATISTICS_OFF
    assert written["op_type"]["Softmax"] == {"encoding_constraints": {"min": 0.0, "max": 1.0}}
    assert written["op_type"]["Relu"] == {"encoding_constraints": {"min": 0.0}}
    assert written["op_type"]["Conv"] == {"per_channel_quantization": "True"}
    assert written["supergroups"] == [{"op_list": names.split()} for names in V73]
    assert sorted(written["supergroup_pass_list"]) == sorted(PASSES)


def test_grids_follow_the_configuration(tmp_path: Path) -> None:
    def grids(name: str) -> tuple[Grid, Grid]:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(SHIPPED[name]), encoding="utf-8")
        rows = place(resnet(), QuantConfig(target=str(path))).tensors
        return rows["w1"].spec.grid, rows["pool"].spec.grid

    u8, s8 = Grid(8, False, False), Grid(8, True, True)
    assert grids("default_config") == (s8, u8)
    assert grids("dsp_quantsim_config")[0].symmetric is False
    assert grids("enpu_v6") == (s8, s8)


def test_an_even_range_is_symmetric_and_one_end_is_no_range() -> None:
    target = read("htp_v73")
    assert target.ops["Tanh"].act_symmetric is True
    assert target.fixed_ranges["Relu"] == (0.0, None)
    assert "Relu" not in target.ops
    assert target.weights.per_channel
    assert target.bias == "float"
    assert target.quantized_bias_ops == {"GroupNormalization"}


def test_passes_decide_what_is_one_layer() -> None:
    assert read("htp_v66").separate_kinds == {"LayerNorm", "Linear", "RMSNorm"}
    assert read("default_config").separate_kinds == {"LayerNorm", "RMSNorm"}


def test_inputs_alone_may_be_quantized(tmp_path: Path) -> None:
    values = config({"Conv": {"is_input_quantized": "True"}}, ["Conv Relu"], ["MatmulAdd"])
    values["defaults"]["ops"] = {"is_symmetric": "True"}
    path = tmp_path / "inputs.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    plan = place(resnet(), QuantConfig(target=str(path)))
    assert plan.tensors["pool"].read_by == {"Conv3"}
    assert plan.tensors["flat"].spec is None
    target = load_target(str(path))
    assert target_from_aimet(aimet_config(target), "inputs", "again") == target


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("defaults", {"hw_versoin": "V73"}, "defaults.hw_versoin"),
        ("defaults", {"strict_symmetric": "yes"}, "defaults.strict_symmetric"),
        ("op_type", {"Conv": {"per_channel": "True"}}, "op_type.Conv.per_channel"),
        ("op_type", {"Conv": {"is_input_quantized": "True"}}, "op_type.Conv.is_input_quantized"),
        ("op_type", {"LSTM": {"params": {"h": {"is_quantized": "True"}}}}, "LSTM.params.h"),
        ("model_input", {"is_quantized": "True"}, "model_input.is_quantized"),
    ],
)  # fmt: skip
def test_unknown_keys_are_named(
    section: str, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    values = deepcopy(SHIPPED["default_config"])
    values[section].update(change)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_target(str(path))
    assert words in str(caught.value)
    assert "bad.json" in str(caught.value)


def test_missing_sections_passes_and_groups_are_named() -> None:
    values = deepcopy(SHIPPED["default_config"])
    assert is_aimet_config(values)
    for change, words in (
        ({"supergroup_pass_list": ["Fuse"]}, "'Fuse'"),
        ({"supergroups": [{"op_list": ["Conv"]}]}, "supergroups.0.op_list"),
        ({"extra": {}}, "'extra'"),
    ):
        with pytest.raises(ConfigError, match=words):
            target_from_aimet({**values, **change}, "x", "x.json")
    del values["model_output"]
    with pytest.raises(ConfigError, match="model_output"):
        target_from_aimet(values, "x", "x.json")


def test_targets_that_aimet_can_say_are_written_and_others_say_why_not() -> None:
    written, refused = [], {}
    for name in target_names():
        try:
            again = target_from_aimet(aimet_config(load_target(name)), name, name)
        except ConfigError as error:
            refused[name] = str(error)
            continue
        target = load_target(name)
        written.append(name)
        assert again.fusions == target.fusions
        assert again.per_channel_ops == target.per_channel_ops
        assert again.weights.symmetric == target.weights.symmetric
    assert {name for name in target_names() if name.startswith("qualcomm")} - set(written) == {
        "qualcomm-htp-act16"
    }
    assert "act_bits" in refused["qualcomm-htp-act16"]
    assert "blocks of weights" in refused["weight-only"]
    assert "chosen inputs" in refused["tensorrt"]
    assert "inference" in refused["onnxruntime-dynamic"]
