"""The float model that training may follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from studio.graph.model import ModelGraph
from studio.runtime.executor import Executor
from studio.runtime.session import float_session


class Teacher:
    """Outputs of `graph` for a batch: in onnxruntime on the CPU, which is faster, else in torch."""

    def __init__(self, graph: ModelGraph, device: torch.device) -> None:
        self._names = [value.name or "" for value in graph.outputs]
        self._session = float_session(graph) if device.type == "cpu" else None
        self._executor = None if self._session else Executor(graph, device=device)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Sequence[Tensor]:
        """The outputs in order, on the device, without gradients."""
        if self._session is not None:
            found = self._session.run(inputs, self._names)
            return [torch.from_numpy(found[name]) for name in self._names]
        assert self._executor is not None
        with torch.inference_mode():
            values = self._executor.run(inputs, self._names)
        return [values[name].clone() for name in self._names]
