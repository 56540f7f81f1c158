"""Bias correction: closed forms against numeric integration, means measured and taken off."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from chain_models import Net, calibrated, feeds, mobile_net, samples
from scipy import integrate, stats

from studio.graph.additions import additions_of
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.jobs.events import CancelToken, silent
from studio.ptq.bias_correction import analytic_shift, bias_correction
from studio.ptq.correction_options import BiasCorrectionOptions, EqualizationOptions, Method
from studio.ptq.equalization import equalization
from studio.ptq.links import find_links
from studio.ptq.norm_moments import clipped_mean, input_means, output_moments
from studio.ptq.weighted import weighted_layers
from studio.runtime.executor import Executor
from studio.runtime.session import float_session
from studio.sim.quantized_model import QuantizedModel, with_constants
from studio.techniques.technique import Outcome

LIMITS = [(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0), (-1.0, 0.5), (-np.inf, 0.3)]


@pytest.mark.parametrize(("low", "high"), LIMITS)
@pytest.mark.parametrize("mean", [-8.0, -0.7, 0.0, 1.3, 9.0])
@pytest.mark.parametrize("deviation", [0.2, 1.0, 4.0])
def test_the_mean_of_a_clipped_normal(
    low: float, high: float, mean: float, deviation: float
) -> None:
    def integrand(x: float) -> float:
        return float(np.clip(x, low, high)) * stats.norm.pdf(x, mean, deviation)

    reach = 12 * deviation
    ends = sorted({mean - reach, mean + reach, *np.clip([low, high], mean - reach, mean + reach)})
    expected = sum(
        integrate.quad(integrand, a, b, epsabs=1e-12, limit=200)[0]
        for a, b in itertools.pairwise(ends)
    )
    found = clipped_mean(np.array([mean]), np.array([deviation]), low, high)
    np.testing.assert_allclose(found, [expected], rtol=1e-7, atol=1e-9)


def test_published_formulas() -> None:
    """ReLU and ReLU6 as AIMET writes them."""
    beta, gamma = np.array([-1.0, 0.0, 2.0, 7.0]), np.array([0.5, 1.0, 2.0, 3.0])
    phi, cdf = stats.norm.pdf, stats.norm.cdf
    relu = beta * (1 - cdf(-beta / gamma)) + gamma * phi(-beta / gamma)
    np.testing.assert_allclose(clipped_mean(beta, gamma, 0.0, np.inf), relu, atol=1e-12)
    a, b = -beta / gamma, (6 - beta) / gamma
    relu6 = gamma * (phi(a) - phi(b)) + beta * (cdf(b) - cdf(a)) + 6 * (1 - cdf(b))
    np.testing.assert_allclose(clipped_mean(beta, gamma, 0.0, 6.0), relu6, atol=1e-12)


def test_the_shift_undoes_the_mean_error_of_the_weight() -> None:
    """For inputs of the mean given, layer by layer as onnxruntime computes it."""
    net = Net(5)
    net.channels = 3
    for kind, outputs in (("Conv", 4), ("Grouped", 6), ("ConvTranspose", 4), ("Depthwise", 4)):
        net.layer(kind, outputs)
        net.nodes[-1].attribute.remove(next(a for a in net.nodes[-1].attribute if a.name == "pads"))
    model = calibrated(net.graph(), weight_bits=3)
    for item in weighted_layers(model.graph).values():
        mean = np.random.default_rng(1).standard_normal(item.inputs)
        shift = analytic_shift(model, item, mean)
        weight = model.graph.constant(item.weight)
        rounded = model.encodings[item.weight].quantize_dequantize(weight)
        x = torch.from_numpy(mean).view(1, -1, 1, 1).expand(1, -1, 9, 9)
        transposed = item.node.op_type == "ConvTranspose"
        run = torch.conv_transpose2d if transposed else torch.conv2d
        y, y_rounded = (
            run(x, torch.tensor(w).double(), groups=item.groups) for w in (weight, rounded)
        )
        inner = (y - y_rounded)[0, :, 4, 4].numpy()
        np.testing.assert_allclose(shift, inner, rtol=1e-5, atol=1e-7)


def corrected(model: QuantizedModel, **options: object) -> Outcome:
    given = BiasCorrectionOptions.model_validate(options)
    return bias_correction(model, samples(model.graph), given, silent, CancelToken())


def mean_errors(model: QuantizedModel, reference: ModelGraph) -> list[float]:
    """Of every layer's output, weights rounded and activations not: rms over channels."""
    encodings = model.encodings
    rounds = {
        name: (lambda x, e=encodings[name]: torch.from_numpy(e.quantize_dequantize(x.numpy())))
        for name in model.graph.initializers
        if name in encodings and model.plan.tensors[name].role.value == "weight"
    }
    names = [item.output.name or "" for item in weighted_layers(model.graph).values()]
    feed = feeds(model.graph)
    with torch.inference_mode():
        found = Executor(model.graph, quantize=rounds).run(feed, names)
    expected = float_session(reference, names).run(feed, names)
    errors = []
    for name in names:
        error = found[name].numpy() - expected[name]
        axes = tuple(axis for axis in range(error.ndim) if axis != 1)
        errors.append(float(np.sqrt(np.square(error.mean(axes)).mean())))
    return errors


