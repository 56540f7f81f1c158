"""Models made on the spot, and onnxruntime as the judge of what they compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from studio.graph.model import ModelGraph, ModelSource
from studio.graph.sources.load import load
from studio.graph.sources.source import ExampleInput


def run(model: onnx.ModelProto | Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of `model`, computed by onnxruntime without its optimisations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """max |a - b| / max |a|."""
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(a).max())


def assert_same_outputs(before: onnx.ModelProto, after: ModelGraph, seed: int = 0) -> None:
    """Both compute the same for random inputs; a symbolic batch is 3, other symbolic sizes 9."""
    random = np.random.default_rng(seed)
    feeds = {}
    for value in after.inputs:
        assert value.shape is not None
        sizes = [
            size if isinstance(size, int) else 9 if axis else 3
            for axis, size in enumerate(value.shape)
        ]
        feeds[value.name or ""] = random.standard_normal(sizes).astype(np.float32)
    expected, found = run(before, feeds), run(after.to_proto(), feeds)
    assert [o.name for o in after.outputs] == [o.name for o in before.graph.output]
    for a, b in zip(expected, found, strict=True):
        assert difference(a, b) < 1e-5


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Batch norms with statistics and factors that are far from the neutral ones."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

    for layer in module.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.running_mean.data = uniform(layer.running_mean, -1, 1)
            layer.running_var.data = uniform(layer.running_var, 0.2, 3)
            layer.weight.data = uniform(layer.weight, -2, 2)
            layer.bias.data = uniform(layer.bias, -1, 1)
    return module.eval()


def export(module: torch.nn.Module, *shapes: tuple[int, ...], folder: Path) -> ModelGraph:
    """`module` captured the way a user's file is."""
    (folder / "model_file.py").write_text(
        "import pathlib, torch\n"
        "def make():\n"
        "    path = pathlib.Path(__file__).with_name('module.pth')\n"
        "    return torch.load(path, weights_only=False)\n"
    )
    torch.save(module, folder / "module.pth")
    inputs = tuple(ExampleInput(shape) for shape in shapes)
    return load(ModelSource(folder / "model_file.py", "make", inputs=inputs), trust=True)


def node(op: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def make_model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    x: tuple[int | str, ...],
    y: str = "y",
    opset: int = 17,
    extra_outputs: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """A model with the float input `x` and float outputs of unknown shape."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in (y, *extra_outputs)
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def as_graph(model: onnx.ModelProto) -> ModelGraph:
    return ModelGraph(ir.from_proto(model), ModelSource(Path("model.onnx")))


def ops(graph: ModelGraph) -> list[str]:
    return [node.op_type for node in graph.nodes()]
