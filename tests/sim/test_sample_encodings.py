"""Our own calibration of a small float net against the encodings AIMET 2.42 wrote for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from sim_graphs import graph_of

from studio.graph.model import ModelGraph
from studio.jobs import CancelToken, silent
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings, rounded_weights
from studio.sim.placement import place

SAMPLES = Path(__file__).parents[1] / "exporting" / "data"

PARAMETERS = {
    "conv1.weight": (4, 2, 3, 3),
    "conv1.bias": (4,),
    "conv2.weight": (4, 4, 1, 1),
    "conv2.bias": (4,),
    "fc.weight": (3, 64),
    "fc.bias": (3,),
}

NAMES = {
    "/relu1/Relu_output_0": "relu",
    "/conv2/Conv_output_0": "conv",
    "/flat/Flatten_output_0": "flat",
}


def net() -> ModelGraph:
    """Parameter i, element n: sin(0.7 n + i) * (0.05 + 0.02 * (n mod 7))."""
    shapes = {name.replace(".", "_"): shape for name, shape in PARAMETERS.items()}
    graph = graph_of(
        """(float[b, 2, 4, 4] input) => (float[b, 3] output) {
            hidden = Conv<pads = [1, 1, 1, 1]>(input, conv1_weight, conv1_bias)
            relu = Relu(hidden)
            conv = Conv(relu, conv2_weight, conv2_bias)
            flat = Flatten(conv)
            output = Gemm<transB = 1>(flat, fc_weight, fc_bias)
        }""",
        **shapes,
    )
    for i, (name, shape) in enumerate(shapes.items(), 1):
        n = np.arange(np.prod(shape))
        values = np.sin(0.7 * n + i) * (0.05 + 0.02 * (n % 7))
        array = values.astype(np.float32).reshape(shape)
        graph.value(name).const_value = ir.tensor(array, name=name)
    return graph


def batch() -> np.ndarray:
    waves = np.cos(0.37 * np.arange(64)).astype(np.float32).reshape(2, 2, 4, 4)
    return (2 * waves + np.float32(0.3)).astype(np.float32)


@pytest.mark.parametrize(
    ("sample", "settings"),
    [
        ("w8a8_minmax_v200", {}),
        ("bq_fc_v200", {"weight_bits": 4, "weight_block_size": 16, "weight_symmetric": True}),
    ],
)
def test_calibration_equals_the_samples(sample: str, settings: dict) -> None:
    graph = net()
    linear = next(node.name for node in graph.nodes() if node.op_type == "Gemm")
    config = QuantConfig()
    if settings:
        config = config.with_layers([linear], **settings)
    plan = place(graph, config)
    statistics = collect_statistics(
        graph,
        plan.observed,
        [{"input": batch()}],
        2,
        weights=rounded_weights(graph, plan),
        emit=silent,
        cancel=CancelToken(),
    )
    encodings = compute_encodings(graph, plan, statistics)
    expected = json.loads((SAMPLES / f"{sample}.encodings").read_text("utf-8"))["encodings"]
    compared = 0
    for item in expected:
        name = NAMES.get(item["name"], item["name"].replace(".", "_"))
        if name == "fc_bias" and name not in encodings:
            continue  # behind a weight in blocks the bias may stay float
        encoding = encodings[name]
        np.testing.assert_allclose(encoding.scale, item["y_scale"], rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(encoding.zero_point, item.get("y_zero_point", 0))
        compared += 1
    assert compared >= len(expected) - 1


def test_the_configuration_asks_for_it() -> None:
    from studio.api import QuantSim

    expected = {"output": 0.0003901126328855753, "relu": 0.007653066422790289}
    for rounded in (True, False):
        sim = QuantSim(net(), QuantConfig(calibrate_rounded=rounded)).calibrate(batch())
        same = [
            float(sim.encodings[name].scale) == pytest.approx(scale, rel=1e-6)
            for name, scale in expected.items()
        ]
        assert all(same) if rounded else not any(same)
