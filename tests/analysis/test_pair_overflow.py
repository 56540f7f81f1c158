"""Sums of two products that do not fit in 16 bits, found before a processor cuts them off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from small_models import FLOAT, build, numbers

import studio
from studio.analysis.pair_overflow import PairOverflow, pair_overflows
from studio.sim.config import QuantConfig
from studio.sim.target import load_target


def found(path: Path, **settings: object) -> tuple[PairOverflow, ...]:
    config = QuantConfig().with_defaults(**settings)
    sim = studio.QuantSim(studio.open_model(path), config).calibrate(numbers(0, 8, 4, 5, 5))
    return pair_overflows(sim.graph, sim.plan, load_target("onnxruntime"), sim.encodings)


def conv(folder: Path, weight: np.ndarray, group: int = 1) -> Path:
    return build(
        folder / "conv.onnx",
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=group)],
        {"x": (FLOAT, ["N", 4, 5, 5])},
        {"y": (FLOAT, None)},
        {"w": weight.astype(np.float32)},
    )


def test_neighbours_along_the_input_channels_count(tmp_path: Path) -> None:
    """The scale is 1/127 in every output channel: the integers are 127 times these."""
    weight = np.zeros((3, 4, 1, 1))
    weight[0, :, 0, 0] = [1, 1, 0, 0]  # a pair of 127 + 127
    weight[1, :, 0, 0] = [0, 1, 1, 0]  # neighbours, but in two pairs
    weight[2, :, 0, 0] = [1, -1, -1, 1]  # activations are not negative: no sum of two
    assert found(conv(tmp_path, weight)) == (PairOverflow("conv", 254 * 255, 1 / 6, 1, 3),)


def test_seven_bits_are_safe(tmp_path: Path) -> None:
    path = conv(tmp_path, np.sign(numbers(1, 8, 4, 3, 3)))
    (row,) = found(path)
    assert row.channels == 8
    assert found(path, weight_bits=7) == ()


def test_layers_that_do_not_add_in_16_bits(tmp_path: Path) -> None:
    depthwise = conv(tmp_path, np.ones((4, 1, 3, 3)), group=4)
    assert found(depthwise) == ()
    assert found(conv(tmp_path, np.ones((4, 4, 3, 3))), act_bits=16) == ()


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_agrees_with_the_instruction(tmp_path: Path, scale: float) -> None:
    """vpmaddubsw on full activations: saturated where, and only where, an overflow is stated."""
    values = numbers(2, 16, 4, 2, 2)
    weight = np.where(np.abs(values) > 1.5, np.sign(values), scale * values / 4)
    path = conv(tmp_path, weight)
    sim = studio.QuantSim(studio.open_model(path)).calibrate(numbers(0, 8, 4, 5, 5))
    integers = sim.encodings["w"].quantize(sim.graph.constant("w"))
    rows = integers.transpose(0, 2, 3, 1).reshape(16, -1, 2)
    saturated = 0
    for activations in np.array([(0, 0), (0, 255), (255, 0), (255, 255)]):
        sums = (rows * activations).sum(axis=2)
        saturated = np.maximum(saturated, np.clip(sums, -(2**15), 2**15 - 1) != sums)
    rows_found = found(path)
    assert bool(rows_found) == bool(saturated.any())
    for row in rows_found:
        assert row.pairs == pytest.approx(saturated.mean())
        assert row.channels == saturated.any(axis=1).sum()