def test_empirical_correction_takes_the_mean_error_off() -> None:
    model = calibrated(mobile_net(clip="Relu"), weight_bits=3, act_bits=16)
    outcome = corrected(model, samples=32)
    before, after = mean_errors(model, model.graph), mean_errors(outcome.model, model.graph)
    assert max(after) < 0.02 * max(before)
    assert [row.what for row in outcome.rows] == ["empirical"] * len(before)
    for row in outcome.rows:
        assert row.before is not None
        assert row.after is not None
        assert row.after < 1e-6 < row.before
    for name in model.encodings:  # weights are as they were
        if model.plan.tensors[name].role.value == "weight":
            np.testing.assert_array_equal(
                outcome.model.graph.constant(name), model.graph.constant(name)
            )
    assert outcome.model.statistics is model.statistics


def test_layers_without_a_bias_get_one() -> None:
    graph = Net(6).layer("Conv", 4, bias=False).activation("Relu").layer("Conv", 2, bias=False)
    model = calibrated(graph.graph(), weight_bits=3)
    outcome = corrected(model)
    added = additions_of(outcome.model.graph).biases
    assert len(added) == 2
    for name in added:
        value = outcome.model.graph.node(name).inputs[2]
        assert value is not None
        assert outcome.model.graph.constant(value.name or "").any()
        assert outcome.model.plan.tensors[value.name or ""].bias_of is not None


def test_a_matrix_without_a_bias_is_left() -> None:
    net = Net(7).layer("Conv", 4).add("GlobalAveragePool").add("Flatten")
    net.add("MatMul", net.constant("w", net.numbers(4, 3, axis=1)))
    outcome = corrected(calibrated(net.graph(), weight_bits=3))
    assert any("cannot get one" in row.what for row in outcome.rows)


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    """Conv, batch normalization and ReLU6 twice and a last Conv, opened from a file: statistics
    are those of the data."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    channels = 3
    for outputs, groups in ((8, 1), (8, 8)):
        layers.append(torch.nn.Conv2d(channels, outputs, 3, bias=False, groups=groups))
        layers += [torch.nn.BatchNorm2d(outputs, momentum=None), torch.nn.ReLU6()]
        channels = outputs
    module = torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 4, 1))
    for layer in layers:
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, -1.0, 3.0)
            torch.nn.init.uniform_(layer.bias, -2.0, 6.0)
    data = np.random.default_rng(1).standard_normal((64, 3, 12, 12)).astype(np.float32)
    with torch.no_grad():
        module.train()(torch.from_numpy(data))
    path = tmp_path_factory.mktemp("folded") / "net.onnx"
    torch.onnx.export(
        module.eval(), (torch.from_numpy(data[:2]),), path, dynamo=True, optimize=False,
        dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False,
    )  # fmt: skip
    return open_model(Path(path))


def big_feeds(graph: ModelGraph) -> dict[str, np.ndarray]:
    data = np.random.default_rng(1).standard_normal((64, 3, 12, 12)).astype(np.float32)
    return {graph.inputs[0].name or "": data}


@pytest.mark.parametrize("equalized", [False, True])
def test_batch_normalization_tells_means(folded: ModelGraph, equalized: bool) -> None:
    """Mean and spread before the activation are exact, the means behind it nearly (sums of 27 and
    of 9 numbers are not quite normal); also where channels were scaled since."""
    graph = folded
    if equalized:
        model = calibrated(graph)
        outcome = equalization(model, samples(graph), EqualizationOptions(), silent, CancelToken())
        graph = outcome.model.graph
        assert additions_of(graph).clips
    moments = output_moments(graph)
    assert len(moments) == 2
    layers = weighted_layers(graph)
    names = [layers[name].output.name or "" for name in moments]
    found = float_session(graph, names).run(big_feeds(graph), names)
    for name, known in zip(names, moments.values(), strict=True):
        np.testing.assert_allclose(
            known.mean, found[name].mean((0, 2, 3)), rtol=1e-3, atol=1e-3 * known.deviation.max()
        )
        np.testing.assert_allclose(known.deviation, found[name].std((0, 2, 3)), rtol=1e-2)
    means = input_means(graph)
    assert len(means) == 2
    for link in find_links(graph)[0]:
        source = link.second.source
        x = float_session(graph, [source]).run(big_feeds(graph), [source])[source]
        measured = x.mean((0, 2, 3))
        error = np.abs(means[link.second.name] - measured) / np.maximum(measured, 0.1)
        assert error.max() < 0.1


def test_weights_changed_otherwise_are_not_explained(folded: ModelGraph) -> None:
    name = next(iter(weighted_layers(folded).values())).weight
    noisy = (
        folded.constant(name)
        + np.random.default_rng(0).standard_normal(folded.constant(name).shape).astype(np.float32)
        * 0.1
    )
    assert len(output_moments(with_constants(folded, {name: noisy}))) == 1


def test_methods(folded: ModelGraph) -> None:
    model = calibrated(folded, weight_bits=4)
    kinds = {
        method: [row.what for row in corrected(model, method=method).rows] for method in Method
    }
    assert kinds[Method.EMPIRICAL] == ["empirical"] * 3
    assert kinds[Method.AUTO] == ["empirical", "analytic", "analytic"]
    assert kinds[Method.ANALYTIC][:2] == ["analytic"] * 2
    assert kinds[Method.ANALYTIC][2].startswith("left: no batch normalization")
    auto = corrected(model, method=Method.AUTO)
    for row in auto.rows[1:]:
        assert row.before is not None
        assert row.after is not None
        assert row.after < 0.6 * row.before
