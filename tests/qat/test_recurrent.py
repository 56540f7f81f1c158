"""A small speech model, trained with CTC on tones, at 3 bits: quantized, trained, exported,
verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from studio.errors import ConfigError
from studio.jobs.events import Event, TrainingResult
from studio.project import steps
from studio.project.document import DataSettings, Document
from studio.project.techniques import apply_technique, parse_options
from studio.qat.losses import LOSSES, greedy_labels

FRAMES, WINDOW, TONES, MOST = 24, 32, 4, 4
SOURCE = """
from torch import nn

class Tones(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.front = nn.Linear(17, 16)
        self.cell = getattr(nn, cell)(16, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 5)

    def forward(self, x):
        return self.head(self.cell(self.front(x).relu())[0])

def lstm():
    return Tones("LSTM")

def gru():
    return Tones("GRU")
"""


def tones(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spectra (count, FRAMES, 17) of up to MOST tones in noise, with silence between, and which
    they are (count, MOST), filled up with 0."""
    random = np.random.default_rng(seed)
    labels = np.zeros((count, MOST), np.int64)
    sound = 0.4 * random.standard_normal((count, FRAMES * WINDOW))
    time = np.arange(FRAMES * WINDOW) / WINDOW
    for row, label in zip(sound, labels, strict=True):
        at = 0.0
        for place in range(random.integers(1, MOST + 1)):
            label[place] = random.integers(1, TONES + 1)
            start = at + random.uniform(0.5, 1.5)
            at = start + random.uniform(2.5, 4.0)
            inside = (time >= start) & (time < at)
            phase = random.uniform(0, 2 * np.pi)
            row[inside] += np.sin(2 * np.pi * (2.0 * label[place] + 2) * time[inside] + phase)
    spectra = np.abs(np.fft.rfft(sound.reshape(count, FRAMES, WINDOW))) / 4
    return spectra.astype(np.float32), labels


def right(scores: Tensor, labels: np.ndarray) -> float:
    """Percent of the sequences."""
    found = greedy_labels(scores)
    wanted = [row[row != 0].tolist() for row in labels]
    return 100 * float(np.mean([mine == own for mine, own in zip(found, wanted, strict=True)]))


def trained_float(folder: Path, cell: str) -> float:
    """Write the module and its weights into `folder`; percent of the sequences it gets right."""
    (folder / "tones.py").write_text(SOURCE)
    names: dict[str, object] = {}
    exec(SOURCE, names)
    torch.manual_seed(0)
    module = names[cell]()  # type: ignore[operator]
    assert isinstance(module, nn.Module)
    spectra, labels = (torch.from_numpy(x) for x in tones(512, 1))
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(14):
        for chosen in torch.randperm(512).split(32):
            optimizer.zero_grad()
            LOSSES["ctc"]([module(spectra[chosen])], labels[chosen]).backward()
            optimizer.step()
    save_file(module.state_dict(), folder / "tones.safetensors")
    spectra, known = tones(200, 2)
    with torch.inference_mode():
        return right(module(torch.from_numpy(spectra)), known)


def calibrated(folder: Path, cell: str, bits: int) -> Document:
    for name, seed, count in (("train", 1, 512), ("test", 2, 200)):
        spectra, labels = tones(count, seed)
        np.savez(folder / f"{name}.npz", x=spectra, labels=labels)
    document = steps.open_document(
        f"{folder}/tones.py:{cell}",
        weights=folder / "tones.safetensors",
        inputs=[f"x:1,{FRAMES},17"],
        trust=True,
    )
    data = DataSettings(path=folder / "test.npz", training_path=folder / "train.npz")
    config = document.config.with_defaults(weight_bits=bits)
    return steps.calibrate(document.with_config(config).with_data(data))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_tones(cell: str, tmp_path: Path) -> None:
    exact = trained_float(tmp_path, cell)
    assert exact > 85
    document = calibrated(tmp_path, cell, 2)
    recurrent = [node.name for node in document.graph.nodes() if node.op_type == cell.upper()]
    assert len(recurrent) == 1
    weights = [row.name for row in document.plan.tensors.values() if row.layer in recurrent]
    assert sum(name in document.encodings for name in weights) >= 2  # W and R
    results: list[TrainingResult] = []

    def emit(event: Event) -> None:
        if isinstance(event, TrainingResult):
            results.append(event)

    chosen = {"epochs": 10, "loss": "ctc", "optimizer": "adam", "learning_rate": 4e-3}
    trained = apply_technique(document, "qat", parse_options("qat", chosen), emit=emit)
    summary = trained.applied[-1].summary.replace(",", "").split()
    before, after = float(summary[1]), float(summary[3])
    assert summary[0] == results[-1].metric == "sequences"
    assert before < exact - 20
    assert after > max(exact - 10, before + 15)
    exported = steps.export(steps.evaluate(trained), tmp_path / "out").export
    assert exported is not None
    assert exported.verification is not None
    assert exported.verification.passed, exported.verification.problem
    from onnxruntime import InferenceSession

    session = InferenceSession(tmp_path / "out/model.onnx")
    spectra, known = tones(200, 2)
    (name,) = (item.name for item in session.get_inputs())
    (scores,) = session.run(None, {name: spectra})
    assert right(torch.from_numpy(scores), known) == pytest.approx(after, abs=3)


def test_a_loss_that_does_not_fit_the_labels_is_named(tmp_path: Path) -> None:
    trained_folder = tmp_path
    (trained_folder / "tones.py").write_text(SOURCE)
    names: dict[str, object] = {}
    exec(SOURCE, names)
    save_file(names["gru"]().state_dict(), tmp_path / "tones.safetensors")  # type: ignore[operator]
    document = calibrated(tmp_path, "gru", 8)
    with pytest.raises(ConfigError, match=r"loss mse fails on the output .* int64 \[32, 4\]"):
        apply_technique(document, "qat", parse_options("qat", {"loss": "mse"}))


def test_greedy_labels() -> None:
    path = torch.tensor([[0, 1, 1, 0, 1, 2, 2, 0], [0, 0, 0, 0, 0, 0, 0, 0]])
    assert greedy_labels(F.one_hot(path, 3).float()) == [[1, 1, 2], []]
