"""Calibration again, for techniques that move the float values of tensors."""

from __future__ import annotations

from collections.abc import Iterable

from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit
from studio.sim.calibration import collect_statistics
from studio.sim.candidates import tensors_to_observe
from studio.sim.encodings import weights_to_calibrate_with
from studio.sim.placement import place
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Samples

BATCH = 4
"""Samples run at once where the model takes any number: few stay in the processor's cache."""


def recalibrated(
    model: QuantizedModel,
    graph: ModelGraph,
    moved: Iterable[str],
    samples: Samples,
    emit: Emit,
    cancel: CancelToken,
) -> QuantizedModel:
    """`model` with `graph`, its statistics collected anew on the calibration samples.

    moved: constants and tensors whose values are others now; encodings that techniques found for
    them are forgotten. Raises DataError without samples, CancelledError.
    """
    plan = place(graph, model.config)
    data = samples.calibration
    batches = data.batches(samples.batch_size or BATCH, cancel=cancel)
    statistics = collect_statistics(
        graph,
        tensors_to_observe(graph, model.config, plan),
        (batch.inputs for batch in batches),
        len(data),
        weights=weights_to_calibrate_with(graph, plan, model.config),
        emit=emit,
        cancel=cancel,
    )
    return model.changed(graph=graph, statistics=statistics, forget=frozenset(moved))
