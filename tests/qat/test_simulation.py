"""The simulation that is trained: it equals the one that is exported, and it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from qat_models import digits_data, digits_model

from studio.qat.options import Ranges
from studio.qat.simulation import TrainedSimulation, trained_constants
from studio.sim.quantized_model import QuantizedModel
from studio.sim.simulator import simulating_executor

CPU = torch.device("cpu")


def batch() -> dict[str, np.ndarray]:
    return next(iter(digits_data("test").batches(24))).inputs


def exported(model: QuantizedModel) -> np.ndarray:
    executor = simulating_executor(model.graph, model.plan, model.encodings)
    with torch.inference_mode():
        return executor.run(batch())["logits"].numpy()


def simulated(simulation: TrainedSimulation) -> np.ndarray:
    with torch.inference_mode():
        (output,) = simulation({name: torch.from_numpy(x) for name, x in batch().items()})
    return output.numpy()


@pytest.mark.parametrize("ranges", list(Ranges))
@pytest.mark.parametrize("bits", [(8, 8), (2, 4)])
def test_it_starts_as_the_simulation_that_is_exported(
    ranges: Ranges, bits: tuple[int, int]
) -> None:
    model = digits_model(*bits)
    found = simulated(TrainedSimulation(model, ranges, CPU))
    if ranges in (Ranges.FIXED, Ranges.SCALE):
        np.testing.assert_array_equal(found, exported(model))
    else:  # a scale computed from two ends may differ in its last bit
        np.testing.assert_allclose(found, exported(model), rtol=1e-5)


@pytest.mark.parametrize("ranges", list(Ranges))
def test_what_it_becomes_is_what_is_exported(ranges: Ranges) -> None:
    model = digits_model(3, 4)
    simulation = TrainedSimulation(model, ranges, CPU)
    optimizer = torch.optim.Adam(simulation.parameters(), 3e-3)
    inputs = {name: torch.from_numpy(x) for name, x in batch().items()}
    for _ in range(5):
        optimizer.zero_grad()
        simulation(inputs)[0].square().mean().backward()
        optimizer.step()
    result = simulation.result(model)
    assert not np.array_equal(exported(result), exported(model))
    np.testing.assert_array_equal(simulated(simulation), exported(result))
    for name, found in simulation.trained_encodings().items():
        assert result.encodings[name] == found


def test_every_range_and_weight_has_a_gradient() -> None:
    model = digits_model(4, 4)
    simulation = TrainedSimulation(model, Ranges.SCALE, CPU)
    inputs = {name: torch.from_numpy(x) for name, x in batch().items()}
    simulation(inputs)[0].square().sum().backward()
    missing = [name for name, item in simulation.named_parameters() if item.grad is None]
    assert missing == []
    learned = {name for name, _ in simulation.learned()}
    rows = model.plan.tensors.values()
    assert learned == {row.name for row in rows if row.observed or row.role.value == "weight"}


def test_scales_alone_bring_the_output_nearer() -> None:
    simulation = TrainedSimulation(digits_model(3, 8), Ranges.SCALE, CPU)
    inputs = {name: torch.from_numpy(x) for name, x in batch().items()}
    wanted = torch.from_numpy(exported(digits_model(8, 8)))
    optimizer = torch.optim.Adam(simulation.quantizers.parameters(), 1e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (simulation(inputs)[0] - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_only_weights_biases_and_norms_are_trained() -> None:
    model = digits_model()
    names = trained_constants(model.graph, model.plan)
    rows = model.plan.tensors
    assert {rows[name].role.value for name in names} == {"weight", "bias"}
    assert len(names) == 14  # 7 layers with weight and bias


def test_switched_off_ranges_stay_float() -> None:
    model = digits_model(act_enabled=False)
    simulation = TrainedSimulation(model, Ranges.SCALE, CPU)
    weights = {row.name for row in model.plan.tensors.values() if row.role.value == "weight"}
    assert {name for name, _ in simulation.learned()} == weights


def test_a_given_encoding_goes_when_its_bits_change() -> None:
    model = digits_model(4, 4)
    name = "stem.conv.weight"
    double = replace(model.encodings[name], scale=model.encodings[name].scale * 2)
    changed = model.changed(encodings={name: double})
    assert changed.encodings[name] == double
    other = changed.changed(config=changed.config.with_defaults(weight_bits=6))
    assert other.encodings[name].grid.bits == 6
    back = other.changed(config=changed.config)
    assert back.encodings[name] == double
