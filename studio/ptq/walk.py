"""All tensors that are still needed, in float and simulated, as the layers of a model go by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from studio.errors import DataError
from studio.jobs.events import CancelToken
from studio.ptq.products import Product
from studio.runtime.executor import Executor
from studio.sim.plan import Layer
from studio.sim.quantized_model import QuantizedModel
from studio.sim.simulator import quantizers, simulating_executor
from studio.techniques.technique import Samples

Values = dict[str, Tensor]


class Walk:
    """Goes through the layers of `model` in order, on `count` of the `samples`.

    The float network is that of `model` as it is; the simulated one reads what its earlier layers,
    with the weights given to `advance`, made. `network` runs the float graph. Raises DataError
    without samples.
    """

    def __init__(
        self, model: QuantizedModel, samples: Samples, count: int, cancel: CancelToken
    ) -> None:
        self.model = model
        self._cancel = cancel
        self.network = Executor(model.graph)
        self._simulated = simulating_executor(model.graph, model.plan, model.encodings)
        plan = model.plan
        some = {name for name, row in plan.tensors.items() if row.read_by is not None}
        every = quantizers(model.graph, plan, model.encodings) if some else {}
        self._for_some: dict[str, Callable[[Tensor], Tensor]] = {
            name: quantizer for name, quantizer in every.items() if name in some
        }
        self.batches: list[tuple[Values, Values]] = []
        data = samples.training.subset(count)
        for batch in data.batches(samples.batch_size or 8, cancel=cancel):
            exact = {name: torch.tensor(array) for name, array in batch.inputs.items()}
            with torch.inference_mode():
                self.batches.append((exact, self._simulated.run(exact, [*exact])))
        if not self.batches:
            raise DataError("There is no sample to fit on.", "Choose other data.")
        self._last = {name: i for i, layer in enumerate(plan.layers) for name in layer.inputs}
        self._place = {layer.name: i for i, layer in enumerate(plan.layers)}

    def sources(self, product: Product) -> Iterator[tuple[Tensor, Tensor]]:
        """What the layer of `product` reads, in float and simulated, batch by batch."""
        name = product.source
        row = self.model.plan.tensors[name]
        for exact, rounded in self.batches:
            self._cancel.check()
            x = rounded[name]
            if name in self._for_some and product.head.name in (row.read_by or ()):
                with torch.inference_mode():
                    x = self._for_some[name](x)
            yield exact[name], x

    def advance(self, layer: Layer, weights: Mapping[str, Tensor]) -> None:
        """Compute what `layer` gives with the rounded `weights`, and let go what nobody needs any
        more."""
        place = self._place[layer.name]
        for exact, rounded in self.batches:
            self._cancel.check()
            if layer.nodes:
                with torch.inference_mode():
                    read = {name: exact[name] for name in layer.inputs}
                    made = self.network.run_nodes(layer.nodes, read, layer.outputs)
                    seen = {name: self._seen(layer, name, rounded) for name in layer.inputs}
                    seen.update(weights)
                    found = self._simulated.run_nodes(layer.nodes, seen, layer.outputs)
                exact.update(made)
                rounded.update(found)
            for values in (exact, rounded):
                for name in [name for name in values if self._last.get(name, -1) <= place]:
                    del values[name]

    def again(
        self, start: list[tuple[Values, Values]], model: QuantizedModel, layers: Sequence[Layer]
    ) -> None:
        """Go back to `start`, the batches before `layers`, and through those again as they are in
        `model`, the same network with other constants and encodings."""
        self.model = model
        self._simulated = simulating_executor(model.graph, model.plan, model.encodings)
        self.batches = start
        for layer in layers:
            self.advance(layer, {})

    def _seen(self, layer: Layer, name: str, rounded: Values) -> Tensor:
        """The tensor `name` as the nodes of `layer` read it; the executor rounds nothing it is
        fed."""
        readers = self.model.plan.tensors[name].read_by
        if name in self._for_some and readers is not None and readers & {*layer.nodes}:
            return self._for_some[name](rounded[name])
        return rounded[name]


def constant(model: QuantizedModel, name: str) -> Tensor:
    """The initializer `name`, float32, a copy."""
    return torch.from_numpy(np.array(model.graph.constant(name), np.float32))
