"""The `.pt2` file: loaded by torch alone in a fresh process, it computes the simulation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models
import torch

import studio
from studio.errors import ExportError
from studio.exporting.exported_program import exported_program, write_exported_program
from studio.sim.simulator import simulating_executor

NETS = Path(__file__).parent / "source_nets.py"

LOAD = """
import sys
import numpy, torch
program = torch.export.load(sys.argv[1])
x = torch.from_numpy(numpy.load(sys.argv[2]))
with torch.no_grad():
    result = program.module()(x)
numpy.save(sys.argv[3], result[0].numpy())
assert not [name for name in sys.modules if name.startswith(("studio", "onnx"))]
"""


def simulated(sim: studio.QuantSim, x: np.ndarray) -> np.ndarray:
    executor = simulating_executor(sim.graph, sim.plan, sim.encodings)
    with torch.inference_mode():
        values = executor.run({sim.graph.inputs[0].name or "": x})
    return values[sim.graph.outputs[0].name or ""].numpy()


def test_a_fresh_process_computes_the_simulation(tmp_path: Path) -> None:
    graph = studio.open_model(f"{NETS}:conv_bn_relu", inputs="1,3,8,8", trust=True)
    config = studio.QuantConfig().with_layers(["5"], weight_bits=4)
    sim = studio.QuantSim(graph, config).calibrate(small_models.numbers(1, 6, 3, 8, 8))
    path = tmp_path / "net.pt2"
    assert write_exported_program(graph, sim.plan, sim.encodings, path) == ()
    assert [item.name for item in tmp_path.iterdir()] == ["net.pt2"]
    x = small_models.numbers(2, 5, 3, 8, 8)  # another batch size than it was traced with
    np.save(tmp_path / "x.npy", x)
    subprocess.run(
        [sys.executable, "-I", "-c", LOAD, path, tmp_path / "x.npy", tmp_path / "y.npy"],
        check=True,
        timeout=120,
    )
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), simulated(sim, x))


def computed(sim: studio.QuantSim, x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    program, notes = exported_program(sim.graph, sim.plan, sim.encodings)
    with torch.no_grad():
        return program.module()(torch.from_numpy(x))[0].numpy(), notes


def test_shapes_that_are_computed_stay_open() -> None:
    """Reshape to sizes of the input, with a batch and a picture of another size."""
    graph = studio.open_model(f"{NETS}:everything", inputs="1,3,6,6", trust=True)
    sim = studio.QuantSim(graph).calibrate(small_models.numbers(1, 4, 3, 6, 6))
    x = small_models.numbers(2, 3, 3, 10, 8)
    found, notes = computed(sim, x)
    assert notes == ()
    np.testing.assert_array_equal(found, simulated(sim, x))


def test_weights_are_stored_as_integers() -> None:
    graph = studio.open_model(f"{NETS}:conv_bn_relu", inputs="1,3,8,8", trust=True)
    sim = studio.QuantSim(graph).calibrate(small_models.numbers(1, 6, 3, 8, 8))
    program, _ = exported_program(graph, sim.plan, sim.encodings)
    stored = {name: tensor for name, tensor in program.state_dict.items() if name.endswith("_q")}
    weights = sorted(str(t.dtype) for t in stored.values())
    assert weights == ["torch.int32", "torch.int32", "torch.int8", "torch.int8"]
    (weight,) = (t for name, t in stored.items() if name.startswith("0_weight"))
    expected = sim.encodings["0.weight"].quantize(graph.constant("0.weight"))
    np.testing.assert_array_equal(weight.numpy(), expected)


def test_only_operators_of_torch_itself() -> None:
    graph = studio.open_model(f"{NETS}:conv_bn_relu", inputs="1,3,8,8", trust=True)
    sim = studio.QuantSim(graph).calibrate(small_models.numbers(1, 6, 3, 8, 8))
    program, _ = exported_program(graph, sim.plan, sim.encodings)
    called = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert called
    foreign = [t for t in called if not t.startswith(("aten.", "<built-in"))]
    assert not foreign


def test_dynamic_quantization_is_refused(tmp_path: Path) -> None:
    graph = studio.open_model(small_models.linear(tmp_path / "net.onnx"))
    config = studio.QuantConfig().with_defaults(act_dynamic=True)
    sim = studio.QuantSim(graph, config)
    if not any(row.dynamic for row in sim.plan.tensors.values()):
        pytest.skip("the target places no dynamic quantization")
    with pytest.raises(ExportError, match="ranged at every inference"):
        exported_program(graph, sim.plan, sim.encodings)
