"""The exported graph in onnxruntime, optimisations off, equals the torch simulation."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from sim_graphs import batches, conv_net, graph_of

from studio.errors import ExportError
from studio.jobs import CancelToken, silent
from studio.runtime.session import Optimizations, Session
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.placement import place
from studio.sim.qdq import Constants, Storage, insert_qdq, quantized_name, required_opset
from studio.sim.simulator import simulating_executor


def calibrated(graph, config):
    plan = place(graph, config)
    statistics = collect_statistics(
        graph, plan.observed, batches(graph), 32, emit=silent, cancel=CancelToken()
    )
    return plan, compute_encodings(graph, plan, statistics)


def largest_step(graph, plan, encodings, model) -> int:
    """Largest difference in steps between the two engines, layer by layer on equal inputs."""
    import torch

    layers = [layer for layer in plan.layers if plan.tensors[layer.output].spec and layer.nodes]
    names = {
        n: f"{n}_dequantized" for layer in layers for n in layer.inputs if plan.tensors[n].spec
    }
    names.update({n: n for layer in layers for n in layer.inputs if n not in names})
    wanted = {*names.values(), *(quantized_name(layer.output) for layer in layers)}
    session = Session(model, optimizations=Optimizations.NONE, outputs=sorted(wanted))
    batch = batches(graph, count=1, seed=9)[0]
    values = {**batch, **session.run(batch)}
    executor = simulating_executor(graph, plan, encodings)
    worst = 0
    for layer in layers:
        inputs = {n: torch.from_numpy(values[names[n]]) for n in layer.inputs}
        with torch.inference_mode():
            out = executor.run_nodes(layer.nodes, inputs, [layer.output])[layer.output].numpy()
        integers = encodings[layer.output].quantize(out)
        actual = values[quantized_name(layer.output)].astype(np.int64)
        worst = max(worst, int(np.abs(integers - actual).max()))
    return worst


CONFIGS = {
    "W8A8": {},
    "W4A8": {"weight_bits": 4},
    "W8A16": {"act_bits": 16},
    "W3A5": {"weight_bits": 3, "act_bits": 5},
    "W11A12": {"weight_bits": 11, "act_bits": 12},
    "W2A2": {"weight_bits": 2, "act_bits": 2},
    "symmetric": {"act_symmetric": True},
    "per tensor, asymmetric weights": {"weight_per_channel": False, "weight_symmetric": False},
}


@pytest.mark.parametrize("storage", [8, 4])
@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS.keys())
def test_file_equals_simulation_to_the_last_step(settings: dict, storage: int) -> None:
    graph = conv_net()
    plan, encodings = calibrated(graph, QuantConfig().with_defaults(**settings))
    model = insert_qdq(
        graph, plan, encodings, constants=Constants.INTEGER, storage=Storage(weight_bits=storage)
    )
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert largest_step(graph, plan, encodings, model) <= (0 if "act_bits" not in settings else 1)


def test_float_constants_compute_the_same_as_integer_ones() -> None:
    graph = conv_net()
    plan, encodings = calibrated(graph, QuantConfig())
    batch = batches(graph, count=1)[0]
    outputs = []
    for constants in Constants:
        model = insert_qdq(graph, plan, encodings, constants=constants)
        outputs.append(Session(model, optimizations=Optimizations.NONE).run(batch)["y"])
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_names_inputs_and_outputs_stay() -> None:
    graph = conv_net()
    plan, encodings = calibrated(graph, QuantConfig())
    model = insert_qdq(graph, plan, encodings, constants=Constants.INTEGER)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert {"b_quantized", "w1_quantized", "w1_scale"} <= {
        value.name
        for value in (
            *model.graph.initializers.values(),
            *(out for node in model.graph for out in node.outputs),
        )
    }


def test_graph_itself_is_not_touched() -> None:
    graph = conv_net()
    before = graph.to_proto().SerializeToString()
    plan, encodings = calibrated(graph, QuantConfig())
    insert_qdq(graph, plan, encodings, constants=Constants.FLOAT)
    insert_qdq(graph, plan, encodings, constants=Constants.INTEGER)
    assert graph.to_proto().SerializeToString() == before


def test_opset_is_as_low_as_the_types_allow() -> None:
    graph = conv_net()
    assert required_opset(place(graph, QuantConfig()), Storage()) == 13
    assert required_opset(place(graph, QuantConfig().with_defaults(act_bits=16)), Storage()) == 21
    four = place(graph, QuantConfig().with_defaults(weight_bits=4))
    assert (required_opset(four, Storage()), required_opset(four, Storage(weight_bits=4))) == (
        13,
        21,
    )


def test_missing_encoding_is_named() -> None:
    graph = conv_net()
    plan, encodings = calibrated(graph, QuantConfig())
    del encodings["d"]
    with pytest.raises(ExportError, match="is d"):
        insert_qdq(graph, plan, encodings, constants=Constants.INTEGER)


def test_output_that_is_also_read_inside_keeps_its_name() -> None:
    graph = graph_of(
        """(float[n, 3] x) => (float[n, 3] a, float[n, 3] y) {
            a = Sigmoid(x)
            y = Mul(a, x)
        }"""
    )
    plan, encodings = calibrated(graph, QuantConfig())
    model = insert_qdq(graph, plan, encodings, constants=Constants.INTEGER)
    batch = batches(graph, count=1)[0]
    result = Session(model, optimizations=Optimizations.NONE).run(batch)
    np.testing.assert_array_equal(result["a"], encodings["a"].quantize_dequantize(result["a"]))


def test_integer_kernels_are_used_throughout(tmp_path) -> None:
    graph = conv_net()
    plan, encodings = calibrated(graph, QuantConfig())
    model = insert_qdq(graph, plan, encodings, constants=Constants.INTEGER)
    Session(model, optimized_path=tmp_path / "optimized.onnx")
    ops = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert ops.count("QLinearConv") == 3
    assert "QGemm" in ops
    assert not {"Conv", "FusedConv", "Gemm"} & set(ops)
