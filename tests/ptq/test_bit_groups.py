"""Which layers share their bits, what candidates cost, and what the target can do."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

sys.path.append(str(Path(__file__).parents[1] / "qat"))
from qat_models import digits_data, digits_model

from studio.analysis.cost import layer_costs, tensors_to_measure
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.open import open_model
from studio.ptq.bit_costs import bit_operation_costs, size_costs
from studio.ptq.bit_groups import (
    Candidate,
    Groups,
    find_groups,
    parse_candidate,
    possible_candidates,
    special_layers,
)
from studio.runtime.shapes import measured_shapes
from studio.sim.config import QuantConfig
from studio.sim.overrides import with_settings
from studio.sim.placement import place
from studio.sim.plan import Plan

W4A8, W8A8, W8A16 = Candidate(4, 8), Candidate(8, 8), Candidate(8, 16)


def graph_of(
    tmp_path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: str
) -> ModelGraph:
    """`nodes` from an image of 4 channels to `output`."""
    shape = ["n", 4, 6, 6]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return open_model(ModelSource(path))


def weight(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 4, 1, 1)).astype(np.float32)


def groups_of(
    graph: ModelGraph, *candidates: Candidate, config: QuantConfig | None = None
) -> Groups:
    config = config or QuantConfig()
    return find_groups(place(graph, config), candidates, special_layers(graph, config))


def test_candidates_by_name() -> None:
    assert parse_candidate(" W4a8 ") == W4A8
    assert parse_candidate("float") == Candidate(None, None)
    assert (W8A16.name, Candidate(None, None).name) == ("W8A16", "float")
    for text in ("w4", "w1a8", "w4a17", "int8", ""):
        with pytest.raises(ValueError, match="neither of the form"):
            parse_candidate(text)


def test_inputs_of_a_concat_and_a_shared_weight_go_together(tmp_path: Path) -> None:
    graph = graph_of(
        tmp_path,
        [
            helper.make_node("Conv", ["image", "w"], ["a"], "first"),
            helper.make_node("Conv", ["a", "w"], ["b"], "second"),
            helper.make_node("Conv", ["a", "v"], ["c"], "third"),
            helper.make_node("Concat", ["a", "c"], ["d"], "join", axis=1),
            helper.make_node("Conv", ["b", "u"], ["e"], "alone"),
            helper.make_node("Concat", ["d", "e"], ["f"], "end", axis=1),
        ],
        {"w": weight(0), "v": weight(1), "u": weight(2)},
        "f",
    )
    config = QuantConfig(target="openvino")
    tied = {name for name, row in place(graph, config).tensors.items() if row.tied_to == "f"}
    groups = groups_of(graph, W8A8, W8A16, config=config)
    sets = {frozenset(group.layers) for group in groups.groups}
    first = next(layers for layers in sets if "first" in layers)
    assert "second" in first, "they share a weight"
    assert tied >= {"a", "c"}
    assert "third" in first, "its output has the encoding of the first layer's"
    assert "alone" in next(layers for layers in sets if "end" in layers)


def test_only_what_differs_is_a_choice() -> None:
    """With the same bits of activations everywhere, layers without weights have no choice."""
    graph = digits_model(8, 8).graph
    plan = place(graph, QuantConfig())
    groups = groups_of(graph, W4A8, W8A8)
    free = {layer for i in groups.free for layer in groups.groups[i].layers}
    assert free == {layer.name for layer in plan.layers if layer.weights}
    both = groups_of(graph, W4A8, W8A8, W8A16)
    adding = next(layer.name for layer in plan.layers if layer.ops[0] == "Add")
    group = next(group for group in both.groups if adding in group.layers)
    assert group.choices == (0, 2)
    assert both.settings_of(both.uniform(1))[adding] == {"act_bits": 8}
    assert both.settings_of(both.uniform(2))[adding] == {"act_bits": 16}


def test_layers_with_bits_of_their_own_by_a_pattern_are_left_alone() -> None:
    graph = digits_model(8, 8).graph
    config = QuantConfig().with_layers(["op:Gemm"], weight_bits=16)
    settings = groups_of(graph, W4A8, W8A8, config=config).settings[0]
    assert "weight_bits" not in settings["classifier"]
    assert settings["stem.conv"] == {"weight_bits": 4, "act_bits": 8}
    by_name = QuantConfig().with_layers(["classifier"], weight_bits=16)
    assert groups_of(graph, W4A8, W8A8, config=by_name).settings[0]["classifier"] == {
        "weight_bits": 4,
        "act_bits": 8,
    }


def test_float_switches_layers_off_and_on_again() -> None:
    graph = digits_model(8, 8).graph
    config = QuantConfig().with_layers(["stem.conv"], weight_enabled=False)
    assert "weight_bits" not in groups_of(graph, W4A8, W8A8, config=config).settings[0]["stem.conv"]
    groups = groups_of(graph, W8A8, Candidate(None, None), config=config)
    on, off = (groups.settings_of(groups.uniform(i)) for i in (0, 1))
    assert place(graph, with_settings(graph, config, off)).quantized == ()
    assert with_settings(graph, config, on).layers == {}


def test_the_target_decides_what_is_possible() -> None:
    graph = digits_model(8, 8).graph
    odd = Candidate(8, 5)
    assert possible_candidates(graph, QuantConfig(), [W4A8, W8A8, odd])[0] == (W4A8, W8A8, odd)
    kept, problems = possible_candidates(
        graph, QuantConfig(target="qualcomm-htp"), [W4A8, W8A8, W8A16, odd]
    )
    assert kept == (W4A8, W8A8, W8A16)
    assert len(problems) == 1
    assert "W8A5 is left out" in problems[0]


def random_choices(groups: Groups, count: int) -> list[tuple[int, ...]]:
    random = np.random.default_rng(0)
    return [
        tuple(int(random.choice(group.choices)) for group in groups.groups) for _ in range(count)
    ]


def test_costs_are_those_of_the_real_plan() -> None:
    """The sums over groups and pairs of groups against the costs of the placed graph."""
    graph, config = digits_model(8, 8).graph, QuantConfig()
    groups = groups_of(graph, Candidate(4, 4), W8A8, W8A16, Candidate(None, None))
    plans: list[Plan] = [
        place(graph, with_settings(graph, config, settings)) for settings in groups.settings
    ]
    batch = next(iter(digits_data("test").batches(1)))
    shapes = measured_shapes(graph, batch.inputs, tensors_to_measure(graph))
    sizes = size_costs(graph, groups, plans)
    operations = bit_operation_costs(graph, groups, plans, shapes)
    assert operations.pairs, "the input's bits are another layer's"
    for chosen in random_choices(groups, 12):
        plan = place(graph, with_settings(graph, config, groups.settings_of(chosen)))
        costs = layer_costs(graph, plan, shapes)
        assert sizes.of(chosen) == sum(cost.quantized_bytes for cost in costs)
        assert operations.of(chosen) == sum(cost.bit_operations or 0 for cost in costs)
