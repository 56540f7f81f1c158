"""Coordinate descent on roundings: each weight, in turn, where the layer's error is least.

The error of an output is a quadratic form of its row of the weight (`gram`), so that the best
place of one weight, the others staying, is known at once. (The problem of Nagel et al. 2020, arXiv
2004.10568, eq. 20.)
"""

from __future__ import annotations

from torch import Tensor

from studio.jobs.events import CancelToken
from studio.ptq.gptq import Steps

BLOCK = 64
"""Inputs between which errors are passed on at once, to all others afterwards in one product."""


def descend(
    decided: Tensor, aim: Tensor, form: Tensor, steps: Steps, sweeps: int, cancel: CancelToken
) -> Tensor:
    """`decided`, a matrix on the grid, moved along the grid to where (decided - aim) form (decided
    - aim)^T is least, for at most so many `sweeps`. All (groups, outputs, inputs), float32."""
    decided, size = decided.clone(), decided.shape[2]
    slope = (decided - aim) @ form
    steepness = form.diagonal(dim1=1, dim2=2)
    for _ in range(sweeps):
        moved = False
        for start in range(0, size, BLOCK):
            cancel.check()
            end = min(start + BLOCK, size)
            before, near = decided[..., start:end].clone(), slope[..., start:end].clone()
            for column in range(start, end):
                now = decided[..., column]
                best = now - near[..., column - start] / steepness[:, None, column]
                new = steps.nearest(column, best)
                near += (new - now)[..., None] * form[:, None, column, start:end]
                decided[..., column] = new
            change = decided[..., start:end] - before
            if change.any():
                moved = True
                slope += change @ form[:, start:end]
        if not moved:
            break
    return decided
