"""What a target offers for a layer, and which layers a pattern is for."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from studio.graph.open import open_model
from studio.sim import choices
from studio.sim.config import QuantConfig
from studio.sim.matching import matching_layers
from studio.sim.placement import place
from studio.sim.target import load_target, target_names


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Conv 3 x 3 -> Conv 1 x 1 -> Flatten -> Gemm with 40 inputs."""
    import numpy as np

    rng = np.random.default_rng(0)
    values = {
        "a": rng.normal(size=(32, 3, 3, 3)),
        "b": rng.normal(size=(10, 32, 1, 1)),
        "c": rng.normal(size=(4, 40)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["y"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["y", "b"], ["z"], name="second"),
        helper.make_node("Flatten", ["z"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "c"], ["out"], name="last", transB=1),
    ]
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 2, 2])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4])],
            [numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    path = tmp_path_factory.mktemp("choices") / "net.onnx"
    onnx.save(proto, path)
    return open_model(path)


def asked(graph, target: str, layer: str, kind: choices.Kind) -> dict[str, choices.Question]:
    plan = place(graph, QuantConfig(target=target))
    found = choices.questions(graph, plan, load_target(target), plan.layer(layer), kind)
    return {question.name: question for question in found}


def texts(question: choices.Question) -> list[str]:
    return [choice.text for choice in question.choices]


@pytest.mark.parametrize("target", target_names())
def test_nothing_is_offered_that_the_target_refuses(graph, target):
    """Every choice alone gives a plan without anything impossible, and is the answer afterwards."""
    config = QuantConfig(target=target)
    plan = place(graph, config)
    before = set(plan.impossible)
    for layer in plan.layers:
        for kind in choices.KINDS:
            for question in choices.questions(graph, plan, load_target(target), layer, kind):
                for choice in question.choices:
                    if question.name == choices.RANGES and choice.text == "at inference":
                        continue  # asks for uint8 activations as well
                    chosen = config.with_layers([layer.name], **dict(choice.settings))
                    after = place(graph, chosen)
                    assert set(after.impossible) <= before, (layer.name, choice)
                    assert question.answer(after.layer(layer.name).settings) == choice.text


def test_blocks_have_to_divide_the_input_channels_where_the_target_asks_that(graph):
    custom = asked(graph, "custom", "last", "weight")[choices.GRANULARITY]
    assert [text for text in texts(custom) if text.startswith("blocks")] == [
        f"blocks of {size}" for size in choices.BLOCK_SIZES
    ]
    htp = asked(graph, "qualcomm-htp", "last", "weight")[choices.GRANULARITY]
    assert not [text for text in texts(htp) if "blocks" in text], "40 is no multiple of 16"
    assert "blocks of 32" not in texts(
        asked(graph, "custom", "first", "weight")[choices.GRANULARITY]
    )


def test_what_is_not_offered_still_has_a_name(graph):
    config = QuantConfig().with_layers(["first"], act_symmetric=True, act_strict=True)
    settings = place(graph, config).layer("first").settings
    assert choices.symmetry_text(settings, "act") == "strict unsigned symmetric"
    assert choices.number_text("float8e5m2", 8) == "fp8 e5m2"


def test_matching_layers(graph):
    found = matching_layers(graph, QuantConfig(), ["*i*", "op:Conv", "x", "nothing", "op:Input"])
    assert found == {
        "*i*": ("first",),
        "op:Conv": ("first", "second"),
        "x": ("x",),
        "nothing": (),
        "op:Input": ("x",),
    }
