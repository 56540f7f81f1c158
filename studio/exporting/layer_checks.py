"""Every layer of an exported file against the simulation, on the inputs that it gets there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch

from studio.analysis.quality import DistanceMeter
from studio.exporting.summary import FloatLayerCheck, LayerCheck
from studio.graph.model import ModelGraph
from studio.quant.dynamic import DynamicFakeQuantizer
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid, Grid
from studio.runtime.executor import Executor
from studio.runtime.session import Session
from studio.sim.plan import Layer, Plan
from studio.sim.qdq import dequantized_name, quantized_name
from studio.sim.simulator import simulating_executor

FIRST_LAYERS = 32
"""Layers whose inputs and outputs are read together at first; then as many as fit the memory."""

READ_BYTES = 256 * 2**20
"""Bytes of inputs and outputs that are read together, about."""

FLOAT_ROUNDING = 1e-6
"""Differences of float results up to this share of the largest value are rounding."""

Values = Mapping[str, np.ndarray]


class LayerComparison:
    """Collects how far each layer's output in the file is from the simulated one.

    Compared are the layers whose output is quantized (as integers), and those with a quantized
    operand and a float output. `tensors` are those of the exported file: layers that cannot be read
    there (inside an operator, sequences of tensors) are left out.
    """

    def __init__(
        self,
        graph: ModelGraph,
        plan: Plan,
        encodings: Mapping[str, Encoding],
        tensors: frozenset[str],
    ) -> None:
        self.graph, self.plan, self.encodings = graph, plan, encodings
        self.tensors = tensors
        self.executor: Executor = simulating_executor(graph, plan, encodings)
        layers = [layer for layer in plan.layers if self._readable(layer)]
        self.integer_layers = [layer for layer in layers if self._is_quantized(layer.output)]
        self.float_layers = [layer for layer in layers if layer not in self.integer_layers]
        self.layers = [*self.integer_layers, *self.float_layers]
        self._steps = {layer.name: _Steps() for layer in self.integer_layers}
        self._distances = {layer.name: DistanceMeter() for layer in self.float_layers}
        self._optimized = {layer.name: DistanceMeter() for layer in self.integer_layers}
        self._seen_optimized = False

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def readable(self) -> list[str]:
        """Inner tensors of the file that `add` reads."""
        return self._reads(self.layers)

    @property
    def results(self) -> list[str]:
        """Those of them that are the quantized layers' outputs."""
        return list(dict.fromkeys(self._stored(layer.output) for layer in self.integer_layers))

    def add(self, plain: Session, optimized: Session | None, batch: Values) -> None:
        """Compare on `batch`; `optimized` has `results` readable."""
        self._seen_optimized |= optimized is not None
        for layer, values in self._layer_values(plain, batch):
            if layer.name in self._steps:
                encoding = self.encodings[layer.output]
                simulated = encoding.quantize(self._simulated(layer, values))
                actual = self._integers(layer.output, values)
                self._steps[layer.name].add(actual, simulated)
            else:
                meter = self._distances[layer.name]
                meter.add(self._simulated(layer, values), self._raw(layer.output, values))
        if optimized is None:
            return
        inner = [layer for layer in self.integer_layers if self._stored(layer.output) not in batch]
        for start in range(0, len(inner), FIRST_LAYERS):
            some = inner[start : start + FIRST_LAYERS]
            names = list(dict.fromkeys(self._stored(layer.output) for layer in some))
            before, after = plain.run(batch, names), optimized.run(batch, names)
            for layer in some:
                meter = self._optimized[layer.name]
                meter.add(self._real(layer.output, before), self._real(layer.output, after))

    def layer_checks(self) -> tuple[LayerCheck, ...]:
        checks = []
        for layer in self.integer_layers:
            decibels = None
            if self._seen_optimized:
                decibels = self._optimized[layer.name].result().sqnr_db
            checks.append(self._steps[layer.name].result(layer, decibels))
        return tuple(checks)

    def float_layer_checks(self) -> tuple[FloatLayerCheck, ...]:
        return tuple(
            FloatLayerCheck(layer.name, layer.output, self._distances[layer.name].result())
            for layer in self.float_layers
        )

    # --- what can be read -----------------------------------------------------------------------

    def _is_quantized(self, name: str) -> bool:
        row = self.plan.tensors[name]
        return row.spec is not None and not row.dynamic and bool(self._stored(name))

    def _readable(self, layer: Layer) -> bool:
        others = (ir.SequenceType, ir.OptionalType)
        if any(isinstance(self.graph.value(name).type, others) for name in layer.inputs):
            return False  # a sequence of tensors cannot be fed to the layer alone
        if not all(self._source(layer, name) for name in layer.inputs):
            return False
        if self._is_quantized(layer.output):
            return True
        operands = [*layer.inputs, *layer.weights]
        made = self.graph.value(layer.output)
        return (
            bool(layer.nodes)
            and bool(self._raw_name(layer.output))
            and isinstance(made.type, ir.TensorType)
            and made.dtype == ir.DataType.FLOAT
            and any(self.plan.tensors[name].spec is not None for name in operands)
        )

    def _stored(self, name: str) -> str:
        """The file's tensor that holds the rounded `name`: integers, or real numbers."""
        row = self.plan.tensors[name]
        assert row.spec is not None
        grid = row.spec.grid
        if isinstance(grid, Grid) and quantized_name(name) in self.tensors:
            return quantized_name(name)
        return self._dequantized(name)

    def _dequantized(self, name: str) -> str:
        value = self.graph.value(name)
        own = value.is_graph_output() and value.producer() is not None
        found = dequantized_name(name, own and self.plan.tensors[name].read_by is None)
        return found if found in self.tensors else ""

    def _raw_name(self, name: str) -> str:
        """The file's tensor `name` before it is rounded."""
        unquantized = f"{name}_unquantized"
        if unquantized in self.tensors:
            return unquantized
        return name if name in self.tensors else ""

    def _source(self, layer: Layer, name: str) -> str:
        """The file's tensor that `layer` reads for `name`; "" if there is none, or two."""
        row = self.plan.tensors[name]
        if row.spec is None:
            return name if name in self.tensors else ""
        if row.read_by is not None:
            readers = self._readers(layer, name)
            if not readers & row.read_by:
                return self._raw_name(name)
            if readers - row.read_by:
                return ""
        if row.dynamic:
            return self._dequantized(name) or self._raw_name(name)
        return self._dequantized(name) or self._stored(name)

    def _readers(self, layer: Layer, name: str) -> set[str | None]:
        return {use.node.name for use in self.graph.value(name).uses()} & set(layer.nodes)

    def _reads_rounded(self, layer: Layer, name: str) -> bool:
        row = self.plan.tensors[name]
        return row.read_by is None or bool(self._readers(layer, name) & row.read_by)

    def _reads(self, layers: Sequence[Layer]) -> list[str]:
        names = []
        for layer in layers:
            names += [self._source(layer, name) for name in layer.inputs]
            output = self._is_quantized(layer.output)
            names.append(self._stored(layer.output) if output else self._raw_name(layer.output))
        inputs = {value.name for value in self.graph.inputs}
        return [name for name in dict.fromkeys(names) if name not in inputs]

    # --- values ---------------------------------------------------------------------------------

    def _layer_values(self, session: Session, batch: Values) -> Iterator[tuple[Layer, Values]]:
        """Every layer with the tensors that go into it and come out of it."""
        start, count = 0, FIRST_LAYERS
        while start < len(self.layers):
            some = self.layers[start : start + count]
            values = {**batch, **session.run(batch, self._reads(some))}
            for layer in some:
                yield layer, values
            start += count
            per_layer = sum(array.nbytes for array in values.values()) / len(some)
            count = max(1, int(READ_BYTES / max(per_layer, 1)))

    def _simulated(self, layer: Layer, values: Values) -> np.ndarray:
        """The layer's output before rounding, simulated from what the file's layer got."""
        if not layer.nodes:
            return values[layer.output]
        inputs = {name: torch.from_numpy(self._fed(layer, name, values)) for name in layer.inputs}
        with torch.inference_mode():
            result = self.executor.run_nodes(layer.nodes, inputs, [layer.output])
        return result[layer.output].numpy()

    def _fed(self, layer: Layer, name: str, values: Values) -> np.ndarray:
        """What the file's layer reads for `name`, rounded as it rounds it itself if it does."""
        source, row = self._source(layer, name), self.plan.tensors[name]
        if row.dynamic and source == self._raw_name(name) and self._reads_rounded(layer, name):
            assert row.spec is not None
            rounding = DynamicFakeQuantizer(row.spec.grid)
            return rounding(torch.from_numpy(values[source])).numpy()
        if source == quantized_name(name) and self.plan.tensors[name].spec is not None:
            return self.encodings[name].dequantize(values[source].astype(np.int64))
        return values[source]

    def _integers(self, name: str, values: Values) -> np.ndarray:
        stored = self._stored(name)
        if stored == quantized_name(name):
            return values[stored]
        return self.encodings[name].quantize(values[stored])

    def _real(self, name: str, values: Values) -> np.ndarray:
        encoding = self.encodings[name]
        integers = self._integers(name, values)
        wide = integers if isinstance(encoding.grid, FloatGrid) else integers.astype(np.int64)
        return encoding.dequantize(wide)

    def _raw(self, name: str, values: Values) -> np.ndarray:
        return values[self._raw_name(name)]


