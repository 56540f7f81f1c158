"""Two processes do the work of one: calibration alike to the last bit, training alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.data.dataset import reading_order
from studio.runtime.world import World

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}


def together(size: int, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """What each of `size` processes that torchrun starts finds; `folder` is new."""
    folder.mkdir()
    starter = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    command = [sys.executable, *(starter if size > 1 else []), str(HERE / "one_of_many.py")]
    subprocess.run(
        [*command, str(folder), *arguments],
        check=True,
        capture_output=True,
        timeout=300,
        env=ENVIRONMENT,
    )
    return [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in range(size)]


@pytest.mark.parametrize("total", [1, 7, 40])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_make_up_the_whole_in_batches(total: int, size: int) -> None:
    order = reading_order(total, None, 5)
    shares = [World(rank, size).share(order, 4) for rank in range(size)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(total))
    whole = [part for start in range(0, total, 4) for part in [order[start : start + 4]]]
    found = [share[4 * n : 4 * n + 4] for n in range(len(whole)) for share in shares]
    for expected, batch in zip(whole, (part for part in found if len(part)), strict=True):
        np.testing.assert_array_equal(batch, expected)


def test_calibration_and_training_of_two_are_those_of_one(tmp_path: Path) -> None:
    (alone,) = together(1, tmp_path / "alone", "--epochs=2")
    both = together(2, tmp_path / "both", "--epochs=2")
    for other in both:
        assert other["statistics"] == alone["statistics"]
        assert other["encodings"] == alone["encodings"]
        np.testing.assert_allclose(other["losses"], alone["losses"], rtol=0, atol=1e-3)
        assert other["measured"] == pytest.approx(alone["measured"], abs=1.0)
    assert both[0]["weights"] == both[1]["weights"]
    assert both[0]["calibrated"] == alone["calibrated"]


def test_a_batch_that_cannot_be_shared_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, str(HERE / "one_of_many.py"), str(tmp_path), "--batch-size=15"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT,
    )
    assert result.returncode != 0
    assert "multiple of 2" in result.stderr
