"""An export is all or nothing, and its files compute what NumPy computes from their numbers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import small_models
from exporting import calibrated, constants, conv_document, export

from studio.errors import CancelledError, ConfigError, ExportError
from studio.jobs.events import CancelToken, Event, Progress
from studio.project import steps
from studio.project.document import Document
from studio.sim.config import QuantConfig
from studio.whole_files import staged_folder, write_text

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_and_raise(folder: Path, error: BaseException) -> None:
    with staged_folder(folder) as staging:
        (staging / "a").write_text("half")
        raise error


def write_all(folder: Path, names: str) -> None:
    with staged_folder(folder) as staging:
        for name in names:
            (staging / name).write_text(f"new {name}")


def test_staged_files_arrive_together(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with staged_folder(folder) as staging:
        (staging / "a").write_text("1")
        assert not (folder / "a").exists()
        (staging / "b").write_text("2")
    assert content(folder) == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("error", [ValueError("x"), CancelledError(), KeyboardInterrupt(), FULL])
def test_nothing_is_left_after_a_failure(tmp_path: Path, error: BaseException) -> None:
    folder = tmp_path / "out"
    expected = ExportError if error is FULL else type(error)
    with pytest.raises(expected):
        write_and_raise(folder, error)
    assert not folder.exists()


def test_foreign_and_earlier_files_survive_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="x"):
        write_and_raise(tmp_path, ValueError("x"))
    assert content(tmp_path) == {"a": b"old", "notes.txt": b"mine"}


def test_a_disk_that_fills_while_files_move_leaves_the_earlier_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (tmp_path / name).write_text(f"old {name}")
    real = os.replace
    moves: list[Any] = []

    def replace(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == 4:
            raise FULL
        real(source, target)

    monkeypatch.setattr("studio.whole_files.os.replace", replace)
    with pytest.raises(ExportError, match="Cannot write"):
        write_all(tmp_path, "abcd")
    assert content(tmp_path) == {name: f"old {name}".encode() for name in "abc"}


def test_write_text_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.qstudio"
    write_text(path, "old")

    def fail(*_: Any) -> None:
        raise FULL

    monkeypatch.setattr("studio.whole_files.os.replace", fail)
    with pytest.raises(ExportError) as caught:
        write_text(path, "new")
    assert "disk is full" in caught.value.hint
    assert content(tmp_path) == {"p.qstudio": b"old"}


@pytest.fixture
def document(tmp_path: Path) -> Document:
    return conv_document(tmp_path)


def run_until(stop: Callable[[Progress], bool], action: Callable[[], None]) -> Any:
    def emit(event: Event) -> None:
        if isinstance(event, Progress) and stop(event):
            action()

    return emit


@pytest.mark.parametrize("phase", ["Exporting", "Verifying"])
def test_cancel_in_the_middle(tmp_path: Path, document: Document, phase: str) -> None:
    cancel = CancelToken()
    emit = run_until(lambda event: event.phase == phase, cancel.cancel)
    with pytest.raises(CancelledError):
        export(document, tmp_path / "out", emit, cancel)
    assert not (tmp_path / "out").exists()


def test_an_export_replaces_an_earlier_one_and_keeps_foreign_files(
    tmp_path: Path, document: Document
) -> None:
    out = tmp_path / "out"
    export(document, out)
    (out / "notes.txt").write_text("mine")
    first = content(out)
    narrow = steps.refresh_encodings(
        document.with_config(document.config.with_defaults(weight_bits=4))
    )
    export(narrow, out)
    second = content(out)
    assert first.keys() == second.keys()
    assert second["notes.txt"] == b"mine"
    assert first["model.onnx"] != second["model.onnx"]
    assert first["model_float.onnx"] == second["model_float.onnx"]


def test_the_summary_names_the_written_files(tmp_path: Path, document: Document) -> None:
    summary = export(document, tmp_path / "out").export
    assert summary is not None
    assert summary.verification is not None
    assert summary.verification.passed
    assert summary.warnings == ()
    assert {a.name: a.bytes for a in summary.artifacts} == {
        name: len(data) for name, data in content(tmp_path / "out").items()
    }


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_narrow_weights_are_said_to_be_stored_in_eight_bits(tmp_path: Path, bits: int) -> None:
    config = QuantConfig().with_layers(["conv2"], weight_bits=bits)
    summary = export(conv_document(tmp_path, config), tmp_path / "out").export
    assert summary is not None
    (warning,) = summary.warnings
    assert warning.startswith(f"{bits}-bit weights are stored in 8 bits")


def test_exporting_before_calibration(tmp_path: Path, document: Document) -> None:
    with pytest.raises(ConfigError, match="not calibrated"):
        export(steps.open_document(document.graph.source.path), tmp_path / "out")


def test_the_file_runs_alone_and_its_integers_are_numpys(tmp_path: Path) -> None:
    model = small_models.linear(tmp_path / "linear.onnx")
    x = small_models.numbers(30, 16, 4)
    export(calibrated(model, {"x": x}), tmp_path / "out")
    path = tmp_path / "out" / "model.onnx"
    onnx.checker.check_model(onnx.load(path), full_check=True)
    stored = constants(path)
    weight = np.sort([n for n in stored if n.endswith("_quantized")])
    w_int = next(stored[n] for n in weight if stored[n].dtype == np.int8)
    b_int = next(stored[n] for n in weight if stored[n].dtype == np.int32)
    w_scale = stored[next(n for n in weight if stored[n].dtype == np.int8)[:-9] + "scale"]
    x_scale, x_zero = stored["x_scale"], stored["x_zero_point"]
    y_scale, y_zero = stored["scores_scale"], stored["scores_zero_point"]
    # The weights are the float model's, divided by their scale per output channel.
    original = small_models.numbers(6, 4, 3)
    if w_int.shape == (3, 4):
        original = original.T
        expected = np.rint(original / w_scale[:, None])
        w_real = w_int.astype(np.float32) * w_scale[:, None]
        w_real = w_real.T
    else:
        expected = np.rint(original / w_scale)
        w_real = w_int.astype(np.float32) * w_scale
    np.testing.assert_array_equal(w_int, np.clip(expected, -128, 127))
    np.testing.assert_array_equal(
        b_int, np.rint(small_models.numbers(7, 3) / (x_scale * w_scale)).astype(np.int32)
    )
    # The same arithmetic in NumPy, in float64 between the roundings.
    x_int = np.clip(np.rint(x / x_scale) + x_zero, 0, 255)
    real = ((x_int - x_zero) * float(x_scale)) @ w_real + b_int * (x_scale * w_scale)
    y_int = np.clip(np.rint(real / y_scale) + y_zero, 0, 255)
    for level in (
        ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ):
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        (y,) = ort.InferenceSession(str(path), options).run(["scores"], {"x": x})
        np.testing.assert_array_equal(np.rint(y / y_scale) + y_zero, y_int)


MODELS: dict[str, tuple[Callable[[Path], Path], dict[str, np.ndarray]]] = {
    "two inputs, two outputs": (
        small_models.two_by_two,
        {"left": small_models.numbers(1, 9, 4), "right": small_models.numbers(2, 9, 4)},
    ),
    "tokens": (
        small_models.transformer,
        {"tokens": np.random.default_rng(0).integers(0, 11, (9, 6))},
    ),
    "tokens, batch 4": (
        lambda path: small_models.transformer(path, 4),
        {"tokens": np.random.default_rng(0).integers(0, 11, (9, 6))},
    ),
    "a map": (small_models.pixel_map, {"x": small_models.numbers(3, 9, 3, 6, 6)}),
    "batch 1": (
        lambda path: small_models.conv_net(path, 1),
        {"x": small_models.numbers(3, 9, 3, 6, 6)},
    ),
    "batch 4": (
        lambda path: small_models.conv_net(path, 4),
        {"x": small_models.numbers(3, 9, 3, 6, 6)},
    ),
    "the input itself": (small_models.identity, {"x": small_models.numbers(4, 9, 4)}),
    "nothing to quantize": (small_models.integer_only, {"tokens": np.ones((9, 6), np.int64)}),
}


@pytest.mark.parametrize("target", ["onnxruntime", "qualcomm-htp"])
@pytest.mark.parametrize("kind", MODELS)
def test_models_of_all_kinds(tmp_path: Path, kind: str, target: str) -> None:
    make, arrays = MODELS[kind]
    document = calibrated(make(tmp_path / "net.onnx"), arrays, QuantConfig(target=target))
    done = export(steps.evaluate(document), tmp_path / "out")
    assert done.export is not None
    verification = done.export.verification
    assert verification is not None
    assert verification.passed, verification.problem
    samples = 8 if "batch 4" in kind else 9
    assert verification.samples == samples
    assert done.evaluation is not None
    assert done.evaluation.samples == samples
    assert done.evaluation.output.sqnr_db > 15
    before = ort.InferenceSession(str(tmp_path / "net.onnx"))
    after = ort.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    assert [i.name for i in before.get_inputs()] == [i.name for i in after.get_inputs()]
    assert [o.name for o in before.get_outputs()] == [o.name for o in after.get_outputs()]
    size = {"batch 1": 1}.get(kind, 4)
    feed = {name: array[:size] for name, array in arrays.items()}
    for expected, actual in zip(before.run(None, feed), after.run(None, feed), strict=True):
        noise = np.linalg.norm((expected - actual).astype(float))
        assert noise <= 0.2 * np.linalg.norm(expected.astype(float))
