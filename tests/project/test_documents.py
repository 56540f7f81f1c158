"""Changing settings keeps what still holds and drops what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_models

from studio.errors import CancelledError, ConfigError, DataError
from studio.jobs.events import CancelToken, Event, Progress, Warned
from studio.project import steps
from studio.project.document import DataSettings, Document


@pytest.fixture
def document(tmp_path: Path) -> Document:
    opened = steps.open_document(small_models.conv_net(tmp_path / "net.onnx"))
    data = DataSettings(path=small_models.images(tmp_path / "images.npz"))
    return steps.evaluate(steps.calibrate(opened.with_data(data)))


def test_a_changed_layer_loses_its_encodings_and_those_that_follow_from_them(
    document: Document,
) -> None:
    changed = document.with_config(document.config.with_layers(["conv2"], weight_bits=4))
    lost = set(document.encodings) - set(changed.encodings)
    assert lost == {"w2"}
    assert all(changed.encodings[name] is document.encodings[name] for name in changed.encodings)
    assert changed.evaluation is None
    assert changed.export is None
    assert not changed.calibrated
    assert document.evaluation is not None
    assert document.calibrated


def test_a_bias_goes_with_its_weight_and_a_following_tensor_with_its_source(
    document: Document,
) -> None:
    wide = document.with_config(document.config.with_layers(["conv1"], weight_bits=4))
    assert set(document.encodings) - set(wide.encodings) == {"w1", "b1"}
    act = document.with_config(document.config.with_layers(["conv2"], act_bits=16))
    assert {"c2", "flat", "b3"} <= set(document.encodings) - set(act.encodings)


def test_new_encodings_need_no_data(document: Document) -> None:
    document.data.path.unlink()
    config = document.config.with_layers(["conv2"], weight_bits=4, act_bits=6)
    changed = steps.refresh_encodings(document.with_config(config))
    assert changed.calibrated
    assert changed.encodings["w2"].grid.bits == 4
    assert changed.encodings["c2"].grid.bits == 6
    assert changed.encodings["w1"] == document.encodings["w1"]


def test_switching_a_layer_on_later_needs_no_data(tmp_path: Path) -> None:
    opened = steps.open_document(small_models.conv_net(tmp_path / "net.onnx"))
    data = DataSettings(path=small_models.images(tmp_path / "images.npz"))
    off = opened.config.with_layers(["conv2"], act_enabled=False)
    calibrated = steps.calibrate(opened.with_config(off).with_data(data))
    assert "c2" not in calibrated.encodings
    data.path.unlink()
    on = calibrated.config.with_layers(["conv2"], act_enabled=None)
    assert steps.refresh_encodings(calibrated.with_config(on)).calibrated


def test_going_back_gives_the_same_document(document: Document) -> None:
    changed = document.with_config(document.config.with_defaults(weight_bits=4))
    back = steps.refresh_encodings(changed.with_config(document.config))
    assert back.encodings == document.encodings
    assert document.with_config(document.config) is document


def test_another_target_on_the_same_statistics(document: Document) -> None:
    changed = document.with_config(document.config.with_target("qualcomm-htp"))
    assert steps.refresh_encodings(changed).calibrated


def test_cancel_leaves_the_document_as_it_was(document: Document) -> None:
    before = dict(document.encodings)
    for step in (steps.calibrate, steps.evaluate):
        cancel = CancelToken()

        def stop(event: Event, token: CancelToken = cancel) -> None:
            if isinstance(event, Progress) and event.done:
                token.cancel()

        with pytest.raises(CancelledError):
            step(document, emit=stop, cancel=cancel)
    assert document.encodings == before


def test_steps_say_what_is_missing(tmp_path: Path) -> None:
    opened = steps.open_document(small_models.conv_net(tmp_path / "net.onnx"))
    with pytest.raises(DataError, match="No data"):
        steps.calibrate(opened)
    with pytest.raises(ConfigError, match="not calibrated"):
        steps.evaluate(opened)


def calibrate_fixed(tmp_path: Path, batch: int, count: int) -> tuple[Document, list[str]]:
    opened = steps.open_document(small_models.conv_net(tmp_path / "net.onnx", batch))
    data = DataSettings(path=small_models.images(tmp_path / "images.npz", count))
    warnings: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.message)

    return steps.evaluate(steps.calibrate(opened.with_data(data), emit=note)), warnings


def test_a_fixed_batch_size_leaves_out_what_does_not_fill_a_batch(tmp_path: Path) -> None:
    document, warnings = calibrate_fixed(tmp_path, 4, 22)
    assert document.calibration.samples == 20
    assert document.evaluation.samples == 20
    (warning,) = warnings
    assert "last 2" in warning
    free, none = calibrate_fixed(tmp_path, 1, 20)
    assert none == []
    assert free.encodings == document.encodings


def test_fewer_samples_than_the_fixed_batch_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"exactly 32 samples; images\.npz has 22") as caught:
        calibrate_fixed(tmp_path, 32, 22)
    assert "dynamic batch size" in caught.value.hint


def test_a_small_calibration_size_still_fills_one_batch(tmp_path: Path) -> None:
    opened = steps.open_document(small_models.conv_net(tmp_path / "net.onnx", 8))
    path = small_models.images(tmp_path / "images.npz", 22)
    data = DataSettings(path=path, calibration_size=3, evaluation_size=5)
    document = steps.evaluate(steps.calibrate(opened.with_data(data)))
    assert document.calibration.samples == 8
    assert document.evaluation.samples == 8


def test_statistics_of_a_fixed_batch_fit_a_small_memory_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = calibrate_fixed(tmp_path, 4, 8)
    from studio.runtime import budget

    original = budget.BudgetedReader.__init__
    monkeypatch.setattr(
        budget.BudgetedReader, "__init__", lambda self, s, n: original(self, s, n, 1)
    )
    small, _ = calibrate_fixed(tmp_path, 4, 8)
    assert small.encodings == expected.encodings
    assert small.evaluation == expected.evaluation


def test_random_data_is_the_same_each_time(tmp_path: Path) -> None:
    opened = steps.open_document(small_models.conv_net(tmp_path / "net.onnx"))
    random = opened.with_data(DataSettings(path=None, calibration_size=8))
    first, second = steps.calibrate(random), steps.calibrate(random)
    assert first.encodings == second.encodings
    assert first.calibration.synthetic
    assert np.isfinite([item.minimum for item in first.calibration.statistics.values()]).all()


def test_a_batch_size_of_minus_one_is_dynamic(tmp_path: Path) -> None:
    free, warnings = calibrate_fixed(tmp_path, -1, 22)
    assert free.calibration.samples == 22
    assert warnings == []
