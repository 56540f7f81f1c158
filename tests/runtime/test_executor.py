"""What the torch engine promises besides equal numbers."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from studio.errors import ModelError, StudioError, UnsupportedOpsError
from studio.graph.model import ModelGraph, ModelSource
from studio.runtime.executor import Executor
from studio.runtime.ops import is_supported, supported_ops, unsupported_ops

CHAIN = """
<ir_version: 9, opset_import: ["" : 17]>
chain (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float[4] b = {1,-2,3,-4}>
{
    product = MatMul(x, w)
    sum = Add(product, b)
    active = Relu(sum)
    y = Mul(active, active)
}
"""
ONES = ", ".join(["1"] * 54)  # a convolution's weight [2, 3, 3, 3]
B = torch.tensor([1.0, -2.0, 3.0, -4.0])


def graph_of(text: str) -> ModelGraph:
    model = ir.from_proto(onnx.parser.parse_model(text))
    for node in model.graph:
        node.name = node.name or f"make_{node.outputs[0].name}"
    return ModelGraph(model, ModelSource(Path("model.onnx")))


@pytest.fixture
def chain() -> ModelGraph:
    return graph_of(CHAIN)


def test_inputs_may_be_arrays_or_tensors(chain: ModelGraph) -> None:
    x = np.ones((2, 4), np.float32)
    executor = Executor(chain)
    from_array, from_tensor = executor.run({"x": x}), executor.run({"x": torch.from_numpy(x)})
    assert torch.equal(from_array["y"], from_tensor["y"])
    assert torch.equal(from_array["y"][0], torch.relu(1 + B) ** 2)


def test_only_what_the_outputs_need_is_run(chain: ModelGraph) -> None:
    seen: list[str] = []
    hooks = {
        name: lambda t, name=name: seen.append(name) or t for name in ("product", "sum", "active")
    }
    result = Executor(chain, quantize=hooks).run({"x": torch.ones(1, 4)}, ["sum"])
    assert list(result) == ["sum"]
    assert seen == ["product", "sum"]


def test_work_in_place_never_reaches_values_that_are_read_again(chain: ModelGraph) -> None:
    x = torch.full((1, 4), -1.0)
    with torch.inference_mode():
        values = Executor(chain).run({"x": x}, ["sum", "active", "y"])
    assert torch.equal(values["sum"], x + B)
    assert torch.equal(values["active"], torch.relu(x + B))
    assert torch.equal(x, torch.full((1, 4), -1.0))


@pytest.mark.parametrize("view", ["Identity(x)", "Reshape(x, s)", "Transpose<perm=[0, 1]>(x)"])
def test_work_in_place_never_reaches_the_input_through_a_view(view: str) -> None:
    graph = graph_of(
        f"""<ir_version: 9, opset_import: ["" : 17]>
        g (float[2, 3] x) => (float[2, 3] y) <int64[2] s = {{2, 3}}>
        {{ v = {view}
           y = Relu(v) }}"""
    )
    x = torch.full((2, 3), -1.0)
    with torch.inference_mode():
        assert torch.equal(Executor(graph).run({"x": x})["y"], torch.zeros(2, 3))
    assert torch.equal(x, torch.full((2, 3), -1.0))


def test_intermediates_are_freed_after_their_last_use(chain: ModelGraph) -> None:
    held: dict[str, weakref.ref] = {}
    alive: list[bool] = []

    def remember(tensor: Tensor) -> Tensor:
        made = tensor.clone()
        held["product"] = weakref.ref(made)
        return made

    def look(tensor: Tensor) -> Tensor:
        gc.collect()
        alive.append(held["product"]() is not None)
        return tensor.clone()

    with torch.inference_mode():
        Executor(chain, quantize={"product": remember, "active": look}).run({"x": torch.ones(1, 4)})
    assert alive == [False]


def test_batch_and_size_are_not_baked_in() -> None:
    graph = graph_of(
        f"""<ir_version: 9, opset_import: ["" : 17]>
        g (float[N, 3, H, W] x) => (float[N, M] y)
        <float[2, 3, 3, 3] w = {{{ONES}}}, int64[2] s = {{0, -1}}>
        {{ c = Conv<auto_pad="SAME_UPPER", strides=[2, 2]>(x, w)
          y = Reshape(c, s) }}"""
    )
    executor = Executor(graph)
    assert executor.run({"x": torch.ones(1, 3, 8, 8)})["y"].shape == (1, 32)
    assert executor.run({"x": torch.ones(4, 3, 5, 9)})["y"].shape == (4, 30)


def test_quantizers_of_every_kind_of_value(chain: ModelGraph) -> None:
    hooks = {"x": lambda t: t + 1, "b": lambda t: t * 0, "active": lambda t: t * 10}
    y = Executor(chain, quantize=hooks).run({"x": torch.ones(1, 4)})["y"]
    assert torch.equal(y, torch.full((1, 4), 400.0))


def test_a_constant_is_quantized_once_and_again_when_it_changes(chain: ModelGraph) -> None:
    calls: list[int] = []
    executor = Executor(chain, quantize={"b": lambda t: calls.append(1) or t * 2})
    x = {"x": torch.zeros(1, 4)}
    with torch.inference_mode():
        executor.run(x)
        first = executor.run(x, ["sum"])["sum"]
    assert len(calls) == 1
    assert torch.equal(first[0], 2 * B)
    with torch.no_grad():
        executor.parameters["b"].add_(1)
        assert torch.equal(executor.run(x, ["sum"])["sum"][0], 2 * (B + 1))
    assert len(calls) == 2
    executor.forget_quantized()
    executor.run(x)
    assert len(calls) == 3


def test_a_value_is_quantized_only_for_the_nodes_named(chain: ModelGraph) -> None:
    # x, b and active are there both ways: y = active * active, once rounded and once not.
    text = CHAIN.replace(
        "y = Mul(active, active)", "twice = Add(active, x)\ny = Mul(twice, active)"
    )
    hooks = {"x": lambda t: t + 1, "b": lambda t: t * 0, "active": lambda t: t * 10}
    only = {"x": ["make_product"], "b": ["make_twice"], "active": ["make_y"]}
    executor = Executor(graph_of(text), quantize=hooks, quantize_for=only)
    x = torch.full((1, 4), 5.0)
    with torch.inference_mode():
        result = executor.run({"x": x}, ["y", "active", "x", "b"])
    active = torch.relu(6 + B)
    assert torch.equal(result["active"][0], active)
    assert torch.equal(result["x"], x)
    assert torch.equal(result["b"], B)
    assert torch.equal(result["y"][0], (active + 5) * (10 * active))
    result = executor.run_nodes(["make_y"], {"active": x, "twice": x}, ["y"])
    assert torch.equal(result["y"], x * x)


class Doubling:
    """A quantizer that says by 100 more that it wrote over its argument."""

    def __call__(self, x: Tensor) -> Tensor:
        return 2 * x

    def write_over(self, x: Tensor) -> Tensor:
        return x.mul_(2).add_(100)


def test_quantizers_write_over_memory_that_is_the_outputs_own(chain: ModelGraph) -> None:
    x, hooks = torch.ones(1, 4), dict.fromkeys(("x", "b", "product"), Doubling())
    executor = Executor(chain, quantize=hooks)
    for _ in range(2):
        with torch.inference_mode():
            result = executor.run({"x": x}, ["product", "sum"])
        assert torch.equal(result["product"], torch.full((1, 4), 104.0))
        assert torch.equal(result["sum"][0], 104 + 2 * B)
    assert torch.equal(x, torch.ones(1, 4))
    assert torch.equal(executor.run({"x": x}, ["product"])["product"], torch.full((1, 4), 4.0))
    only = Executor(chain, quantize={"product": Doubling()}, quantize_for={"product": ["make_sum"]})
    with torch.inference_mode():
        assert torch.equal(only.run({"x": x}, ["sum"])["sum"][0], 2 + B)


def test_quantizers_leave_memory_that_another_value_shares() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    shared (float[2, 2] x) => (float[2, 2] z)
    { a = Relu(x) b = Identity(a) z = Add(a, b) }
    """
    executor = Executor(graph_of(text), quantize={"b": Doubling()})
    with torch.inference_mode():
        assert torch.equal(executor.run({"x": torch.ones(2, 2)})["z"], torch.full((2, 2), 3.0))


def test_gradients_reach_constants_and_quantizers_after_a_run_without(chain: ModelGraph) -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    executor = Executor(chain, quantize={"b": lambda t: t * scale})
    x = {"x": torch.zeros(1, 4)}
    with torch.inference_mode():
        executor.run(x)
    for _ in range(2):
        scale.grad = None
        executor.run(x, ["sum"])["sum"].sum().backward()
        assert scale.grad == B.sum()
    executor.parameters["b"].requires_grad_()
    executor.run(x, ["sum"])["sum"].sum().backward()
    assert torch.equal(executor.parameters["b"].grad, torch.full((4,), 2.0))


def test_parameters_are_not_the_graphs_memory(chain: ModelGraph) -> None:
    executor = Executor(chain)
    executor.parameters["b"].zero_()
    assert np.array_equal(chain.constant("b"), B.numpy())


def test_run_nodes_takes_values_as_they_are(chain: ModelGraph) -> None:
    executor = Executor(chain, quantize={"sum": lambda t: t * 100, "active": lambda t: t + 1})
    values = {"sum": torch.tensor([[1.0, -1.0, 2.0, 3.0]])}
    result = executor.run_nodes(["make_active"], values, ["active"])
    assert torch.equal(result["active"], torch.tensor([[2.0, 1.0, 3.0, 4.0]]))
    with pytest.raises(ModelError, match="product"):
        executor.run_nodes(["make_sum"], {}, ["sum"])
    other = executor.run_nodes(
        ["make_sum"], {"product": torch.zeros(1, 4), "b": torch.ones(4)}, ["sum"]
    )
    assert torch.equal(other["sum"], torch.full((1, 4), 100.0))


def test_run_nodes_does_not_write_over_what_it_is_given() -> None:
    graph = graph_of(
        """<ir_version: 9, opset_import: ["" : 17]>
        g (float[2, 2] x) => (float[2, 2] y)
        { left, right = Split<axis=1>(x)
          y = Concat<axis=1>(left, right) }"""
    )
    given = {"x": torch.zeros(2, 2), "left": torch.ones(2, 1)}
    result = Executor(graph).run_nodes(["make_left", "make_y"], given, ["y"])
    assert torch.equal(result["y"], torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


def test_failures_name_the_layer_and_the_shapes(chain: ModelGraph) -> None:
    with pytest.raises(ModelError, match=r"make_product.*MatMul.*\[2, 3\], \[4, 4\]"):
        Executor(chain).run({"x": torch.ones(2, 3)})
    with pytest.raises(ModelError, match="'x' is missing"):
        Executor(chain).run({})
    with pytest.raises(ModelError, match=r"float64.*FLOAT"):
        Executor(chain).run({"x": np.ones((1, 4))})
    with pytest.raises(ModelError, match="'x'"):
        Executor(chain).run({"x": np.array([["a"]])})
    with pytest.raises(ModelError, match=r"\[1, 1, 4\]"):
        Executor(chain).run({"x": torch.ones(1, 1, 4)})
    with pytest.raises(ModelError, match="'nothing'"):
        Executor(chain).run({"x": torch.ones(1, 4)}, ["nothing"])


def test_errors_of_quantizers_pass_through(chain: ModelGraph) -> None:
    def stop(tensor: Tensor) -> Tensor:
        raise StudioError("stop")

    with pytest.raises(StudioError, match=r"^stop$"):
        Executor(chain, quantize={"sum": stop}).run({"x": torch.ones(1, 4)})


def test_ops_without_implementation_are_named_all_at_once() -> None:
    graph = graph_of(
        """<ir_version: 9, opset_import: ["" : 17, "vendor" : 1]>
        g (float[2] x, bool c) => (float[2] z)
        { a = vendor.Magic(x)
          b = vendor.Magic(a)
          z = If (c) <then_branch = one () => (float[2] t) { t = Identity(b) },
                      else_branch = two () => (float[2] e) { e = Identity(x) }> }"""
    )
    assert unsupported_ops(graph) == {"vendor::Magic (opset 1)": ["make_a", "make_b"]}
    with pytest.raises(UnsupportedOpsError, match="Magic"):
        Executor(graph)


def test_supported_versions() -> None:
    assert is_supported("", "Conv", 13)
    assert is_supported("ai.onnx", "Conv", 22)
    assert not is_supported("", "HardSwish", 13)
    assert not is_supported("", "Conv", 99)
    assert not is_supported("vendor", "Conv", 1)
    assert len(supported_ops()) > 150


def test_numbers_stay_on_the_cpu_whatever_the_device() -> None:
    """On torch's `meta` device nothing can be read, so any shape taken from there would fail."""
    graph = graph_of(
        f"""<ir_version: 9, opset_import: ["" : 17]>
        g (float[N, 3, H, W] x) => (float[N, M, K] y)
        <float[2, 3, 3, 3] w = {{{ONES}}}, int64[1] tail = {{-1}},
         float low = {{0}}, float high = {{6}},
         int64 zero = {{0}}, int64[1] first = {{0}}, int64[1] two = {{2}}>
        {{ c = Conv(x, w)
          r = Clip(c, low, high)
          shape = Shape(r)
          batch = Gather(shape, first)
          channels = Gather(shape, zero)
          goal = Concat<axis=0>(batch, two, tail)
          flat = Reshape(r, goal)
          y = Slice(flat, first, two, two) }}"""
    )
    result = Executor(graph, device="meta").run({"x": torch.ones(4, 3, 6, 6)})["y"]
    assert result.device.type == "meta"
    assert result.shape == (4, 2, 2)
