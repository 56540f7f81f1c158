"""Techniques that change the graph, from the command line, in recipes and in projects."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cli_run import Cli

sys.path.append(str(Path(__file__).parents[1] / "ptq"))
from chain_models import bottlenecks

from studio.analysis.evaluate import simulated_session
from studio.graph.additions import additions_of
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.project.store import load_project, save_project
from studio.project.techniques import apply_technique, parse_options

IMPROVE = ("equalization", "absorption:deviations=2", "bias_correction")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.onnx, two bottlenecks with Clips between, and samples for it."""
    path = tmp_path_factory.mktemp("improve")
    onnx.save(bottlenecks(0, 1.0, "Clip06").model(), path / "net.onnx")
    data = np.random.default_rng(0).standard_normal((24, 3, 6, 6)).astype(np.float32)
    np.savez(path / "data.npz", x=data)
    return path


def test_a_recipe_replays_to_the_same_numbers(cli: Cli, folder: Path, tmp_path: Path) -> None:
    words = [word for step in IMPROVE for word in ("--improve", step)]
    source = [folder / "net.onnx", "--data", folder / "data.npz", "--per-tensor", *words]
    first = cli("quantize", *source, "--out", tmp_path / "one", "--json")
    assert first.code == 0, first.err
    again = cli("run", tmp_path / "one/recipe.json", "--out", tmp_path / "two", "--json")
    assert again.code == 0, again.err
    for name in ("model.onnx", "model.encodings", "model_float.onnx"):
        one, two = ((tmp_path / out / name).read_bytes() for out in ("one", "two"))
        assert one == two, name
    recipe = json.loads((tmp_path / "one/recipe.json").read_text("utf-8"))
    applied = [step["technique"] for step in recipe["steps"] if isinstance(step, dict)]
    assert applied == [step.partition(":")[0] for step in IMPROVE]
    exported = onnx.load(tmp_path / "one/model.onnx")
    assert sum(node.op_type == "Min" for node in exported.graph.node) == 4
    assert first.json["export"]["verification"]["passed"]


def outputs(document: Document, folder: Path) -> np.ndarray:
    session = simulated_session(document.graph, document.plan, document.encodings)
    data = {"x": np.load(folder / "data.npz")["x"]}
    return next(iter(session.run(data).values()))


def test_a_project_opens_as_it_was_saved(folder: Path, tmp_path: Path) -> None:
    document = steps.open_document(folder / "net.onnx")
    document = document.with_config(document.config.with_defaults(weight_per_channel=False))
    document = steps.calibrate(document.with_data(DataSettings(path=folder / "data.npz")))
    for step in ("equalization", "bias_correction"):
        document = apply_technique(document, step, parse_options(step, {}))
    path = tmp_path / "net.qstudio"
    save_project(document, path)
    opened = load_project(path)
    assert opened.encodings == document.encodings
    assert opened.plan == document.plan
    assert opened.applied == document.applied
    np.testing.assert_array_equal(outputs(opened, folder), outputs(document, folder))
    before, after = additions_of(document.graph), additions_of(opened.graph)
    assert len(before.clips) == 4
    assert before.clips.keys() == after.clips.keys()
    assert not additions_of(opened.original)
    # Going on from there: the next technique finds what the last one left.
    once_more = [
        apply_technique(item, "equalization", parse_options("equalization", {}))
        for item in (document, opened)
    ]
    assert once_more[0].encodings == once_more[1].encodings
    save_project(once_more[1], path)
    np.testing.assert_array_equal(
        outputs(load_project(path), folder), outputs(once_more[0], folder)
    )


def test_the_float_model_is_measured_as_it_was_opened(folder: Path) -> None:
    document = steps.open_document(folder / "net.onnx")
    document = steps.calibrate(document.with_data(DataSettings(path=folder / "data.npz")))
    session = ort.InferenceSession(str(folder / "net.onnx"))
    data = {"x": np.load(folder / "data.npz")["x"]}
    (expected,) = session.run(None, data)
    improved = apply_technique(document, "equalization", parse_options("equalization", {}))
    assert improved.original is document.graph
    quality = steps.evaluate(improved).evaluation
    assert quality is not None
    found = outputs(improved, folder)
    sqnr = 10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum())
    assert quality.output.sqnr_db == pytest.approx(float(sqnr), abs=0.05)
