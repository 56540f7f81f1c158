"""Sensitivity: which layers the loss of a quantized network comes from.

A layer's quantization is that of all tensors its row of the plan stands for: its weights and bias
and what it gives out. A graph input is a layer of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from studio.analysis.outliers import outliers
from studio.analysis.sensitivity_figures import Error, LayerSensitivity, Sensitivity
from studio.analysis.variants import Measured, Variant, measure_variants, quantizing
from studio.data.dataset import Dataset
from studio.errors import ConfigError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Event, Progress
from studio.quant.encoding import Encoding
from studio.sim.found import constant_integers
from studio.sim.plan import Plan, Role

SAMPLES = 64


class SensitivityOptions(BaseModel):
    """What is measured: on how many samples, each layer quantized `alone`, each layer left in
    float alone (`left`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=SAMPLES, ge=1)
    alone: bool = True
    left: bool = True


DEFAULTS = SensitivityOptions()


def sensitivity(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    data: Dataset,
    *,
    original: ModelGraph,
    options: SensitivityOptions = DEFAULTS,
    batch_size: int,
    emit: Emit,
    cancel: CancelToken,
) -> Sensitivity:
    """The sensitivity of every layer of the simulated network.

    `original` is the float model as it was before any technique changed its weights: outputs are
    compared with its own, and a weight that a technique only rounded up or down is in float as it
    was there. Raises ConfigError if nothing is quantized, DataError without samples.
    """
    layers = _quantized_tensors(plan)
    if not layers:
        raise ConfigError(
            "No tensor of the model is quantized.", "Switch on what shall be quantized first."
        )
    data = data.subset(options.samples)
    exact = float_constants(graph, plan, encodings, original)
    everything = frozenset(name for names in layers.values() for name in names)
    constants = {n for n in everything if plan.tensors[n].role in (Role.WEIGHT, Role.BIAS)}
    constants |= {n for n in everything if plan.tensors[n].role is Role.CONSTANT}

    def variant(names: frozenset[str] | set[str], watch: str | None = None) -> Variant:
        return Variant(quantizing(plan, names), encodings, watch)

    whole = [variant(constants), variant(everything - constants), variant(everything)]
    alone = [
        variant(names, plan.layer(layer).output) if options.alone else None
        for layer, names in layers.items()
    ]
    left = [variant(everything - names) for names in layers.values()] if options.left else []
    first = [*whole, *(each for each in alone if each is not None)]
    total = len(data) * (len(first) + len(left))

    def measure(base: Variant, variants: list[Variant], done: int) -> Measured:
        def passed_on(event: Event) -> None:
            if isinstance(event, Progress):
                words = detail(done) if event.total else event.detail
                event = Progress("Analysing", done + event.done, total, words)
            emit(event)

        return measure_variants(
            graph,
            base,
            variants,
            data,
            batch_size=batch_size,
            reference=original,
            exact=exact,
            emit=passed_on,
            cancel=cancel,
        )

    def detail(done: int) -> str:
        return "layers left in float" if done else "layers quantized alone"

    quantized = measure(variant(set()), first, 0)
    others = measure(variant(everything), left, len(data) * len(first)) if left else None
    results = []
    for index, (layer, names) in enumerate(layers.items()):
        place = len(whole) + index
        watched = quantized.watched[place] if options.alone else None
        results.append(
            LayerSensitivity(
                layer,
                alone=quantized.variants[place] if options.alone else None,
                left=others.variants[index] if others is not None else None,
                weight=_weight_error(graph, plan, encodings, exact, names),
                output=None if watched is None else Error(watched.sqnr_db, watched.mse),
            )
        )
    channels = outliers(graph, plan, data, batch_size=batch_size, emit=emit, cancel=cancel)
    return Sensitivity(
        data=data.name,
        samples=quantized.samples,
        synthetic=data.synthetic,
        float_top1=quantized.float_top1,
        weights=quantized.variants[0],
        activations=quantized.variants[1],
        both=quantized.variants[2],
        layers=tuple(results),
        outliers=channels,
    )


def _quantized_tensors(plan: Plan) -> dict[str, frozenset[str]]:
    """Layer -> the tensors of its that are quantized; layers without any are left out."""
    found: dict[str, set[str]] = {layer.name: set() for layer in plan.layers}
    for row in plan.tensors.values():
        if row.spec is not None and row.layer in found:
            found[row.layer].add(row.name)
    return {layer: frozenset(names) for layer, names in found.items() if names}


def float_constants(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding], original: ModelGraph
) -> dict[str, np.ndarray]:
    """Values in `original` of the constants that differ in `graph` by at most a step of their
    encoding: rounding was chosen for those, the network that is rounded is the same."""
    found = {}
    for name in plan.quantized:
        row = plan.tensors[name]
        if row.role is not Role.WEIGHT or name not in original.initializers:
            continue
        ours, theirs = graph.value(name).const_value, original.value(name).const_value
        if ours is theirs or ours is None or theirs is None or ours.shape != theirs.shape:
            continue
        before, after = original.constant(name), graph.constant(name)
        if np.array_equal(before, after):
            continue
        steps = encodings[name].quantize(before) - encodings[name].quantize(after)
        if np.abs(steps).max(initial=0) <= 1:
            found[name] = before
    return found


def _weight_error(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    exact: Mapping[str, np.ndarray],
    names: frozenset[str],
) -> Error | None:
    signal = noise = 0.0
    elements = 0
    for name in sorted(names):
        row = plan.tensors[name]
        if row.role is not Role.WEIGHT or name not in encodings:
            continue
        rounded = encodings[name].dequantize(constant_integers(graph, row, encodings[name]))
        x = exact.get(name, graph.constant(name)).astype(np.float64)
        signal += float(np.square(x).sum())
        noise += float(np.square(x - rounded).sum())
        elements += x.size
    if not elements:
        return None
    if noise == 0.0:
        return Error(math.inf, 0.0)
    sqnr = 10 * math.log10(signal / noise) if signal else -math.inf
    return Error(sqnr, noise / elements)
