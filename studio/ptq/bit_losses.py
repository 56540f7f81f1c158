"""How much noise each group of layers alone adds to the outputs at each of its candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from studio.analysis.variants import Variant, measure_variants, quantizing
from studio.data.dataset import Dataset
from studio.jobs.events import CancelToken, Emit
from studio.ptq.bit_groups import Groups
from studio.sim.plan import Plan, Role
from studio.sim.quantized_model import QuantizedModel

WORST = 1e6
"""Noise of a network whose outputs are not finite."""


def measure_losses(
    model: QuantizedModel,
    groups: Groups,
    allowed: Sequence[Sequence[int]],
    uniform: Mapping[int, QuantizedModel],
    data: Dataset,
    *,
    batch_size: int,
    emit: Emit,
    cancel: CancelToken,
) -> npt.NDArray[np.float64]:
    """Noise relative to the signal of the outputs, (groups, candidates); 0 where a group has no
    choice. `uniform` are the models with all groups at one candidate.

    Only what the allowed candidates differ in is rounded: weights alone, where all have the same
    bits of activations.
    """
    losses = np.zeros((len(groups.groups), len(groups.candidates)))
    places, variants = [], []
    for index in groups.free:
        layers = frozenset(groups.groups[index].layers)
        acts = len({groups.candidates[c].act for c in allowed[index]}) > 1
        for candidate in allowed[index] if len(allowed[index]) > 1 else ():
            under = uniform[candidate]
            names = _rounded(under.plan, layers, acts)
            if names:
                places.append((index, candidate))
                variants.append(Variant(quantizing(under.plan, names), under.encodings))
    if not variants:
        return losses
    measured = measure_variants(
        model.graph,
        Variant(quantizing(model.plan, ()), {}),
        variants,
        data,
        batch_size=batch_size,
        phase="Measuring layers",
        emit=emit,
        cancel=cancel,
    )
    for place, deviation in zip(places, measured.variants, strict=True):
        losses[place] = min(deviation.noise, WORST)
    return losses


def _rounded(plan: Plan, layers: frozenset[str], acts: bool) -> frozenset[str]:
    """The tensors whose rounding the settings of `layers` decide."""

    def decided(name: str) -> bool:
        row = plan.tensors[name]
        if row.spec is None or row.from_file or row.role is Role.BIAS:
            return False
        if row.role is Role.WEIGHT:
            return row.layer in layers
        return acts and plan.tensors[row.tied_to or name].layer in layers

    return frozenset(name for name in plan.tensors if decided(name))
