"""The state dict under the source's names: loaded into the source, it is our weight-only model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import source_nets
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import studio
from studio.errors import ExportError
from studio.exporting.state_dict import StateDictSummary, state_dict, write_state_dict
from studio.graph.additions import Additions, with_additions
from studio.runtime.executor import Executor
from studio.sim.plan import Role
from studio.sim.quantized_model import with_constants
from studio.sim.simulator import simulating_executor

HERE = Path(__file__).parent
ZOO = HERE.parent / "zoo"


def quantized(source: str, shape: tuple[int, ...], config: Any = None) -> studio.QuantSim:
    text = ",".join(map(str, (1, *shape[1:])))
    graph = studio.open_model(source, inputs=text, trust=True)
    return studio.QuantSim(graph, config).calibrate(small_models.numbers(3, *shape))


def weight_only(sim: studio.QuantSim, x: torch.Tensor) -> torch.Tensor:
    """The prepared model with its constants rounded and float activations."""
    simulated = simulating_executor(sim.graph, sim.plan, sim.encodings)
    constants = {
        name: quantizer
        for name, quantizer in simulated._quantize.items()
        if name in sim.graph.initializers
    }
    assert constants
    executor = Executor(sim.graph, quantize=constants)
    name = sim.graph.inputs[0].name or ""
    with torch.inference_mode():
        return next(iter(executor.run({name: x}).values())).clone()


def loaded(
    sim: studio.QuantSim, module: nn.Module, path: Path
) -> tuple[nn.Module, StateDictSummary]:
    summary = write_state_dict(sim.graph, sim.plan, sim.encodings, path)
    result = module.load_state_dict(load_file(path), strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in result.missing_keys)
    return module.eval(), summary


def check(sim: studio.QuantSim, module: nn.Module, path: Path, shape: tuple[int, ...]) -> Any:
    x = torch.from_numpy(small_models.numbers(4, *shape))
    with torch.inference_mode():
        before = module(x)
        expected = weight_only(sim, x)
        largest = float(before.abs().max())
        module, summary = loaded(sim, module, path)
        after = module(x)
    assert float((expected - before).abs().max()) > 1e-4 * largest  # the weights did change
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5 * largest)
    return summary


@pytest.mark.parametrize("bits", [4, 8])
def test_conv_bn_relu(bits: int, tmp_path: Path) -> None:
    config = studio.QuantConfig().with_defaults(weight_bits=bits)
    sim = quantized(f"{HERE / 'source_nets.py'}:conv_bn_relu", (6, 3, 8, 8), config)
    module = source_nets.conv_bn_relu()
    own = {name: tensor.clone() for name, tensor in module[1].state_dict().items()}
    path = tmp_path / "weights.safetensors"
    summary = check(sim, module, path, (6, 3, 8, 8))
    assert summary.folded == {"1": "0.weight"}
    assert not summary.left_float
    norm = module[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert torch.equal(norm.running_mean, own["running_mean"])
    assert torch.equal(norm.running_var, own["running_var"])
    torch.testing.assert_close(norm.weight.detach(), own["weight"], rtol=0.1, atol=0)
    size = source_nets.conv_bn_relu()[0].weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(module[0].weight.flatten(1).norm(dim=1), size, rtol=1e-5, atol=0)
    assert len(torch.unique(module[0].weight[0])) <= 2**bits
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["folded"]) == {"1": "0.weight"}
    assert set(json.loads(metadata["quantized"])) == {"0.weight", "1.bias", "5.weight", "5.bias"}


def test_every_place_batch_normalization_goes_to(tmp_path: Path) -> None:
    sim = quantized(f"{HERE / 'source_nets.py'}:everything", (4, 3, 6, 6))
    summary = check(sim, source_nets.everything(), tmp_path / "w.safetensors", (4, 3, 6, 6))
    assert summary.folded == {
        "first_norm": "first.weight",
        "plain_norm": "plain.weight",
        "up_norm": "up.weight",
        "alone": "",
        "before": "after.weight",
        "head_norm": "head.weight",
    }
    assert set(summary.left_float) == {"norm.weight", "norm.bias"}
    assert "token.weight" in summary.quantized  # the graph has it transposed
    assert not any("normalization" in note for note in summary.notes)


def test_a_resnet_of_the_zoo(tmp_path: Path) -> None:
    from tests.zoo.registry import entries

    (entry,) = (entry for entry in entries() if entry.name == "resnet-basic")
    shape = (2, *entry.inputs[0].shape[1:])
    sim = quantized(entry.source, shape)
    module = zoo_module(entry.file, entry.factory)
    summary = check(sim, module, tmp_path / "w.safetensors", shape)
    assert not summary.left_float
    norms = [n for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert sorted(summary.folded) == sorted(norms)


def zoo_module(file: str, factory: str) -> nn.Module:
    import importlib.util
    import sys

    path = ZOO / file
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location("zoo_under_test", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return getattr(module, factory)().eval()


@pytest.mark.parametrize(("net", "lost"), [("merged", {"gain"}), ("shared", {"norm.weight"})])
def test_what_cannot_be_taken_apart_stays_as_it_was(
    net: str, lost: set[str], tmp_path: Path
) -> None:
    """The module still computes the float model, but for the layers that could be quantized."""
    sim = quantized(f"{HERE / 'source_nets.py'}:{net}", (4, 3, 6, 6))
    module = getattr(source_nets, net)()
    own = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = torch.from_numpy(small_models.numbers(4, 4, 3, 6, 6))
    with torch.inference_mode():
        before = module(x)
        module, summary = loaded(sim, module, tmp_path / "w.safetensors")
        after = module(x)
    assert lost <= set(summary.left_float)
    assert all(summary.left_float.values())
    assert "as they were" in summary.notes[-1]
    for name in summary.left_float:
        assert torch.equal(module.state_dict()[name], own[name])
    assert float((after - before).abs().max()) < 0.05 * float(before.abs().max())


def test_the_names_of_an_onnx_file_are_kept(tmp_path: Path) -> None:
    graph = studio.open_model(small_models.conv_net(tmp_path / "net.onnx"))
    sim = studio.QuantSim(graph).calibrate(small_models.numbers(20, 8, 3, 6, 6))
    path = tmp_path / "w.safetensors"
    summary = write_state_dict(graph, sim.plan, sim.encodings, path)
    tensors = load_file(path)
    assert set(tensors) == {"w1", "b1", "w2", "w3", "b3"} == set(summary.quantized)
    for name in ("w1", "b1", "w3"):
        expected = sim.encodings[name].quantize_dequantize(graph.constant(name))
        np.testing.assert_array_equal(tensors[name].numpy(), expected)


def test_a_model_without_parameters_is_refused(tmp_path: Path) -> None:
    graph = studio.open_model(small_models.identity(tmp_path / "net.onnx"))
    sim = studio.QuantSim(graph)
    with pytest.raises(ExportError, match="no floating-point parameters"):
        write_state_dict(graph, sim.plan, {}, tmp_path / "w.safetensors")


def test_zeros_that_an_exporter_put_in_the_place_of_a_bias(tmp_path: Path) -> None:
    """The bundled example, an ONNX file, and the module it was exported from."""
    from studio.resource_files import resource

    folder = resource("examples", "digits")
    arrays = np.load(folder / "test.npz")
    pictures = next(arrays[name] for name in arrays.files if name != "labels").astype(np.float32)
    graph = studio.open_model(folder / "digits.onnx")
    sim = studio.QuantSim(graph).calibrate(pictures[:32])
    path = tmp_path / "w.safetensors"
    write_state_dict(graph, sim.plan, sim.encodings, path)
    module = zoo_module(str(folder / "model.py"), "digits_net")
    result = module.load_state_dict(load_file(path), strict=False)
    assert not result.missing_keys
    x = torch.from_numpy(pictures[:64])
    with torch.inference_mode():
        expected = weight_only(sim, x)
        torch.testing.assert_close(
            module(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max())
        )


def test_numbers_that_techniques_changed_go_back(tmp_path: Path) -> None:
    """What is where does not depend on the numbers; a factor of all channels becomes gamma's."""
    sim = quantized(f"{HERE / 'source_nets.py'}:conv_bn_relu", (6, 3, 8, 8))
    before, summary = state_dict(sim.graph, sim.plan, {})
    assert summary.folded
    name = next(n for n, row in sim.plan.tensors.items() if row.role is Role.WEIGHT)
    changed = with_constants(sim.graph, {name: 2 * sim.graph.constant(name)})
    after, other = state_dict(changed, sim.plan, {})
    assert other == summary
    for key, factor in {
        "0.weight": 1,
        "1.weight": 2,
        "1.running_mean": 1,
        "1.running_var": 1,
    }.items():
        np.testing.assert_allclose(after[key], factor * before[key], rtol=1e-6)
    scale = before["1.weight"] / np.sqrt(before["1.running_var"] + 1e-5)
    beta = before["1.bias"] + before["1.running_mean"] * scale
    np.testing.assert_allclose(after["1.bias"], beta, rtol=1e-5)
    assert all(np.array_equal(before[key], after[key]) for key in before if key.startswith("5"))


def test_what_was_added_does_not_fit_the_module(tmp_path: Path) -> None:
    sim = quantized(f"{HERE / 'source_nets.py'}:conv_bn_relu", (6, 3, 8, 8))
    name = next(node.name or "" for node in sim.graph.nodes() if node.op_type == "Conv")
    graph = with_additions(sim.graph, Additions(scales={name: np.full(3, 2.0)}))
    with pytest.raises(ExportError, match=f"a scale before {name}"):
        state_dict(graph, sim.plan, {})
