"""The torch engine on whole networks: values equal to onnxruntime, gradients to PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx_ir.passes import common
from onnxscript import optimizer
from torch import Tensor, nn

from studio.graph.model import ModelGraph, ModelSource
from studio.runtime.executor import Executor

TOLERANCE = 1e-5  # of the output's range


class ResidualNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.norm(self.stem(x))), 3, 2, 1)
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        return self.head(x.mean((2, 3)))


class DepthwiseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 12, 1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, stride=2, groups=12)
        self.project = nn.Conv2d(12, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.expand(x)))
        return self.project(F.relu6(self.depthwise(F.pad(x, (0, 1, 0, 1)))))


class UNetPiece(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, stride=2, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.leaky_relu(self.down(x), 0.1)
        up = self.up(F.silu(self.deep(skip)))
        y = self.out(torch.cat([up, skip], 1))
        return torch.sigmoid(F.interpolate(y, scale_factor=2.0, mode="bilinear"))


class TinyViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, stride=4)
        self.cls = nn.Parameter(torch.randn(1, 1, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.project = nn.Linear(16, 16)
        self.wide = nn.Linear(16, 32)
        self.narrow = nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.project(y.transpose(1, 2).reshape(n, t, c))
        x = x + self.narrow(F.gelu(self.wide(x)))
        return self.head(x[:, 0]).softmax(-1)


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.conv(x))
        gate = torch.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.excite(gate))


NETWORKS: tuple[Callable[[], nn.Module], ...] = (
    ResidualNet,
    DepthwiseNet,
    UNetPiece,
    TinyViT,
    SqueezeExcite,
)


@dataclass(frozen=True)
class Exported:
    """A network and the graph exported from it with a dynamic batch."""

    module: nn.Module
    graph: ModelGraph

    @property
    def input(self) -> str:
        return self.graph.inputs[0].name or ""


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.__name__)
def exported(request: pytest.FixtureRequest) -> Exported:
    torch.manual_seed(0)
    module = request.param().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (torch.randn(2, 3, 16, 16),),
            dynamo=True,
            optimize=False,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    model = program.model
    optimizer.fold_constants(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    return Exported(module, ModelGraph(model, ModelSource(Path("network.py"), "network")))


@pytest.mark.parametrize("batch", [1, 3])
def test_values_equal_onnxruntime(exported: Exported, batch: int) -> None:
    graph = exported.graph
    x = np.random.default_rng(batch).standard_normal((batch, 3, 16, 16), np.float32)
    names = [value.name for node in graph.nodes() for value in node.outputs if value.name]
    kept = [name for name in names if graph.value(name).dtype is not None]
    expected = _onnxruntime(graph, kept, {exported.input: x})
    with torch.inference_mode():
        results = Executor(graph).run({exported.input: x}, kept)
        last = Executor(graph).run({exported.input: x})
    for name, wanted in zip(kept, expected, strict=True):
        assert list(results[name].shape) == list(wanted.shape)
        _assert_close(results[name], wanted, name)
    # In-place work happens only where intermediates are not asked for.
    for name, result in last.items():
        _assert_close(result, expected[kept.index(name)], name)


def test_gradients_equal_pytorch(exported: Exported) -> None:
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    executor = Executor(exported.graph)
    for parameter in executor.parameters.values():
        parameter.requires_grad_()
    (result,) = executor.run({exported.input: x}).values()
    weights = torch.randn_like(result)
    (result * weights).sum().backward()
    ours = x.grad
    x.grad = None
    (exported.module(x) * weights).sum().backward()
    _assert_close(ours, x.grad.numpy(), "input")
    compared = 0
    for name, parameter in exported.module.named_parameters():
        if name in executor.parameters:
            _assert_close(executor.parameters[name].grad, parameter.grad.numpy(), name)
            compared += 1
        parameter.grad = None
    assert compared >= sum(p.dim() == 4 for p in exported.module.parameters())


def test_each_layer_alone_gives_the_same(exported: Exported) -> None:
    """Running one node on its recorded inputs gives its recorded output."""
    graph = exported.graph
    executor = Executor(graph)
    x = torch.randn(2, 3, 16, 16)
    names = [value.name for node in graph.nodes() for value in node.outputs if value.name]
    with torch.inference_mode():
        values = executor.run({exported.input: x}, names) | {exported.input: x}
        for node in graph.nodes():
            needed = {v.name for v in node.inputs if v is not None and v.name in values}
            outputs = [v.name for v in node.outputs if v.name]
            given = {name: values[name] for name in needed if name}
            alone = executor.run_nodes([node.name or ""], given, outputs)
            for name in outputs:
                torch.testing.assert_close(alone[name], values[name], rtol=1e-5, atol=1e-6)


def _onnxruntime(
    graph: ModelGraph, outputs: list[str], feeds: dict[str, np.ndarray]
) -> list[np.ndarray]:
    model = graph.copy().ir
    known = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs[:] = [known[name] for name in outputs]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, feeds)


def _assert_close(result: Tensor | None, wanted: np.ndarray, name: str) -> None:
    assert result is not None, name
    scale = max(float(np.abs(wanted).max()), 1e-6)
    worst = float(np.abs(result.detach().numpy() - wanted).max())
    assert worst <= TOLERANCE * scale, f"{name}: {worst / scale:.2e} of the range"
