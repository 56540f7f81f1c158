"""A few architectures of the zoo in every run of the tests; `python -m tests.zoo` runs all."""

from __future__ import annotations

from pathlib import Path

import pytest

from .registry import ZOO, entries
from .steps import EQUAL, STEPS, Result, Work, run

ENTRIES = {entry.name: entry for entry in entries()}
COMPARED = (
    "shufflenet-v2", "poolformer", "vit", "mlp-mixer", "coatnet", "segnet", "bisenet",
    "mtcnn-onet", "espcn", "dcgan", "vae", "bert", "gru-lm", "gat",
)  # fmt: skip
THROUGHOUT = ("mobilenet-v1", "mtcnn-pnet", "dncnn")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.runtime.threads._limit", 1)


@pytest.mark.parametrize("name", COMPARED)
def test_a_prepared_graph_equals_pytorch_at_every_size(name: str, tmp_path: Path) -> None:
    entry = ENTRIES[name]
    result = Result(entry.name, entry.family)
    work = Work(entry, result, tmp_path)
    for _, step, _ in STEPS[:3]:
        step(work)
    assert result.torch_difference is not None
    assert max(result.torch_difference, result.batch_difference or 0) <= EQUAL
    assert (result.size_difference is not None) == bool(entry.other_shapes)


@pytest.mark.parametrize("name", THROUGHOUT)
def test_an_architecture_goes_through_the_whole_studio(name: str) -> None:
    result = run(ENTRIES[name])
    assert result.failures == {}
    assert result.steps is not None and result.steps <= 1
    assert result.unexplained == []
    assert result.sqnr_db is not None and result.sqnr_db > 15


def test_the_zoo_is_consistent() -> None:
    zoo = entries()
    assert len(zoo) >= 60
    assert len({entry.name for entry in zoo}) == len(zoo)
    for entry in zoo:
        assert (ZOO / entry.file).is_file(), entry.name
        assert len(entry.other_shapes) in (0, len(entry.inputs)), entry.name
        reason = entry.note or entry.fixed_batch
        assert entry.other_shapes or reason, f"{entry.name}: why has it one size?"
