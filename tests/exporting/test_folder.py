"""An exported folder read back, in every form the files can have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from exporting import conv_document

from studio.errors import ConfigError
from studio.exporting.folder import load_export
from studio.exporting.options import ExportOptions
from studio.project import steps
from studio.project.document import Document
from studio.project.load_encodings import load_encodings
from studio.sim.config import QuantConfig

CONFIGS = {
    "default": QuantConfig(),
    "mixed": QuantConfig()
    .with_layers(["conv1"], weight_bits=4, act_bits=16, weight_per_channel=False)
    .with_layers(["fc"], weight_bits=6, weight_symmetric=False),
    "strict": QuantConfig().with_defaults(weight_strict=True, act_symmetric=True),
    "blocks": QuantConfig().with_layers(["fc"], weight_bits=4, weight_block_size=8),
    "low-power": QuantConfig().with_layers(
        ["fc"], weight_bits=4, weight_block_size=8, weight_lpbq=True
    ),
    "float8": QuantConfig().with_layers(["fc"], weight_format="float8e4m3fn"),
}


def exported(document: Document, folder: Path, **options: object) -> Path:
    steps.export(document, folder, options=ExportOptions.model_validate(options))
    return folder


def same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, encoding in expected.items():
        assert found[name] == encoding, name


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0", "2.1.0"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_encodings_come_back(kind: str, version: str, tmp_path: Path) -> None:
    document = conv_document(tmp_path, CONFIGS[kind])
    if kind == "float8" and version in ("0.6.1", "1.0.0"):
        return  # those have no entry for it, see test_encodings_versions
    folder = exported(document, tmp_path / "out", encodings_versions=(version,))
    assert json.loads((folder / "model.encodings").read_text("utf-8"))["version"] == version
    _, plan, encodings = load_export(folder, document.config)
    assert plan.tensors == document.plan.tensors
    if kind == "low-power" and version == "0.6.1":  # written as plain blocks there
        for name, encoding in document.encodings.items():
            np.testing.assert_array_equal(encodings[name].scale, encoding.scale)
        return
    same(encodings, dict(document.encodings))


@pytest.mark.parametrize("version", ["1.0.0", "2.1.0"])
def test_a_model_that_follows_a_file_comes_back(version: str, tmp_path: Path) -> None:
    document = conv_document(tmp_path, CONFIGS["mixed"])
    first = exported(document, tmp_path / "first", encodings_versions=(version,))
    plain = steps.open_document(tmp_path / "net.onnx").with_data(document.data)
    loaded, _ = load_encodings(plain, first / "model.encodings")
    second = exported(loaded, tmp_path / "second", encodings_versions=(version,))
    one, two = (
        json.loads((folder / "model.encodings").read_text("utf-8")) for folder in (first, second)
    )
    for key in ("encodings", "activation_encodings", "param_encodings"):
        assert one.get(key) == two.get(key)
    _, _, encodings = load_export(second, loaded.config, from_file=True)
    for name, encoding in document.encodings.items():
        np.testing.assert_array_equal(encodings[name].scale, encoding.scale)


def test_rounded_float_weights_come_back(tmp_path: Path) -> None:
    document = conv_document(tmp_path)
    folder = exported(document, tmp_path / "out", float_weights="rounded")
    graph, _, encodings = load_export(folder, document.config)
    same(encodings, dict(document.encodings))
    weight = document.encodings["w1"].quantize_dequantize(document.graph.constant("w1"))
    np.testing.assert_array_equal(graph.constant("w1"), weight)


def test_all_files_at_once(tmp_path: Path) -> None:
    document = conv_document(tmp_path)
    folder = exported(
        document,
        tmp_path / "out",
        state_dict=True,
        exported_program=True,
        encodings_versions=("2.0.0", "0.6.1"),
    )
    names = {path.name for path in folder.iterdir()}
    assert {"model.pt2", "model_state_dict.safetensors", "model_0.6.1.encodings"} <= names


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("scores", "nobody"), "nobody"),
        (('"int8"', '"int6"'), "int6"),
        (('"uint8"', '"word8"'), "word8"),
        (("2.0.0", "9.0.0"), "9.0.0"),
    ],
)
def test_files_that_do_not_belong_together(
    change: tuple[str, str], says: str, tmp_path: Path
) -> None:
    document = conv_document(tmp_path)
    folder = exported(document, tmp_path / "out", encodings_versions=("2.0.0",))
    path = folder / "model.encodings"
    path.write_text(path.read_text("utf-8").replace(*change), "utf-8")
    with pytest.raises(ConfigError, match=says):
        load_export(folder, document.config)
    path.unlink()
    with pytest.raises(ConfigError, match=r"no model\.encodings"):
        load_export(folder, document.config)


def test_a_weight_that_the_file_stores_the_other_way_round(tmp_path: Path) -> None:
    """MatMulNBits has no transposed Gemm: the encodings are those of the float model's weight."""
    config = QuantConfig().with_layers(["fc"], weight_bits=4, weight_block_size=16)
    document = conv_document(tmp_path, config)
    folder = exported(document, tmp_path / "out", format="weight-only")
    assert "MatMulNBits" in [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    (name,) = document.plan.layer("fc").weights
    graph, _, encodings = load_export(folder, config, from_file=True)
    assert encodings[name] == document.encodings[name]
    np.testing.assert_array_equal(graph.constant(name), document.graph.constant(name))
