"""Verification notices a file that is not what was simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exporting import change_constant, constants, conv_document, export
from onnx import helper
from small_models import FLOAT, INT64, build, numbers

import studio
from studio.errors import ConfigError
from studio.exporting.folder import load_export
from studio.exporting.summary import Verification
from studio.exporting.verify import verify
from studio.jobs.events import CancelToken, silent
from studio.project.document import Document
from studio.sim.config import QuantConfig


@pytest.fixture
def document(tmp_path: Path) -> Document:
    return export(conv_document(tmp_path), tmp_path / "out")


def verified(document: Document) -> Verification:
    assert document.export is not None
    batches = [{"x": np.load(document.data.path)["x"]}]
    return verify(
        document.graph,
        document.plan,
        document.encodings,
        document.export.folder / "model.onnx",
        batches,
        12,
        emit=silent,
        cancel=CancelToken(),
    )


def test_an_untouched_file_passes(document: Document) -> None:
    result = verified(document)
    assert result.passed
    assert result.problem == ""
    assert result.samples == 12
    assert {check.layer for check in result.layers} == {
        layer.name for layer in document.plan.layers
    }
    assert result.identical > 0.99
    assert result.integer_nodes == 3
    assert result.plain.agreement == 100


@pytest.mark.parametrize(
    "suffix", ["w1_quantized", "x_scale", "x_zero_point", "_scale", "b1_quantized"]
)
def test_one_changed_number_is_found(document: Document, suffix: str) -> None:
    path = document.export.folder / "model.onnx"
    name, values = next(
        (name, array) for name, array in constants(path).items() if name.endswith(suffix)
    )
    changed = values.copy().reshape(-1)
    changed[0] = changed[0] * 1.001 if changed.dtype.kind == "f" else changed[0] ^ 1
    change_constant(path, name, changed.reshape(values.shape))
    result = verified(document)
    assert not result.passed
    assert result.different_constants == (name,)
    assert name in result.problem


def test_a_clip_bound_changed_shows_in_the_layers(tmp_path: Path) -> None:
    document = export(
        conv_document(tmp_path, QuantConfig().with_defaults(act_bits=4)), tmp_path / "out"
    )
    path = document.export.folder / "model.onnx"
    change_constant(path, "scores_clip_max", np.array(9, np.uint8))
    result = verified(document)
    assert result.different_constants == ()
    assert result.largest > 1
    assert "fc" in result.problem


def test_the_folder_reads_back_as_it_was(document: Document) -> None:
    graph, plan, encodings = load_export(document.export.folder, document.config)
    assert encodings == document.encodings
    assert plan == document.plan
    assert list(graph.initializers) == list(document.graph.initializers)


def test_another_configuration_does_not_fit_the_folder(document: Document) -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        load_export(document.export.folder, document.config.with_defaults(weight_bits=4))
    with pytest.raises(ConfigError, match="leave it float"):
        load_export(document.export.folder, document.config.with_defaults(act_enabled=False))


def test_layers_that_read_sequences_are_left_out(tmp_path: Path) -> None:
    path = build(
        tmp_path / "sequence.onnx",
        [
            helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], "split", axis=1),
            helper.make_node("SequenceLength", ["parts"], ["count"], "length"),
            helper.make_node("ConcatFromSequence", ["parts"], ["whole"], "join", axis=1),
            helper.make_node("Sigmoid", ["whole"], ["y"], "sigmoid"),
        ],
        {"x": (FLOAT, ["N", 6])},
        {"y": (FLOAT, ["N", 6]), "count": (INT64, [])},
        {"sizes": np.array([2, 4])},
    )
    sim = studio.QuantSim(studio.open_model(path)).calibrate(numbers(0, 8, 6))
    verification = studio.export(sim, tmp_path / "out").verification
    assert verification is not None
    assert verification.passed
    checked = [check.layer for check in verification.layers]
    assert "sigmoid" in checked
    assert "join" not in checked
