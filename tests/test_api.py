"""The Python API, as its docstring shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import quantized_models
import small_models
import torch

import studio
from studio.cli import main
from studio.errors import ConfigError, ConsentRequiredError, DataError, ModelError
from studio.resource_files import resource

BATCHES = [small_models.numbers(seed, 4, 3, 6, 6) for seed in range(3)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_models.conv_net(tmp_path / "model.onnx")


def calibrated(model: Path, data: Any, **config: Any) -> studio.QuantSim:
    return studio.QuantSim(studio.open_model(model), studio.QuantConfig(**config)).calibrate(data)


def run(path: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options).run(None, feed)


def test_the_example_of_the_docstring(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line[4:] for line in studio.__doc__.splitlines() if line.startswith("    ")]
    names: dict[str, Any] = {"studio": studio, "batches": BATCHES, "x": BATCHES[0]}
    exec("\n".join(lines), names)
    assert names["y"].shape == (4, 5)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.onnx", "model_float.onnx", "model.encodings", "report.html"} <= written


def test_every_public_name_is_there() -> None:
    assert all(getattr(studio, name) for name in studio.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = studio.nothing


@pytest.mark.parametrize(
    "data",
    [
        BATCHES,
        np.concatenate(BATCHES),
        torch.from_numpy(np.concatenate(BATCHES)),
        [torch.from_numpy(batch) for batch in BATCHES],
        [{"x": batch} for batch in BATCHES],
        {"x": np.concatenate(BATCHES)},
        np.concatenate(BATCHES).astype(np.float64),
    ],
)
def test_all_kinds_of_calibration_data_give_the_same_encodings(model: Path, data: Any) -> None:
    expected = calibrated(model, np.concatenate(BATCHES)).encodings
    assert calibrated(model, data).encodings == expected
    assert calibrated(model, (batch for batch in BATCHES)).encodings == expected


def test_a_data_loader_of_torch(model: Path) -> None:
    samples = torch.from_numpy(np.concatenate(BATCHES))
    loader = torch.utils.data.DataLoader(samples, batch_size=5)
    assert calibrated(model, loader).encodings == calibrated(model, BATCHES).encodings


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"target": "qualcomm-htp"},
        {"defaults": {"weight_bits": 4, "act_bits": 16}},
        {"defaults": {"act_bits": 5, "act_symmetric": True}},
    ],
)
def test_calling_is_what_the_exported_file_computes(
    model: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    sim = calibrated(model, BATCHES, **config)
    summary = studio.export(sim, tmp_path / "out")
    assert summary.verification.passed
    x = small_models.numbers(9, 6, 3, 6, 6)
    (expected,) = run(tmp_path / "out" / "model.onnx", {"x": x})
    step = float(sim.encodings["scores"].scale)
    difference = np.abs(sim(x) - expected) / step
    assert difference.max() <= 1 + 1e-3
    assert (difference < 0.01).mean() > 0.9
    y = sim(torch.from_numpy(x))
    assert isinstance(y, torch.Tensor)
    np.testing.assert_array_equal(y.numpy(), sim(x))


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    path = small_models.two_by_two(tmp_path / "two.onnx")
    feed = {"left": small_models.numbers(1, 9, 4), "right": small_models.numbers(2, 9, 4)}
    sim = calibrated(path, feed)
    studio.export(sim, tmp_path / "out")
    total, product = sim(feed)
    for found, expected in zip(
        (total, product), run(tmp_path / "out" / "model.onnx", feed), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(DataError, match="'right'"):
        sim(feed["left"])


def test_a_model_with_nothing_to_quantize(tmp_path: Path) -> None:
    tokens = np.arange(12).reshape(2, 6)
    sim = calibrated(small_models.integer_only(tmp_path / "int.onnx"), tokens)
    np.testing.assert_array_equal(sim(tokens), tokens + 1)


def test_a_fixed_batch_size(tmp_path: Path) -> None:
    path = small_models.conv_net(tmp_path / "four.onnx", 4)
    sim = calibrated(path, small_models.numbers(1, 10, 3, 6, 6))
    assert sim(BATCHES[0]).shape == (4, 5)
    assert studio.export(sim, tmp_path / "out").verification.samples == 8


def test_before_calibration(model: Path, tmp_path: Path) -> None:
    sim = studio.QuantSim(studio.open_model(model))
    assert sim.plan.tensors["w1"].spec.grid.bits == 8
    with pytest.raises(ConfigError, match="not calibrated"):
        sim(BATCHES[0])
    with pytest.raises(ConfigError, match="not calibrated"):
        studio.export(sim, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "data",
    [
        [],
        np.zeros((0, 3, 6, 6), np.float32),
        np.zeros((4, 3, 5, 6), np.float32),
        np.full((4, 3, 6, 6), np.nan, np.float32),
        [np.zeros((4, 3, 6, 6), np.float32), np.zeros((4, 3, 7, 6), np.float32)],
        {"y": BATCHES[0]},
        np.float32(3),
        7,
        "images",
    ],
)
def test_data_that_cannot_be_used(model: Path, data: Any) -> None:
    sim = studio.QuantSim(studio.open_model(model))
    with pytest.raises(DataError) as caught:
        sim.calibrate(data)
    assert caught.value.hint
    assert not sim.encodings


def test_an_input_of_the_wrong_shape(model: Path) -> None:
    with pytest.raises(ModelError, match="failed on inputs"):
        calibrated(model, BATCHES)(np.zeros((2, 3, 9, 9), np.float32))


def test_pytorch_code_needs_trust(tmp_path: Path) -> None:
    source = f"{resource('examples', 'digits', 'model.py')}:digits_net"
    with pytest.raises(ConsentRequiredError):
        studio.open_model(source)


def test_the_command_line_measures_what_the_api_exported(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    studio.export(calibrated(model, BATCHES), out)
    data = small_models.images(tmp_path / "images.npz")
    assert main(["verify", str(out), "--data", str(data)]) == 0
    assert main(["evaluate", str(out), "--data", str(data)]) == 0
    assert main(["verify", str(out)]) == 5
    assert "Give --data" in capsys.readouterr().err


def test_a_model_that_came_quantized_needs_no_calibration(tmp_path: Path) -> None:
    path = quantized_models.quantized_by_onnxruntime(tmp_path, "QDQ")
    sim = studio.QuantSim(studio.open_model(path))
    feeds = quantized_models.samples()
    np.testing.assert_array_equal(sim(feeds["x"]), run(path, feeds)[0])
    with pytest.raises(DataError, match="verify"):
        studio.export(sim, tmp_path / "out")
    summary = studio.export(sim, tmp_path / "out", data=feeds["x"])
    assert summary.verification.passed
    np.testing.assert_array_equal(
        run(tmp_path / "out" / "model.onnx", feeds)[0], run(path, feeds)[0]
    )
    anew = studio.QuantSim(sim.graph, studio.QuantConfig(source_encodings=False))
    with pytest.raises(ConfigError, match="not calibrated"):
        anew(feeds["x"])


def test_improving_and_exporting(tmp_path: Path) -> None:
    digits = Path(__file__).parents[1] / "resources/examples/digits"
    images = np.load(digits / "calibration.npz")["image"]
    test = np.load(digits / "test.npz")
    sim = studio.QuantSim(
        studio.open_model(digits / "digits.onnx"),
        studio.QuantConfig().with_defaults(weight_bits=2, act_bits=4),
    )
    sim.calibrate(images[:200])

    def top1() -> float:
        return 100 * float((sim(test["image"]).argmax(1) == test["labels"]).mean())

    before = top1()
    outcome = sim.improve("adaround", samples=200)
    assert before < 40
    assert top1() > 90
    assert "7 layers" in outcome.summary
    studio.export(sim, tmp_path)
    (made,) = run(tmp_path / "model.onnx", {"image": test["image"][:20]})
    np.testing.assert_array_equal(made.argmax(1), sim(test["image"][:20]).argmax(1))
    with pytest.raises(ConfigError, match="no technique 'adaruond'"):
        sim.improve("adaruond")
