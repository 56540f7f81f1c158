"""The error that rounding makes at the output of linear layers which read the same tensor, for any
scaling of its channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from studio.errors import DataError
from studio.graph.edit import int_attribute, is_op
from studio.jobs.events import CancelToken, Emit, Progress
from studio.ptq.gram import sqnr
from studio.ptq.recalibration import BATCH
from studio.ptq.weighted import Weighted
from studio.quant.encoding import encoding_from_range
from studio.quant.fake_quantize import FakeQuantizer
from studio.quant.observers import observed_encoding, weight_encoding
from studio.quant.statistics import Histogram, TensorStatistics
from studio.sim.plan import DYNAMIC, QuantSpec, TensorPlan
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Samples

ROWS = 1024
"""Rows of a tensor that errors are measured on."""


@dataclass(frozen=True)
class InputSample:
    """Of a tensor that linear layers read, in float: `rows` (rows, channels) float32, some of it,
    from `calls` of the model, (rows,) int64; lowest and highest value of each channel over all of
    each call, float64 (calls, channels)."""

    rows: Tensor
    calls: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    @property
    def largest(self) -> np.ndarray:
        """Largest absolute value of each channel, float64 (channels,)."""
        return np.maximum(-self.minimum.min(0), self.maximum.max(0))


def sample_inputs(
    model: QuantizedModel,
    names: Sequence[str],
    samples: Samples,
    emit: Emit,
    cancel: CancelToken,
) -> dict[str, InputSample]:
    """Samples of the tensors `names` over the calibration data. Raises DataError without any."""
    from studio.runtime.budget import BudgetedReader
    from studio.runtime.budget import samples as count_of
    from studio.runtime.session import float_session

    fed = {value.name for value in model.graph.inputs}
    made = [name for name in names if name not in fed]
    data = samples.calibration
    reader = BudgetedReader(float_session(model.graph, made), made)
    size = samples.batch_size or BATCH
    parts: dict[str, list[InputSample]] = {name: [] for name in names}
    done = 0
    for batch in data.batches(size, cancel=cancel):
        found = {name: batch.inputs[name] for name in names if name in fed}
        generator = torch.Generator().manual_seed(done)
        for part, values in chain([(batch.inputs, found)], reader.read(batch.inputs)):
            cancel.check()
            share = -(-ROWS * count_of(part) // len(data))
            for name, array in values.items():
                flat = torch.from_numpy(array.reshape(-1, array.shape[-1]))
                picked = torch.randperm(len(flat), generator=generator)[:share]
                low, high = flat.aminmax(dim=0)
                ends = low.double().numpy(), high.double().numpy()
                number = np.full(len(picked), len(parts[name]))
                parts[name].append(InputSample(flat[picked], number, *ends))
        done += count_of(batch.inputs)
        emit(Progress("Measuring channels", done, len(data), f"{done} of {len(data)} samples"))
    if not done:
        raise DataError("There is no sample to measure channels on.", "Choose other data.")
    return {
        name: InputSample(
            torch.cat([part.rows for part in every]),
            np.concatenate([part.calls for part in every]),
            np.stack([part.minimum for part in every]),
            np.stack([part.maximum for part in every]),
        )
        for name, every in parts.items()
    }


class LinearError:
    """Of the `layers` that read `source`, rounded as the plan of `model` says."""

    def __init__(
        self,
        model: QuantizedModel,
        source: str,
        layers: Sequence[Weighted],
        inputs: InputSample,
    ) -> None:
        self._model = model
        self._layers = tuple(layers)
        self._inputs = inputs
        heads = {layer.name for layer in layers}
        self._spec = _read_with(model.plan.tensors.get(source), heads)
        self._weights = [torch.from_numpy(self._matrix(layer)) for layer in layers]
        self._wanted = [inputs.rows @ weight.T for weight in self._weights]

    def largest_weights(self) -> np.ndarray:
        """Largest absolute weight of each input channel over all layers, float64."""
        parts = [weight.abs().amax(0) for weight in self._weights]
        return torch.stack(parts).amax(0).double().numpy()

    def loss(self, scale: np.ndarray | None) -> float:
        """Relative squared error, summed over the layers, with the input divided by `scale`
        (channels,) and the weights multiplied by it."""
        return sum(float(noise / signal) for signal, noise in self._measured(scale))

    def sqnr(self, scale: np.ndarray | None) -> dict[str, float]:
        """SQNR of each layer's output in dB, by the name of its node."""
        pairs = zip(self._layers, self._measured(scale), strict=True)
        return {layer.name: sqnr(signal, noise) for layer, (signal, noise) in pairs}

    def _measured(self, scale: np.ndarray | None) -> list[tuple[Tensor, Tensor]]:
        factor = None if scale is None else torch.from_numpy(scale).float()
        rows = self._inputs.rows if factor is None else self._inputs.rows / factor
        if self._spec is not None:
            rows = self._rounded_input(rows, scale)
        found = []
        for layer, weight, wanted in zip(self._layers, self._weights, self._wanted, strict=True):
            scaled = weight if factor is None else weight * factor
            made = rows @ self._rounded_weight(layer, scaled).T
            noise = (made - wanted).square().sum()
            found.append((wanted.square().sum().clamp(min=1e-30), noise))
        return found

    def _rounded_input(self, rows: Tensor, scale: np.ndarray | None) -> Tensor:
        spec = self._spec
        assert spec is not None
        divisor = 1.0 if scale is None else scale
        lows = np.minimum((self._inputs.minimum / divisor).min(1), 0.0)
        highs = np.maximum((self._inputs.maximum / divisor).max(1), 0.0)
        if spec.observer == DYNAMIC:  # each call has a range of its own
            ranges = encoding_from_range(lows, highs, spec.grid, axis=0)
            calls = self._inputs.calls
            own = replace(ranges, scale=ranges.scale[calls], zero_point=ranges.zero_point[calls])
            return FakeQuantizer(own, 2)(rows)
        low, high = float(lows.min()), float(highs.max())
        histogram = Histogram()
        histogram.add(rows.numpy().reshape(-1), low, high)
        statistics = TensorStatistics(low, high, *histogram.statistics())
        encoding = observed_encoding(statistics, spec.grid, spec.observer, spec.percentile)
        return FakeQuantizer(encoding)(rows)

    def _rounded_weight(self, layer: Weighted, matrix: Tensor) -> Tensor:
        spec = self._model.plan.tensors[layer.weight].spec
        if spec is None:
            return matrix
        stored = matrix if stored_by_output(layer) else matrix.T
        array = np.ascontiguousarray(stored.numpy())
        encoding = weight_encoding(
            array,
            spec.grid,
            spec.axis,
            spec.observer,
            percent=spec.percentile,
            block_size=spec.block_size,
            lpbq=spec.lpbq,
        )
        rounded = FakeQuantizer(encoding, 2)(torch.from_numpy(array))
        return rounded if stored_by_output(layer) else rounded.T

    def _matrix(self, layer: Weighted) -> np.ndarray:
        """(outputs, inputs) float32."""
        array = self._model.graph.constant(layer.weight)
        return layer.matrix(array)[0, :, :, 0].astype(np.float32)


def stored_by_output(layer: Weighted) -> bool:
    """True if the weight of a Gemm or MatMul is (outputs, inputs), else it is (inputs, outputs)."""
    return is_op(layer.node, "Gemm") and bool(int_attribute(layer.node, "transB", 0))


def _read_with(row: TensorPlan | None, heads: set[str]) -> QuantSpec | None:
    """How layers read a tensor: rounded by which rule, or None for as it is."""
    if row is None or row.spec is None:
        return None
    if row.read_by is not None and not row.read_by & heads:
        return None
    return replace(row.spec, fixed_range=None)
