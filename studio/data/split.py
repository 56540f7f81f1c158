"""Keeping some samples apart to measure on."""

from __future__ import annotations

import math

import numpy as np

from studio.data.dataset import Dataset, evenly_spaced


def kept_apart(data: Dataset, share: float, batch_size: int = 1) -> tuple[Dataset, Dataset]:
    """The rest of `data` and about `share` of it, spread evenly over the whole.

    Both are of whole batches of `batch_size` where the model takes no others. With a share of 0, or
    too few samples for two parts, both are all of `data`.
    """
    count = math.ceil(round(share * len(data)) / batch_size) * batch_size
    if not count or len(data) - count < batch_size:
        return data, data
    apart = evenly_spaced(len(data), count)
    rest = np.setdiff1d(np.arange(len(data)), apart)
    return data.select(rest), data.select(apart)
