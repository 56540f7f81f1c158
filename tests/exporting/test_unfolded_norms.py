"""Batch normalization goes back into the module, whatever happened to the weights it was folded
into: the module in eval mode computes the tuned float model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_models
import source_nets
import torch
from torch import nn

import studio
from studio.data.arrays import ArrayData
from studio.data.dataset import InputSpec
from studio.exporting.state_dict import state_dict
from studio.graph.model import ModelGraph
from studio.qat.options import QatOptions
from studio.qat.train import train
from studio.runtime.executor import Executor
from studio.sim.plan import Role
from studio.sim.quantized_model import quantized_model, with_constants
from studio.techniques.technique import Samples

HERE = Path(__file__).parent
SHAPE = (6, 3, 6, 6)


def simulated(net: str) -> studio.QuantSim:
    graph = studio.open_model(f"{HERE / 'source_nets.py'}:{net}", inputs="1,3,6,6", trust=True)
    config = studio.QuantConfig().with_defaults(weight_bits=4)
    return studio.QuantSim(graph, config).calibrate(small_models.numbers(3, *SHAPE))


def check(graph: ModelGraph, sim: studio.QuantSim, module: nn.Module) -> nn.Module:
    """The module with the weights of `graph`, which is a tuned one."""
    tensors, _ = state_dict(graph, sim.plan, {})
    x = torch.from_numpy(small_models.numbers(4, *SHAPE))
    with torch.inference_mode():
        before = module.eval()(x)
        expected = next(iter(Executor(graph).run({graph.inputs[0].name or "": x}).values())).clone()
        found = {name: torch.from_numpy(array) for name, array in tensors.items()}
        assert not module.load_state_dict(found, strict=False).unexpected_keys
        after = module(x)
    largest = float(expected.abs().max())
    assert float((expected - before).abs().max()) > 0.01 * largest
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5 * largest)
    return module


@pytest.mark.parametrize("net", ["conv_bn_relu", "everything"])
def test_trained_with_normalization_kept(net: str) -> None:
    sim = simulated(net)
    spec = InputSpec(sim.graph.inputs[0].name or "", (None, *SHAPE[1:]), np.dtype(np.float32))
    labels = np.arange(48) % 5
    data = ArrayData("x", {spec.name: small_models.numbers(1, 48, *SHAPE[1:])}, labels, [spec])
    options = QatOptions(
        epochs=2,
        loss="cross_entropy",
        distillation=0,
        batch_norm="trained",
        batch_size=8,
        learning_rate=0.1,
    )
    model = quantized_model(sim.graph, sim.config, sim.statistics, {})
    tuned = train(model, Samples(data, data, data), options).model
    module = getattr(source_nets, net)()
    norms = {
        n: m for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._NormBase)
    }
    variances = {name: norm.running_var.clone() for name, norm in norms.items()}
    check(tuned.graph, sim, module)
    assert all(torch.equal(norms[name].running_var, var) for name, var in variances.items())


def changed(sim: studio.QuantSim) -> ModelGraph:
    """The graph with all weights and biases a little different, those that were 0 too."""
    rows = sim.plan.tensors.values()
    names = [row.name for row in rows if row.role in (Role.WEIGHT, Role.BIAS)]
    constants = {name: sim.graph.constant(name) for name in names}
    return with_constants(
        sim.graph,
        {
            name: array + 0.1 * small_models.numbers(seed, *array.shape)
            for seed, (name, array) in enumerate(constants.items())
        },
    )


def test_channels_that_were_switched_off(tmp_path: Path) -> None:
    """gamma 0, of which nothing could be divided, negative gamma, and weights of 0."""
    module = source_nets.everything()
    with torch.no_grad():
        for name in ("first_norm", "up_norm", "before", "alone", "head_norm"):
            gamma = module.get_submodule(name).weight
            gamma[0], gamma[1] = 0, -gamma[1]
        module.first.weight[2] = 0
        module.plain.weight[1] = 0
    weights = tmp_path / "weights.pth"
    torch.save(module.state_dict(), weights)
    source = f"{HERE / 'source_nets.py'}:everything"
    graph = studio.open_model(source, inputs="1,3,6,6", trust=True, weights=weights)
    sim = studio.QuantSim(graph).calibrate(small_models.numbers(3, *SHAPE))
    module = check(changed(sim), sim, module)
    assert float(module.first_norm.weight[0].detach().abs()) > 0
    assert float(module.first_norm.weight[1].detach()) < 0


def test_channels_that_are_off_now_stay_off(tmp_path: Path) -> None:
    module = source_nets.conv_bn_relu()
    sim = simulated("conv_bn_relu")
    weight = sim.graph.constant("0.weight").copy()
    weight[3] = 0
    own = module[0].weight[3].clone()
    module = check(with_constants(sim.graph, {"0.weight": weight}), sim, module)
    assert float(module[1].weight[3].detach()) == 0
    assert torch.equal(module[0].weight[3], own)
