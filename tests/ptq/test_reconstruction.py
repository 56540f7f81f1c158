"""Block reconstruction: where blocks are cut, and that it repairs few bits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "qat"))
from qat_models import digits_model, digits_samples

from studio.analysis.evaluate import simulated_session
from studio.errors import CancelledError
from studio.jobs.events import CancelToken, silent
from studio.ptq.blocks import blocks_of
from studio.ptq.options import ReconstructionOptions
from studio.ptq.reconstruction import reconstruct
from studio.quant.grid import Grid
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome


def top1(model: QuantizedModel) -> float:
    """In onnxruntime, of the graph with Q and DQ."""
    session = simulated_session(model.graph, model.plan, model.encodings)
    hits = total = 0
    for batch in digits_samples().validation.batches(60):
        (scores,) = session.run(batch.inputs).values()
        hits += int((scores.argmax(1) == batch.labels).sum())
        total += len(batch)
    return 100 * hits / total


@pytest.fixture(scope="module")
def before() -> QuantizedModel:
    return digits_model(2, 4)


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["BRECQ", "QDrop"])
def outcome(request: pytest.FixtureRequest, before: QuantizedModel) -> Outcome:
    options = ReconstructionOptions(samples=120, steps=60, drop=request.param)
    return reconstruct(before, digits_samples(), options, silent, CancelToken())


def test_residual_blocks_are_whole_and_every_layer_is_in_one(before: QuantizedModel) -> None:
    blocks = blocks_of(before.graph, before.plan)
    assert [layer for block in blocks for layer in block] == list(before.plan.layers)
    adds = [block for block in blocks if any("Add" in layer.ops for layer in block)]
    assert adds
    for block in adds:
        inside = {name for layer in block for name in layer.outputs}
        (add,) = [layer for layer in block if "Add" in layer.ops]
        assert block[-1] is add
        shortcut = [name for name in add.inputs if name not in inside]
        reads = {name for layer in block for name in layer.inputs} - inside
        assert {*shortcut} <= reads
        assert len(reads) == 1  # a block reads one tensor


def test_two_bit_weights_with_four_bit_activations(
    before: QuantizedModel, outcome: Outcome
) -> None:
    assert top1(before) < 40
    assert top1(outcome.model) > 93
    measured = [row for row in outcome.rows if row.after is not None]
    assert all(row.after >= row.before for row in measured)  # type: ignore[operator]
    assert any(row.after > row.before for row in measured)  # type: ignore[operator]


def test_weights_lie_on_their_grids_and_scales_of_activations_are_learned(
    before: QuantizedModel, outcome: Outcome
) -> None:
    weights = {name for layer in before.plan.layers for name in layer.weights}
    activations = set(outcome.model.given) - weights
    assert activations
    for name in weights:
        encoding, array = outcome.model.encodings[name], outcome.model.graph.constant(name)
        assert isinstance(encoding.grid, Grid)
        np.testing.assert_array_equal(encoding.quantize_dequantize(array), array)
    changed = [n for n in activations if outcome.model.encodings[n] != before.encodings[n]]
    assert changed


def test_cancelled(before: QuantizedModel) -> None:
    token = CancelToken()
    options = ReconstructionOptions(samples=60, steps=20)
    with pytest.raises(CancelledError):
        reconstruct(before, digits_samples(), options, lambda _: token.cancel(), token)
