"""Running segments again gives the same values and gradients, and keeps less for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.runtime.executor import Executor
from studio.runtime.recompute import segments

EXAMPLES = Path(__file__).parents[2] / "resources/examples"


@pytest.fixture(scope="module", params=["digits/digits.onnx", "cifar10/resnet20.py:resnet20"])
def graph(request: pytest.FixtureRequest) -> ModelGraph:
    name = request.param
    inputs = ["1,3,32,32"] if "resnet" in name else []
    return open_model(f"{EXAMPLES}/{name}", inputs=inputs, trust=True)


def sample(graph: ModelGraph) -> dict[str, torch.Tensor]:
    (value,) = graph.inputs
    channels = value.shape[1]
    side = 8 if channels == 1 else 32
    return {value.name: torch.randn(2, channels, side, side)}


def gradients(graph: ModelGraph, recompute: bool) -> tuple[list[torch.Tensor], int]:
    """Of all parameters, with a quantizer that rounds at random after every node, and the number of
    calls of the quantizer."""
    calls = 0

    def noisy(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return x + 0.01 * torch.rand_like(x)

    hooks = {v.name: noisy for node in graph.nodes() for v in node.outputs if v.name}
    executor = Executor(graph, quantize=hooks, recompute=recompute)
    for parameter in executor.parameters.values():
        parameter.requires_grad_()
    torch.manual_seed(0)
    (output,) = executor.run(sample(graph)).values()
    output.square().sum().backward()
    found = [item.grad for item in executor.parameters.values() if item.grad is not None]
    return [output.detach(), *found], calls


def test_the_same_gradients(graph: ModelGraph) -> None:
    plain, once = gradients(graph, recompute=False)
    again, twice = gradients(graph, recompute=True)
    assert len(plain) == len(again) > 10
    for expected, found in zip(plain, again, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert 1.5 * once < twice <= 2 * once


def test_segments_are_the_plan_in_order(graph: ModelGraph) -> None:
    executor = Executor(graph)
    (value,) = graph.inputs
    plan = executor._plan(None, (value.name,), tuple(v.name for v in graph.outputs))
    parts = segments(plan)
    assert tuple(step for part in parts for step in part.steps) == plan.steps
    assert 3 <= len(parts) <= len(plan.steps) // 2
    # Nothing but the running sum passes a residual block's border.
    computed = {slot for step in plan.steps for _, slot, _, _ in step.outputs}
    assert max(len(computed & set(part.reads)) for part in parts) <= 2


def test_without_gradients_it_does_not_matter(graph: ModelGraph) -> None:
    x = sample(graph)
    with torch.inference_mode():
        for name, found in Executor(graph, recompute=True).run(x).items():
            assert torch.equal(found, Executor(graph).run(x)[name])
