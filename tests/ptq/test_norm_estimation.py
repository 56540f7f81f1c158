"""Batch norm re-estimation: mean and spread of the float network, no weight rounded anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from chain_models import calibrated, feeds, mobile_net, samples

from studio.graph.folded_norms import kept_norms
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.jobs.events import CancelToken, silent
from studio.ptq.correction_options import NormEstimationOptions
from studio.ptq.norm_estimation import norm_estimation
from studio.quant.encoding import Encoding
from studio.runtime.executor import Executor
from studio.runtime.session import float_session
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 4, 1),
    )  # fmt: skip
    with torch.no_grad():
        for _ in range(20):
            module.train()(torch.randn(32, 3, 6, 6))
    path = tmp_path_factory.mktemp("norms") / "net.onnx"
    torch.onnx.export(
        module.eval(), (torch.zeros(2, 3, 6, 6),), path, dynamo=True, optimize=False,
        dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False,
    )  # fmt: skip
    return open_model(Path(path))


def estimated(model: QuantizedModel, **options: object) -> Outcome:
    given = NormEstimationOptions.model_validate(options)
    return norm_estimation(model, samples(model.graph), given, silent, CancelToken())


def moments(model: QuantizedModel, *, rounded: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of the outputs of layers that hold a norm."""
    names = [kept.output for kept in kept_norms(model.graph)]
    if not rounded:
        found = float_session(model.graph, names).run(feeds(model.graph), names)
        return [(found[n].mean((0, 2, 3)), found[n].std((0, 2, 3))) for n in names]

    def rounds(encoding: Encoding):
        return lambda x: torch.from_numpy(encoding.quantize_dequantize(x.numpy()))

    weights = {kept.weight for kept in kept_norms(model.graph)}
    executor = Executor(model.graph, quantize={n: rounds(model.encodings[n]) for n in weights})
    with torch.inference_mode():
        made = executor.run(feeds(model.graph), names)
    arrays = [made[name].numpy() for name in names]
    return [(array.mean((0, 2, 3)), array.std((0, 2, 3))) for array in arrays]


def test_mean_and_spread_become_those_of_float(graph: ModelGraph) -> None:
    model = calibrated(graph, weight_bits=3, act_bits=16)
    outcome = estimated(model)
    wanted = moments(model, rounded=False)
    before, after = (moments(m, rounded=True) for m in (model, outcome.model))
    assert len(wanted) == 2
    for exact, old, new in zip(wanted, before, after, strict=True):
        largest = exact[1].max()
        errors = [
            max(float(np.abs(a - b).max()) / largest for a, b in zip(exact, found, strict=True))
            for found in (old, new)
        ]
        assert errors[0] > 0.02
        assert errors[1] < 0.005
    for row in outcome.rows:
        assert row.before is not None
        assert row.after is not None
        assert row.after < 1e-6 < row.before


def test_weights_keep_their_integers(graph: ModelGraph) -> None:
    model = calibrated(graph, weight_bits=3)
    after = estimated(model).model
    for kept in kept_norms(graph):
        old, new = (m.graph.constant(kept.weight) for m in (model, after))
        assert not np.array_equal(old, new)
        integers = [m.encodings[kept.weight].quantize(w) for m, w in ((model, old), (after, new))]
        assert np.abs(integers[0] - integers[1]).max() <= 1
        assert (integers[0] != integers[1]).mean() < 0.01


@pytest.mark.parametrize("options", [{"scale": False}, {}])
def test_one_scale_for_all_adjusts_means_alone(
    graph: ModelGraph, options: dict[str, object]
) -> None:
    model = calibrated(graph, weight_bits=3, weight_per_channel=bool(options))
    outcome = estimated(model, **options)
    for kept in kept_norms(graph):
        np.testing.assert_array_equal(
            outcome.model.graph.constant(kept.weight), graph.constant(kept.weight)
        )
        assert not np.array_equal(
            outcome.model.graph.constant(kept.bias), graph.constant(kept.bias)
        )
    assert ("the mean alone" in outcome.summary) == (not options)


def test_a_model_without_norms_says_so() -> None:
    model = calibrated(mobile_net())
    outcome = estimated(model)
    assert outcome.model is model
    assert "nothing is changed" in outcome.summary
