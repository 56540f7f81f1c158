"""Modules with all kinds of inputs: found out or given, and equal to PyTorch at other sizes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import util
from types import ModuleType
from typing import Any

import pytest
import torch
from graph_models import difference, run
from source_models import CODE

from studio.errors import ModelError
from studio.graph.describe import source_line
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.graph.sources.interface import InputsNeededError, flat_outputs
from studio.graph.sources.source import ExampleInput


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("code") / "nets.py"
    path.write_text(CODE)
    spec = util.spec_from_file_location("nets", path)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opened(code: ModuleType, name: str, **options: Any) -> tuple[ModelGraph, torch.nn.Module]:
    """The graph and the module, with the same weights."""
    torch.manual_seed(0)
    graph = open_model(f"{code.__file__}:{name}", trust=True, **options)
    torch.manual_seed(0)
    return graph, getattr(code, name)().eval()


def assert_equal(
    graph: ModelGraph, feeds: dict[str, torch.Tensor], call: Callable[[], Any]
) -> None:
    with torch.no_grad():
        expected = [tensor.numpy() for _, tensor in flat_outputs(call())]
    found = run(graph.to_proto(), {name: tensor.numpy() for name, tensor in feeds.items()})
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        assert difference(a, b) < 1e-5


def names(values: Any) -> list[str]:
    return [value.name for value in values]


def sizes(graph: ModelGraph, name: str) -> list[int | str]:
    """Numbers, and names of open sizes."""
    return [s if isinstance(s, int) else str(s.value) for s in graph.value(name).shape or ()]


def test_dictionaries_and_tuples(code: ModuleType) -> None:
    graph, module = opened(
        code, "Joined", inputs="batch.x:1,5,4; batch.ids:1,5; states.0:1,5,3; states.1:1,5,3"
    )
    assert names(graph.inputs) == ["batch.x", "batch.ids", "states.0", "states.1"]
    assert names(graph.outputs) == ["y", "parts.0", "parts.1.0"]
    x, a, b = torch.randn(3, 9, 4), torch.randn(3, 9, 3), torch.randn(3, 9, 3)
    ids = torch.randint(0, 11, (3, 9))
    assert_equal(
        graph,
        {"batch.x": x, "batch.ids": ids, "states.0": a, "states.1": b},
        lambda: module({"x": x, "ids": ids}, (a, b)),
    )


def test_tokens_are_found_out(code: ModuleType) -> None:
    graph, module = opened(code, "Encoder")
    assert graph.source.inputs == (ExampleInput((1, 16), "input_ids", "int64"),)
    assert "1×16 int64 was assumed" in graph.warnings[0]
    assert names(graph.outputs) == ["logits", "hidden"]
    ids = torch.randint(0, 100, (3, 23))
    assert_equal(graph, {"input_ids": ids}, lambda: module(ids))


def test_optional_inputs(code: ModuleType) -> None:
    graph, module = opened(code, "Encoder", inputs="input_ids:1,16; attention_mask:1,16:int64")
    ids, mask = torch.randint(0, 100, (3, 23)), torch.ones(3, 23, dtype=torch.int64)
    mask[:, 20:] = 0
    feeds = {"input_ids": ids, "attention_mask": mask}
    assert_equal(graph, feeds, lambda: module(ids, mask))


def test_fixed_values(code: ModuleType) -> None:
    graph, module = opened(
        code, "Speech", inputs="x:1,1,90", fixed_inputs={"sr": 8000, "gain": [2.0]}
    )
    assert (names(graph.inputs), names(graph.outputs)) == (["x"], ["y"])
    x = torch.randn(3, 1, 200)
    assert_equal(graph, {"x": x}, lambda: module(x, 8000, torch.tensor([2.0])))


def test_what_only_the_user_knows_is_asked_for(code: ModuleType) -> None:
    with pytest.raises(InputsNeededError) as caught:
        opened(code, "Speech")
    rows = {row.name: row for row in caught.value.rows}
    assert rows["x"].shape == "1,1,16000"
    assert rows["sr"].required
    with pytest.raises(InputsNeededError, match="unknown rate 5") as refused:
        opened(code, "Speech", inputs="x:1,1,90", fixed_inputs={"sr": 5, "gain": 1.0})
    rows = {row.name: row for row in refused.value.rows}
    assert (rows["x"].shape, rows["sr"].fixed) == ("1,1,90", "5")
    with pytest.raises(ModelError, match="no input 'rate'"):
        opened(code, "Speech", inputs="x:1,1,90", fixed_inputs={"rate": 5})
    with pytest.raises(ModelError, match="no input 'y'"):
        opened(code, "Speech", inputs="y:1,1,90")


def test_variadic_inputs(code: ModuleType) -> None:
    graph, module = opened(code, "Variadic", inputs="1,4; 1,4; k:1,4")
    assert names(graph.inputs) == ["xs.0", "xs.1", "k"]
    a, b, k = torch.randn(3, 3, 4)
    assert_equal(graph, {"xs.0": a, "xs.1": b, "k": k}, lambda: module(a, b, k=k))


def test_outputs_that_are_inputs_or_repeat(code: ModuleType) -> None:
    graph, module = opened(code, "Through", inputs="1,4; 1,4")
    assert len(set(names(graph.outputs))) == 3
    x, y = torch.randn(2, 3, 4)
    assert_equal(graph, {"x": x, "y": y}, lambda: module(x, y))


@pytest.mark.parametrize(
    ("name", "feeds"),
    [
        ("Lstm", {"tokens": torch.randint(0, 50, (3, 41))}),
        ("Towers", {"image": torch.randn(3, 3, 64, 96), "text_ids": torch.randint(0, 30, (5, 7))}),
        ("UNet", {"x": torch.randn(2, 3, 101, 63)}),
        ("Pooled", {"x": torch.randn(2, 3, 30, 21)}),
    ],
)
def test_no_size_of_the_trace_is_baked_in(
    name: str, feeds: dict[str, torch.Tensor], code: ModuleType
) -> None:
    graph, module = opened(code, name)
    assert len(graph.warnings) == 1  # the assumed shape
    assert_equal(graph, feeds, lambda: module(*feeds.values()))


def test_open_sizes_have_names(code: ModuleType) -> None:
    graph, _ = opened(code, "UNet", inputs="1,3,32,48")
    assert sizes(graph, "x") == ["batch", 3, "height", "width"]
    assert graph.example_shape("x") == (1, 3, 32, 48)
    fixed, _ = opened(code, "UNet", inputs="1,3,32,48", fixed_size=True)
    assert sizes(fixed, "x") == ["batch", 3, 32, 48]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_that_is_the_second_axis_of_states(code: ModuleType, batch: int) -> None:
    given = {"x": f"x:{batch},6", "h": f"h:2,{batch},8", "c": f"c:2,{batch},8"}
    feeds = {"x": torch.randn(5, 6), "h": torch.randn(2, 5, 8), "c": torch.randn(2, 5, 8)}
    for name, order in (("Step", "xhc"), ("StateFirst", "hcx")):
        graph, module = opened(code, name, inputs=[given[key] for key in order])
        assert not graph.warnings
        assert [sizes(graph, key)[axis] for key, axis in (("x", 0), ("h", 1), ("c", 1))] == [
            sizes(graph, "x")[0]
        ] * 3
        assert sizes(graph, "h")[0] == 2
        assert_equal(graph, feeds, lambda m=module: m(**feeds))  # type: ignore[misc]


def test_padding_computed_from_the_size_is_fixed(code: ModuleType) -> None:
    graph, module = opened(code, "Same", inputs="1,3,32,32")
    assert sizes(graph, "x") == ["batch", 3, 32, 32]
    assert [node.op_type for node in graph.nodes()] == ["Conv"]
    assert "padding" in graph.warnings[0]
    x = torch.randn(3, 3, 32, 32)
    assert_equal(graph, {"x": x}, lambda: module(x))


def test_what_the_exporter_bakes_in_is_noticed(code: ModuleType) -> None:
    graph, module = opened(code, "Steps", inputs="1,5,4")
    assert sizes(graph, "x") == ["batch", 5, 4]
    assert "computes something else" in graph.warnings[0]
    x = torch.randn(3, 5, 4)
    assert_equal(graph, {"x": x}, lambda: module(x))


def test_random_numbers_are_no_disagreement(code: ModuleType) -> None:
    graph, _ = opened(code, "Noise")
    assert sizes(graph, graph.inputs[0].name or "") == ["batch", 4]


def test_a_module_without_tensors(code: ModuleType) -> None:
    with pytest.raises(ModelError, match="no tensor"):
        opened(code, "Nothing", inputs="1,4")


def test_source_lines_are_the_modules_own(code: ModuleType) -> None:
    graph, _ = opened(code, "UNet", inputs="1,3,16,16")
    assert source_line(graph.node("a")).startswith("nets.py:")
    installed = open_model(
        "torch.nn:Conv2d(in_channels=3,out_channels=2,kernel_size=1)", trust=True
    )
    (node,) = installed.nodes()
    assert source_line(node).startswith("conv.py:")
