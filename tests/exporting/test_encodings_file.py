"""The encodings an export writes: AIMET's 1.0.0 layout and sign convention, its own numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_models
from exporting import calibrated, constants, conv_document, export
from onnx import helper

from studio.exporting.encodings import encodings_document, file_of, read_encodings
from studio.project.document import Document
from studio.quant.grid import Grid
from studio.sim.config import QuantConfig
from studio.sim.plan import Role

DATA = Path(__file__).parent / "data"
"""Files written by aimet-torch 2.42.0 for the net of `reference_net`, min-max: W8A8, and with the
last weight at 4 bits in blocks of 16 (`bq_fc`)."""

SAMPLE: dict[str, Any] = json.loads((DATA / "w8a8_minmax_v100.encodings").read_text("utf-8"))


def parameter(index: int, *shape: int) -> np.ndarray:
    n = np.arange(np.prod(shape))
    return (np.sin(0.7 * n + index) * (0.05 + 0.02 * (n % 7))).astype(np.float32).reshape(shape)


def reference_net(path: Path) -> Path:
    """The net the sample was made from, with the sample's tensor names."""
    return small_models.build(
        path,
        [
            helper.make_node(
                "Conv", ["input", "conv1.weight", "conv1.bias"], ["c1"], "conv1", pads=[1, 1, 1, 1]
            ),
            helper.make_node("Relu", ["c1"], ["/relu1/Relu_output_0"], "relu1"),
            helper.make_node(
                "Conv",
                ["/relu1/Relu_output_0", "conv2.weight", "conv2.bias"],
                ["/conv2/Conv_output_0"],
                "conv2",
            ),
            helper.make_node("Flatten", ["/conv2/Conv_output_0"], ["/flat/Flatten_output_0"], "f"),
            helper.make_node(
                "Gemm",
                ["/flat/Flatten_output_0", "fc.weight", "fc.bias"],
                ["output"],
                "fc",
                transB=1,
            ),
        ],
        {"input": (small_models.FLOAT, ["N", 2, 4, 4])},
        {"output": (small_models.FLOAT, ["N", 3])},
        {
            "conv1.weight": parameter(1, 4, 2, 3, 3),
            "conv1.bias": parameter(2, 4),
            "conv2.weight": parameter(3, 4, 4, 1, 1),
            "conv2.bias": parameter(4, 4),
            "fc.weight": parameter(5, 3, 64),
            "fc.bias": parameter(6, 3),
        },
    )


@pytest.fixture
def reference(tmp_path: Path) -> Document:
    config = QuantConfig().with_defaults(act_observer="minmax")
    return calibrated(reference_net(tmp_path / "net.onnx"), {"input": samples()}, config)


def samples() -> np.ndarray:
    """What the samples of AIMET were calibrated on."""
    cosine = np.cos(0.37 * np.arange(64)).astype(np.float32).reshape(2, 2, 4, 4)
    return (2 * cosine + np.float32(0.3)).astype(np.float32)


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


def test_encodings_of_weights_and_input_are_aimets(reference: Document) -> None:
    document = encodings_document(reference.plan, reference.encodings)
    ours = by_name(document["param_encodings"])
    for expected in SAMPLE["param_encodings"]:
        found = ours[expected["name"]]
        np.testing.assert_allclose(found["scale"], expected["scale"], rtol=1e-6)
        assert {**found, "scale": 0} == {**expected, "scale": 0}
    found = by_name(document["activation_encodings"])["input"]
    expected = SAMPLE["activation_encodings"][0]
    np.testing.assert_allclose(found["scale"], expected["scale"], rtol=1e-6)
    assert {**found, "scale": 0} == {**expected, "scale": 0}


def test_activations_differ_from_aimets_by_its_rounded_weights_only(reference: Document) -> None:
    """AIMET calibrates behind quantize-dequantized weights, we behind the float ones."""
    ours = by_name(encodings_document(reference.plan, reference.encodings)["activation_encodings"])
    for expected in SAMPLE["activation_encodings"]:
        found = ours[expected["name"]]
        assert found["scale"] == pytest.approx(expected["scale"], rel=0.01)
        assert found["offset"][0] == pytest.approx(expected["offset"][0], abs=1)


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0", "2.1.0"])
def test_activations_behind_rounded_weights_are_aimets(
    reference: Document, version: str, tmp_path: Path
) -> None:
    """Calibrated behind weights that are rounded already, as AIMET does it."""
    model = onnx.load(reference_net(tmp_path / "again.onnx"))
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight"):
            array = onnx.numpy_helper.to_array(tensor)
            rounded = reference.encodings[tensor.name].quantize_dequantize(array)
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
    onnx.save(model, tmp_path / "rounded.onnx")
    config = QuantConfig().with_defaults(act_observer="minmax")
    behind = calibrated(tmp_path / "rounded.onnx", {"input": samples()}, config)
    ours = file_of(behind.plan, {**behind.encodings, **weights_of(reference)}, version)
    names = ["", "_v061", "_v100", "_v200", "_v210"]
    digits = names[["", "0.6.1", "1.0.0", "2.0.0", "2.1.0"].index(version)]
    theirs = read_encodings(DATA / f"w8a8_minmax{digits}.encodings")
    compared = [name for name in theirs.encodings if not name.endswith(".bias")]
    assert set(compared) <= set(ours.encodings)
    for name in compared:
        found, expected = ours.encodings[name], theirs.encodings[name]
        np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-6)
        np.testing.assert_array_equal(found.zero_point, expected.zero_point)
        assert found.grid.bits == expected.grid.bits
        assert found.grid.signed == expected.grid.signed


