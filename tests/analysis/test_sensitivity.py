"""Sensitivity against full runs of hand-made networks in plain onnxruntime."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import small_models
from onnx import helper, numpy_helper

from studio.analysis import variants as variants_module
from studio.analysis.deviation import DeviationMeter, divergence
from studio.analysis.evaluate import simulated_session
from studio.analysis.outliers import outliers
from studio.analysis.sensitivity import SensitivityOptions, float_constants, sensitivity
from studio.analysis.variants import Variant, measure_variants, quantizing
from studio.errors import CancelledError, ConfigError
from studio.jobs.events import CancelToken, Progress, silent
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.runtime.session import float_session


def branched_net(path: Path) -> Path:
    """Scores (N, 5) and side (N, 8, 4, 4) of images (N, 3, 8, 8): two branches that meet again."""
    numbers = small_models.numbers
    return small_models.build(
        path,
        [
            helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
            helper.make_node(
                "MaxPool", ["r1"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]
            ),
            helper.make_node("Conv", ["p1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", ["c2"], ["s2"], "sigmoid"),
            helper.make_node("Mul", ["c2", "s2"], ["m2"], "gate"),
            helper.make_node("Add", ["p1", "m2"], ["a2"], "add"),
            helper.make_node("Conv", ["a2", "w3"], ["side"], "conv3"),
            helper.make_node("Relu", ["side"], ["r3"], "relu3"),
            helper.make_node("GlobalAveragePool", ["r3"], ["g"], "mean"),
            helper.make_node("Flatten", ["g"], ["f"], "flatten"),
            helper.make_node("Gemm", ["f", "w4", "b4"], ["scores"], "fc", transB=1),
        ],
        {"x": (small_models.FLOAT, ["N", 3, 8, 8])},
        {
            "scores": (small_models.FLOAT, ["N", 5]),
            "side": (small_models.FLOAT, ["N", 8, 4, 4]),
        },
        {
            "w1": numbers(1, 8, 3, 3, 3),
            "b1": numbers(2, 8),
            "w2": numbers(3, 8, 8, 3, 3) / 4,
            "w3": numbers(4, 8, 8, 1, 1),
            "w4": numbers(5, 5, 8),
            "b4": numbers(6, 5),
        },
    )


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    folder = tmp_path_factory.mktemp("net")
    np.savez(
        folder / "data.npz",
        x=small_models.numbers(7, 21, 3, 8, 8),
        y=np.arange(21, dtype=np.int64) % 5,
    )
    opened = steps.open_document(branched_net(folder / "net.onnx"))
    data = DataSettings(path=folder / "data.npz", calibration_size=16, batch_size=4)
    config = opened.config.with_defaults(weight_bits=4, act_bits=6)
    return steps.calibrate(opened.with_config(config).with_data(data))


def tensors_of(document: Document, layer: str) -> set[str]:
    rows = document.plan.tensors.values()
    return {row.name for row in rows if row.layer == layer and row.spec is not None}


def full_deviation(document: Document, names: set[str]):  # type: ignore[no-untyped-def]
    """What the whole simulated network gives with the tensors `names` quantized."""
    plan = quantizing(document.plan, names)
    whole = simulated_session(document.graph, plan, document.encodings)
    exact = float_session(document.graph)
    _, data, size = steps.document_data(document)
    meter = DeviationMeter()
    for batch in data.batches(size):
        expected, actual = exact.run(batch.inputs), whole.run(batch.inputs)
        meter.add(list(expected.values()), list(actual.values()), batch.labels)
    return meter.result()


def analysed(document: Document, **options: object):  # type: ignore[no-untyped-def]
    return steps.sensitivity(document, SensitivityOptions(**options)).sensitivity  # type: ignore[arg-type]


def close(found, wanted) -> None:  # type: ignore[no-untyped-def]
    assert found.noise == pytest.approx(wanted.noise, rel=1e-4, abs=1e-12)
    assert found.mse == pytest.approx(wanted.mse, rel=1e-4, abs=1e-12)
    assert found.kl == pytest.approx(wanted.kl, rel=1e-3, abs=1e-9)
    assert (found.top1, found.agreement) == (wanted.top1, wanted.agreement)


@pytest.mark.parametrize("stage_nodes", [2, 24])
def test_every_layer_measures_as_its_whole_network_does(
    document: Document, monkeypatch: pytest.MonkeyPatch, stage_nodes: int
) -> None:
    """Running only what is behind the difference, in one stage or in many, changes nothing."""
    monkeypatch.setattr(variants_module, "STAGE_NODES", stage_nodes)
    found = analysed(document)
    everything = {name for name, row in document.plan.tensors.items() if row.spec is not None}
    assert {layer.layer for layer in found.layers} >= {"conv1", "conv2", "conv3", "fc", "add", "x"}
    for layer in found.layers:
        own = tensors_of(document, layer.layer)
        close(layer.alone, full_deviation(document, own))
        close(layer.left, full_deviation(document, everything - own))
    close(found.both, full_deviation(document, everything))
    constants = {name for name in everything if name in document.graph.initializers}
    close(found.weights, full_deviation(document, constants))
    close(found.activations, full_deviation(document, everything - constants))
    assert found.samples == 21


def test_a_layer_alone_is_the_hand_made_network(document: Document, tmp_path: Path) -> None:
    """conv3 alone: its weight rounded with numpy, Q and DQ behind its output, in onnxruntime."""
    model = onnx.load(branched_net(tmp_path / "net.onnx"))
    weight, output = document.encodings["w3"], document.encodings["side"]
    stored = next(item for item in model.graph.initializer if item.name == "w3")
    w3 = numpy_helper.to_array(stored)
    scale = weight.scale.reshape(-1, 1, 1, 1)
    rounded = np.clip(np.rint(w3 / scale), weight.grid.qmin, weight.grid.qmax) * scale
    stored.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), "w3"))
    # 6 bits: the limits are those of the clipped range, the integers those of 8 bits.
    constants = {"scale": output.scale, "zero": output.zero_point.astype(np.uint8)}
    constants |= {"low": output.minimum, "high": output.maximum}
    for name, array in constants.items():
        kind = np.uint8 if name == "zero" else np.float32
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, kind), name))
    nodes = list(model.graph.node)
    place = next(i for i, node in enumerate(nodes) if node.name == "conv3")
    nodes[place].output[0] = "raw"
    nodes[place + 1 : place + 1] = [
        helper.make_node("Clip", ["raw", "low", "high"], ["clipped"]),
        helper.make_node("QuantizeLinear", ["clipped", "scale", "zero"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["side"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    inputs = {"x": small_models.numbers(7, 21, 3, 8, 8)}
    actual = ort.InferenceSession(model.SerializeToString()).run(None, inputs)
    exact = ort.InferenceSession(str(branched_net(tmp_path / "f.onnx"))).run(None, inputs)
    ratios = [
        np.square(a - b).sum() / np.square(a).sum() for a, b in zip(exact, actual, strict=True)
    ]
    layer = analysed(document).by_layer["conv3"]
    assert layer.alone.noise == pytest.approx(np.mean(ratios), rel=1e-4)
    noise, signal = np.square(w3 - rounded).sum(), np.square(w3).sum()
    assert layer.weight.sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-3)
    assert layer.weight.mse == pytest.approx(noise / w3.size, rel=1e-3)


def test_the_output_in_place_is_measured_on_float_inputs(document: Document) -> None:
    layer = analysed(document).by_layer["conv2"]
    plan = quantizing(document.plan, tensors_of(document, "conv2"))
    from studio.analysis.evaluate import simulated_name
    from studio.runtime.session import Optimizations, Session
    from studio.sim.qdq import Constants, insert_qdq

    output = document.plan.layer("conv2").output
    name = simulated_name(document.graph, plan, output)
    model = insert_qdq(document.graph, plan, document.encodings, constants=Constants.FLOAT)
    simulated = Session(model, optimizations=Optimizations.FLOAT, outputs=[name])
    exact = float_session(document.graph, [output])
    x = {"x": small_models.numbers(7, 21, 3, 8, 8)[:16]}
    a, b = exact.run(x, [output])[output], simulated.run(x, [name])[name]
    expected = 10 * math.log10(np.square(a).sum() / np.square(a - b).sum())
    assert layer.output.sqnr_db == pytest.approx(expected, abs=0.01)


def test_a_variant_equal_to_the_base_costs_and_changes_nothing(document: Document) -> None:
    _, data, size = steps.document_data(document)
    base = Variant(document.plan, document.encodings)
    found = measure_variants(
        document.graph, base, [base], data, batch_size=size, emit=silent, cancel=CancelToken()
    )
    close(found.variants[0], found.base)


def test_other_bits_of_a_layer_on_a_quantized_base(document: Document) -> None:
    """A variant may have other encodings, not only fewer of them."""
    _, data, size = steps.document_data(document)
    other = steps.refresh_encodings(
        document.with_config(document.config.with_layers(["conv2"], weight_bits=8))
    )
    found = measure_variants(
        document.graph,
        Variant(document.plan, document.encodings),
        [Variant(other.plan, other.encodings)],
        data,
        batch_size=size,
        emit=silent,
        cancel=CancelToken(),
    )
    rounded = {name for name, row in other.plan.tensors.items() if row.spec is not None}
    close(found.variants[0], full_deviation(other, rounded))
    assert found.variants[0].noise < found.base.noise


def test_a_fixed_batch_is_never_joined(tmp_path: Path) -> None:
    """Samples side by side would not fit the shapes of the model."""
    np.savez(tmp_path / "data.npz", x=small_models.numbers(3, 6, 3, 6, 6))
    opened = steps.open_document(small_models.conv_net(tmp_path / "net.onnx", batch=2))
    data = DataSettings(path=tmp_path / "data.npz", calibration_size=6)
    document = steps.calibrate(opened.with_data(data))
    found = analysed(document)
    assert found.samples == 6
    assert found.float_top1 is None
    for layer in found.layers:
        close(layer.alone, full_deviation(document, tensors_of(document, layer.layer)))


def test_progress_counts_up_to_the_end_and_cancel_is_heard(document: Document) -> None:
    seen: list[Progress] = []
    steps.sensitivity(document, emit=seen.append)  # type: ignore[arg-type]
    counted = [event for event in seen if event.phase == "Analysing" and event.total > 50]
    assert [event.done for event in counted] == sorted(event.done for event in counted)
    assert counted[-1].done == counted[-1].total
    cancel = CancelToken()

    def stop(event: object) -> None:
        if isinstance(event, Progress) and event.done:
            cancel.cancel()

    with pytest.raises(CancelledError):
        steps.sensitivity(document, emit=stop, cancel=cancel)


def test_settings_that_change_drop_the_result(document: Document) -> None:
    done = steps.sensitivity(document, SensitivityOptions(samples=4, left=False))
    assert done.sensitivity is not None
    assert all(layer.left is None for layer in done.sensitivity.layers)
    changed = done.with_config(done.config.with_layers(["conv1"], weight_bits=3))
    assert changed.sensitivity is None


def test_nothing_quantized_is_said(document: Document) -> None:
    _, data, size = steps.document_data(document)
    with pytest.raises(ConfigError, match="No tensor"):
        sensitivity(
            document.graph,
            quantizing(document.plan, ()),
            {},
            data,
            original=document.graph,
            batch_size=size,
            emit=silent,
            cancel=CancelToken(),
        )


def test_a_weight_that_was_only_rounded_is_float_as_it_was(document: Document) -> None:
    """After AdaRound the graph holds rounded numbers; their error is that to the original."""
    graph, encoding = document.graph, document.encodings["w3"]
    w3 = graph.constant("w3")
    up = encoding.dequantize(
        np.clip(
            np.ceil(w3 / encoding.scale.reshape(-1, 1, 1, 1)),
            encoding.grid.qmin,
            encoding.grid.qmax,
        ).astype(np.int64)
    )
    tuned = graph.copy()
    tuned.value("w3").const_value = ir.tensor(up.astype(np.float32), name="w3")
    other = graph.copy()
    other.value("w3").const_value = ir.tensor((3 * w3).astype(np.float32), name="w3")
    found = float_constants(tuned, document.plan, document.encodings, graph)
    assert list(found) == ["w3"]
    np.testing.assert_array_equal(found["w3"], w3)
    assert float_constants(other, document.plan, document.encodings, graph) == {}
    rounded_up = replace(document, graph=tuned, untuned=graph, tuned=frozenset({"w3"}))
    layer = analysed(rounded_up).by_layer["conv3"]
    noise, signal = np.square(w3 - up).sum(), np.square(w3).sum()
    assert layer.weight.sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-3)


def test_kl_of_a_closed_form() -> None:
    p = np.array([[0.25, 0.75], [0.5, 0.5]])
    q = np.array([[0.5, 0.5], [0.9, 0.1]])
    wanted = float((p * np.log(p / q)).sum())
    assert divergence(np.log(p) + 3, np.log(q) - 7) == pytest.approx(wanted)
    assert divergence(p, q) == pytest.approx(wanted, rel=1e-6)
    assert divergence(p, p) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("actual", "noise"),
    [([3.0, 4.0], 0.0), ([3.0, 5.0], 1 / 25), ([math.nan, 4.0], math.inf), ([1.0], math.inf)],
)
def test_noise_at_the_edges(actual: list[float], noise: float) -> None:
    meter = DeviationMeter()
    meter.add([np.array([[3.0, 4.0]], np.float32)], [np.array([actual], np.float32)])
    assert meter.result().noise == pytest.approx(noise)


def outlier_net(path: Path) -> Path:
    """A convolution whose third output channel is 32 times as wide, and a product that reads it."""
    w1 = small_models.numbers(1, 8, 3, 1, 1)
    w1[2] *= 32
    return small_models.build(
        path,
        [
            helper.make_node("Conv", ["x", "w1"], ["c"], "conv"),
            helper.make_node("Transpose", ["c"], ["t"], "turn", perm=[0, 2, 3, 1]),
            helper.make_node("MatMul", ["t", "w2"], ["y"], "product"),
        ],
        {"x": (small_models.FLOAT, ["N", 3, 4, 4])},
        {"y": (small_models.FLOAT, ["N", 4, 4, 6])},
        {"w1": w1, "w2": small_models.numbers(2, 8, 6)},
    )


def test_outlier_channels_are_found_with_their_factor(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=small_models.numbers(3, 12, 3, 4, 4))
    opened = steps.open_document(outlier_net(tmp_path / "net.onnx"))
    config = opened.config.with_defaults(weight_per_channel=False)
    data = DataSettings(path=tmp_path / "data.npz", calibration_size=12)
    document = steps.calibrate(opened.with_config(config).with_data(data))
    found = steps.sensitivity(document).sensitivity.outliers  # type: ignore[union-attr]
    weight = next(item for item in found if item.weight)
    reach = np.abs(document.graph.constant(weight.tensor)).max(axis=(1, 2, 3))
    assert weight.layer == "conv"
    assert (weight.channel, weight.channels, weight.beyond) == (2, 8, 1)
    assert weight.factor == pytest.approx(reach[2] / np.median(reach), rel=1e-6)
    assert "per channel" in weight.advice
    activation = next(item for item in found if not item.weight)
    c = np.einsum("nihw,oi->nohw", small_models.numbers(3, 12, 3, 4, 4), _w1(document))
    reach = np.abs(c).max(axis=(0, 2, 3))
    assert activation.factor == pytest.approx(reach.max() / np.median(reach), rel=1e-4)
    assert list(found) == sorted(found, key=lambda item: -item.factor)


def _w1(document: Document) -> np.ndarray:
    return document.graph.constant("w1")[:, :, 0, 0]


def test_a_scale_for_each_channel_has_no_outliers(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=small_models.numbers(3, 12, 3, 4, 4))
    opened = steps.open_document(outlier_net(tmp_path / "net.onnx"))
    config = opened.config.with_defaults(weight_per_channel=True)
    data = DataSettings(path=tmp_path / "data.npz", calibration_size=12)
    document = opened.with_config(config).with_data(data)
    _, dataset, size = steps.document_data(document)
    found = outliers(
        document.graph,
        document.plan,
        dataset,
        batch_size=size,
        emit=silent,
        cancel=CancelToken(),
    )
    assert not any(item.weight for item in found)