class _Steps:
    """How far two sets of integers are apart."""

    def __init__(self) -> None:
        self.values = self.same = self.near = self.largest = 0

    def add(self, actual: np.ndarray, expected: np.ndarray) -> None:
        steps = np.abs(_ordinal(actual) - _ordinal(expected))
        if expected.dtype.kind not in "iu":
            # Steps of floats shrink towards zero, where what they are rounded from is no better
            # than the largest values' own rounding.
            apart = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
            largest = np.abs(expected.astype(np.float64)).max(initial=0.0)
            steps = np.where(apart <= FLOAT_ROUNDING * largest, np.minimum(steps, 1), steps)
        self.values += steps.size
        self.same += int((steps == 0).sum())
        self.near += int((steps <= 1).sum())
        self.largest = max(self.largest, int(steps.max(initial=0)))

    def result(self, layer: Layer, optimized_db: float | None) -> LayerCheck:
        total = max(self.values, 1)
        return LayerCheck(
            layer.name,
            layer.output,
            self.same / total,
            self.near / total,
            self.largest,
            optimized_db,
            self.values,
        )


def _ordinal(array: np.ndarray) -> np.ndarray:
    """Numbers of a grid counted from 0 (int64): neighbours differ by one, floats too."""
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    kind = np.float16 if array.dtype == np.float16 else array.dtype
    bits = ml_dtypes.finfo(kind).bits
    if bits < 8:  # one number a byte, its bits the lowest
        codes = array.view(np.uint8).astype(np.int64)
    else:
        codes = array.view(np.dtype(f"u{bits // 8}")).astype(np.int64)
    sign = codes >> (bits - 1)
    size = codes & ((1 << (bits - 1)) - 1)
    return np.where(sign == 1, -size, size)
