"""BatchNormalization kept in training: nothing changes at its start, batches are normalized, and
what comes out is an ordinary folded model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from qat_models import digits_model, digits_samples
from torch import Tensor, nn

from studio.data.arrays import ArrayData
from studio.data.dataset import InputSpec
from studio.errors import CancelledError
from studio.graph.folded_norms import kept_norms
from studio.graph.open import open_model
from studio.jobs.events import CancelToken, silent
from studio.qat.options import QatOptions, Ranges
from studio.qat.simulation import TrainedSimulation
from studio.qat.train import measure, train
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.quantized_model import QuantizedModel, quantized_model
from studio.sim.simulator import simulating_executor
from studio.techniques.technique import Samples

CPU = torch.device("cpu")
SOURCE = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5),
    )
    net.train()
    for _ in range(20):
        net(1 + 2 * torch.randn(32, 3, 1, 1) + torch.randn(32, 3, 8, 8))
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    return net.eval()
"""


EXTREMES = [np.full((1, 3, 8, 8), value, np.float32) for value in (-7, 9)]


def images(seed: int, count: int = 64) -> np.ndarray:
    """Each of another colour, with noise."""
    random = np.random.default_rng(seed)
    colors = random.normal(1, 2, (count, 3, 1, 1))
    return (colors + random.normal(0, 1, (count, 3, 8, 8))).clip(-7, 9).astype(np.float32)


def model_of(folder: Path, bits: int) -> QuantizedModel:
    (folder / "network.py").write_text(SOURCE)
    graph = open_model(f"{folder}/network.py:network", inputs=["1,3,8,8"], trust=True)
    config = QuantConfig().with_defaults(weight_bits=bits, act_bits=bits, act_observer="minmax")
    name = graph.inputs[0].name or ""
    statistics = collect_statistics(
        graph,
        place(graph, config).observed,
        [{name: np.concatenate([images(0), *EXTREMES])}],
        66,
        emit=silent,
        cancel=CancelToken(),
    )
    return quantized_model(graph, config, statistics, {})


def feed(model: QuantizedModel, array: np.ndarray) -> dict[str, np.ndarray]:
    return {model.graph.inputs[0].name or "": array}


def output(simulation: TrainedSimulation, array: np.ndarray) -> Tensor:
    with torch.no_grad():
        return simulation(feed(simulation.model, array))[0]


@pytest.fixture
def fine(tmp_path: Path) -> QuantizedModel:
    """16 bits: all but float."""
    return model_of(tmp_path, 16)


def kept(model: QuantizedModel, ranges: Ranges = Ranges.FIXED) -> TrainedSimulation:
    simulation = TrainedSimulation(model, ranges, CPU, keep_norms=True)
    simulation.start_norms([feed(model, images(0)), feed(model, images(1))])
    return simulation


def test_layers_with_a_norm_are_found(fine: QuantizedModel) -> None:
    found = kept_norms(fine.graph)
    assert [item.weight for item in found] == ["0.weight", "3.weight", "5.weight", "10.weight"]
    assert [item.axis for item in found][:3] == [0, 0, 1]


def test_it_starts_as_it_was(fine: QuantizedModel) -> None:
    before = TrainedSimulation(fine, Ranges.FIXED, CPU).eval()
    after = kept(fine).eval()
    expected, found = output(before, images(5)), output(after, images(5))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


def test_batches_are_normalized(fine: QuantizedModel) -> None:
    """In training the last norm gives every channel its beta as mean and its gamma as spread,
    whatever the batch; folded it does not."""
    simulation = kept(fine)
    norm = simulation.norms["10|weight"]
    for array in (images(7), 3 * images(8) - 1):
        simulation.train()
        mean = output(simulation, array).mean(0)
        torch.testing.assert_close(mean, norm.beta.detach(), rtol=0, atol=1e-2)
    simulation.eval()
    shifted = output(simulation, 3 * images(8) - 1).mean(0)
    assert float((shifted - norm.beta.detach()).abs().max()) > 0.1


def test_estimated_statistics_are_means_over_batches(fine: QuantizedModel) -> None:
    simulation = kept(fine)
    norm = simulation.norms["0|weight"]
    batches = [images(seed, 16) for seed in (3, 4, 5)]
    simulation.eval()
    simulation.estimate_norms([feed(fine, array) for array in batches])
    weight = simulation.weights["0|weight"].detach()
    outputs = [nn.functional.conv2d(torch.tensor(x), weight, padding=1) for x in batches]
    mean = torch.stack([y.mean((0, 2, 3)) for y in outputs]).mean(0)
    var = torch.stack([y.var((0, 2, 3)) for y in outputs]).mean(0)
    torch.testing.assert_close(norm.mean, mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.var, var, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("ranges", list(Ranges))
def test_what_it_becomes_is_what_is_exported(ranges: Ranges, tmp_path: Path) -> None:
    model = model_of(tmp_path, 4)
    simulation = kept(model, ranges)
    optimizer = torch.optim.Adam(simulation.parameters(), 3e-3)
    for step in range(6):
        if step == 4:
            simulation.freeze_norms()
        optimizer.zero_grad()
        simulation(feed(model, images(step)))[0].square().mean().backward()
        optimizer.step()
    norm = simulation.norms["0|weight"]
    assert float(norm.gamma.grad.abs().sum()) > 0
    simulation.eval()
    result = simulation.result(model)
    executor = simulating_executor(result.graph, result.plan, result.encodings)
    with torch.inference_mode():
        (expected,) = executor.run(feed(model, images(9))).values()
    found = output(simulation, images(9))
    # A value at the border of two steps may fall on either side.
    assert float((found - expected).abs().mean()) < 1e-2 * float(expected.std())
    assert not np.array_equal(result.graph.constant("0.weight"), model.graph.constant("0.weight"))


@pytest.mark.parametrize("freeze", [0.0, 0.5, 1.0])
def test_two_bit_weights_learn_to_read(freeze: float) -> None:
    model = digits_model(2, 4)
    assert len(kept_norms(model.graph)) == 6
    options = QatOptions(
        epochs=16,
        batch_norm="trained",
        freeze_batch_norm=freeze,
        learning_rate=0.01,
        range_learning_rate=3e-3,
        batch_size=20,
    )
    result = train(model, digits_samples(), options)
    found = TrainedSimulation(result.model, Ranges.SCALE, CPU)
    assert measure(found, result.model, digits_samples().validation, 60)[1] > 90, result.summary


def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    model = model_of(tmp_path, 4)
    spec = InputSpec(model.graph.inputs[0].name or "", (None, 3, 8, 8), np.dtype(np.float32))
    data = ArrayData("images", {spec.name: images(1, 64)}, None, [spec])
    options = QatOptions(epochs=4, batch_norm="trained", batch_size=16)
    whole = train(model, Samples(data, data, data), options).model
    kept_options = options.model_copy(update={"checkpoints": tmp_path / "checkpoints"})
    token = CancelToken()
    steps = 0

    def stop(event: object) -> None:
        nonlocal steps
        steps += type(event).__name__ == "TrainingStep"
        if steps == 13:
            token.cancel()

    with pytest.raises(CancelledError):
        train(model, Samples(data, data, data), kept_options, stop, token)
    resumed = train(model, Samples(data, data, data), kept_options).model
    for name in ("0.weight", "10.weight"):
        np.testing.assert_array_equal(resumed.graph.constant(name), whole.graph.constant(name))
