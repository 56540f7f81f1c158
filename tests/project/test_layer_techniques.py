"""Techniques that choose ranges, round weights or smooth inputs: kept by projects and recipes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))
from small_models import transformer

from studio.graph.additions import additions_of
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.project.store import load_project, save_project
from studio.project.techniques import apply_technique, parse_options

NAMES = ("sequential_mse", "gptq", "smoothquant")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Document:
    folder = tmp_path_factory.mktemp("transformer")
    document = steps.open_document(transformer(folder / "model.onnx"))
    tokens = np.random.default_rng(0).integers(0, 11, (32, 6))
    np.savez(folder / "tokens.npz", tokens=tokens)
    document = document.with_config(document.config.with_defaults(weight_bits=4))
    data = DataSettings(path=folder / "tokens.npz", calibration_size=32)
    return steps.calibrate(document.with_data(data))


def numbers(document: Document) -> float:
    evaluation = steps.evaluate(document).evaluation
    assert evaluation is not None
    return evaluation.output.sqnr_db


@pytest.mark.parametrize("name", NAMES)
def test_a_project_opens_as_it_was(name: str, calibrated: Document, tmp_path: Path) -> None:
    changed = apply_technique(calibrated, name, parse_options(name, {}))
    assert changed.applied[0].rows
    path = tmp_path / "model.qstudio"
    save_project(changed, path)
    opened = load_project(path)
    assert opened.encodings == changed.encodings
    assert opened.applied == changed.applied
    nodes = [[node.name for node in item.graph.nodes()] for item in (opened, changed)]
    assert nodes[0] == nodes[1]
    assert numbers(opened) == numbers(changed)
    if name == "smoothquant":
        assert additions_of(opened.graph).scales


@pytest.mark.parametrize("name", NAMES)
def test_again_gives_the_same(name: str, calibrated: Document) -> None:
    first, second = (apply_technique(calibrated, name, parse_options(name, {})) for _ in range(2))
    assert first.encodings == second.encodings
    for constant in first.tuned:
        np.testing.assert_array_equal(
            first.graph.constant(constant), second.graph.constant(constant)
        )
