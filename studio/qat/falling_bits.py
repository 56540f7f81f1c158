"""Weight bits that fall in the course of a training: phases of an equal share of the steps each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from studio.quant.encoding import encoding_from_range
from studio.quant.grid import Grid
from studio.sim.plan import Role
from studio.sim.quantized_model import QuantizedModel


def phase_at(step: int, total: int, bits_first: Sequence[int]) -> int:
    """Number of the phase at `step` of `total`; the last, with the model's own bits, is
    len(bits_first)."""
    return min(step * (len(bits_first) + 1) // max(total, 1), len(bits_first))


def with_bits_of(model: QuantizedModel, phase: int, bits_first: Sequence[int]) -> QuantizedModel:
    """`model` with the weight bits of `phase`."""
    return _with_weight_bits(model, bits_first[phase]) if phase < len(bits_first) else model


def _with_weight_bits(model: QuantizedModel, bits: int) -> QuantizedModel:
    """`model` with weights of at least `bits` bits over the same ranges."""
    encodings = dict(model.encodings)
    for name, row in model.plan.tensors.items():
        known = encodings.get(name)
        if row.role is not Role.WEIGHT or known is None or not isinstance(known.grid, Grid):
            continue
        if known.grid.bits < bits and known.integer_scale is None:
            grid = replace(known.grid, bits=bits)
            encodings[name] = encoding_from_range(
                known.minimum, known.maximum, grid, known.axis, known.block_size
            )
    return replace(model, encodings=encodings)