def weights_of(document: Document) -> dict[str, Any]:
    return {n: e for n, e in document.encodings.items() if n.endswith(".weight")}


def kinds(value: Any) -> Any:
    """Keys and types, the first element standing for a list."""
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [kinds(value[0])] if value else []
    return type(value)


def test_the_written_file_has_the_samples_keys_and_types(
    reference: Document, tmp_path: Path
) -> None:
    export(reference, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "model.encodings").read_text("utf-8"))
    assert kinds(written) == kinds(SAMPLE)
    for key in ("version", "quantizer_args"):
        found, expected = written[key], SAMPLE[key]
        if key == "quantizer_args":
            found = {**found, "quant_scheme": expected["quant_scheme"]}
        assert found == expected


@pytest.fixture(params=["default", "mixed", "symmetric", "qualcomm"])
def document(tmp_path: Path, request: pytest.FixtureRequest) -> Document:
    config = {
        "default": QuantConfig(),
        "mixed": QuantConfig()
        .with_layers(["conv1"], weight_bits=4, act_bits=16, weight_per_channel=False)
        .with_layers(["fc"], weight_bits=6, weight_symmetric=False, act_bits=5)
        .with_layers(["conv2"], weight_enabled=False),
        "symmetric": QuantConfig().with_defaults(act_symmetric=True),
        "qualcomm": QuantConfig(target="qualcomm-htp").with_defaults(act_bits=16, weight_bits=4),
    }[request.param]
    return export(conv_document(tmp_path, config), tmp_path / "out")


def entries(document: Document) -> dict[str, dict[str, Any]]:
    written = json.loads((document.export.folder / "model.encodings").read_text("utf-8"))
    return by_name([*written["activation_encodings"], *written["param_encodings"]])


def test_one_entry_for_each_quantized_tensor_under_its_name_in_the_float_model(
    document: Document,
) -> None:
    rows = document.plan.tensors
    assert set(entries(document)) == {
        name for name in document.plan.quantized if rows[name].role is not Role.BIAS
    }
    graph = onnx.load(document.export.folder / "model_float.onnx").graph
    tensors = {value.name for value in graph.input} | {value.name for value in graph.initializer}
    tensors |= {name for node in graph.node for name in node.output}
    assert set(entries(document)) <= tensors


def test_scale_and_offset_are_those_of_the_quantized_model(document: Document) -> None:
    stored = constants(document.export.folder / "model.onnx")
    for name, entry in entries(document).items():
        np.testing.assert_array_equal(
            np.float32(entry["scale"]), stored[f"{name}_scale"].reshape(-1)
        )
        signed = document.encodings[name].grid.signed
        lowest = -(2 ** (entry["bw"] - 1)) if signed else 0
        zero_point = stored[f"{name}_zero_point"].reshape(-1).astype(np.int64)
        np.testing.assert_array_equal(entry["offset"], lowest - zero_point)


def test_real_numbers_follow_from_scale_and_offset(document: Document) -> None:
    """real = (q + offset) * scale with q from 0 to 2**bw - 1."""
    for name, entry in entries(document).items():
        encoding = document.encodings[name]
        scale, offset = np.float64(entry["scale"]), np.int64(entry["offset"])
        np.testing.assert_allclose(offset * scale, encoding.minimum.reshape(-1), rtol=1e-12)
        highest = (2 ** entry["bw"] - 1 + offset) * scale
        np.testing.assert_allclose(highest, encoding.maximum.reshape(-1), rtol=1e-12)
        if entry["is_sym"]:
            lowest = isinstance(encoding.grid, Grid) and encoding.grid.unsigned_symmetric
            middle = -(2 ** (entry["bw"] - 1))
            assert set(entry["offset"]) <= ({0, middle} if lowest else {middle})
