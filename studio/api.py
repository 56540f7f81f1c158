"""The Python API: open a model, simulate its quantization, export it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from studio.analysis.evaluate import simulated_session
from studio.data.arrays import ArrayData
from studio.data.calls import Calls
from studio.data.dataset import Dataset, InputSpec
from studio.errors import ConfigError, DataError
from studio.exporting.bundle import VERIFIED_BATCH, export_bundle
from studio.exporting.encodings import MatchReport
from studio.exporting.options import DEFAULTS, ExportOptions
from studio.exporting.summary import ExportSummary
from studio.graph.model import ModelGraph
from studio.graph.open import open_model as open_graph
from studio.jobs.events import CancelToken, Emit, Warned, silent
from studio.project.load_encodings import graph_with_encodings
from studio.project.steps import FROM_THE_FILE, batched, input_specs
from studio.project.techniques import TECHNIQUES, batch_of_model, parse_options
from studio.quant.encoding import Encoding
from studio.quant.statistics import TensorStatistics
from studio.runtime.ops import unsupported_ops
from studio.runtime.session import Session
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings, weights_to_calibrate_with
from studio.sim.found import found_encodings, uses_file
from studio.sim.placement import place
from studio.sim.plan import require_possible
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.technique import Outcome, Samples

Arrays = Any  # an array or torch tensor (batch, ...), or a mapping input name -> array


def open_model(
    path: str | Path,
    *,
    weights: str | Path | None = None,
    inputs: str | Iterable[str] = (),
    fixed_inputs: Mapping[str, Any] | None = None,
    fixed_size: bool = False,
    trust: bool = False,
) -> ModelGraph:
    """Open and prepare a model: a file (`.onnx`, `.pt2`, TorchScript, a pickled module),
    `"file.py:factory(...)"` or `"package.module:factory(...)"`.

    `weights` is a file for what a factory makes. `inputs` are what to trace with, written as
    `[name:]shape[:type]` with the batch dimension, separated by `;`; found out where possible.
    `fixed_inputs` gives inputs one value for good. `fixed_size=True` keeps all sizes but the batch
    as traced. `trust=True` is needed for whatever executes something when it is opened: all but
    `.onnx`. Raises ModelError, UnsupportedOpsError (all ops at once) and ConsentRequiredError.
    """
    return open_graph(
        path,
        weights=weights,
        inputs=inputs,
        fixed_inputs=fixed_inputs,
        fixed_size=fixed_size,
        trust=trust,
        check=unsupported_ops,
    )


class QuantSim:
    """A model as its quantized self: placed at once, calibrated with data, called like a function.

    `plan` says how every tensor is quantized or why not; `encodings` maps tensor names to their
    `Encoding` once calibrated. A model that came quantized has those of its file at once, unless
    `config.source_encodings` is False: it can be called and exported without calibration.
    """

    def __init__(self, graph: ModelGraph, config: QuantConfig | None = None) -> None:
        self.graph = graph
        self.config = config or QuantConfig()
        self.plan = place(graph, self.config)
        self.statistics: Mapping[str, TensorStatistics] = {}
        self.encodings: Mapping[str, Encoding] = found_encodings(graph, self.plan)
        self.data: Dataset | None = None
        self._session: Session | None = None
        self._original = graph
        self._given: Mapping[str, Encoding] = {}

    def calibrate(
        self,
        data: Dataset | Iterable[Arrays] | Arrays,
        *,
        batch_size: int | None = None,
        emit: Emit = silent,
        cancel: CancelToken | None = None,
    ) -> QuantSim:
        """Collect statistics on `data`: a dataset, an array of samples, or an iterable of batches
        (arrays, torch tensors, or mappings input name -> array). Batches whose samples differ in
        shape, or whose inputs have no batch axis in common, are calls of their own. Raises
        DataError, and ConfigError for settings that the target cannot do.
        """
        require_possible(self.plan)
        dataset = self._dataset(data)
        usable, size = batched(self.graph, dataset, batch_size)
        batches = (batch.inputs for batch in usable.batches(size, cancel=cancel))
        self.statistics = collect_statistics(
            self.graph,
            self.plan.observed,
            batches,
            len(usable),
            weights=weights_to_calibrate_with(self.graph, self.plan, self.config),
            emit=emit,
            cancel=cancel or CancelToken(),
        )
        for warning in usable.warnings:
            emit(Warned(warning))
        self.encodings = compute_encodings(
            self.graph, self.plan, self.statistics, given=self._given
        )
        self.data, self._session = usable, None
        return self

    def improve(
        self,
        technique: str,
        *,
        data: Dataset | Iterable[Arrays] | Arrays | None = None,
        emit: Emit = silent,
        cancel: CancelToken | None = None,
        **options: Any,
    ) -> Outcome:
        """Apply a technique by its name (`adaround`, `equalization`, `qat`, ...) with its options,
        as `quant-studio techniques` lists them; returns what it did (`summary`, `rows`).

        It reads `data` (default: the calibration data), of which those that measure use all.
        Raises ConfigError before calibration and for an unknown technique or option, DataError.
        """
        options_of_it = parse_options(technique, options)
        self._require_encodings()
        dataset = self.data if data is None else self._dataset(data)
        if dataset is None:
            raise DataError("There are no data to read.", "Give improve(..., data=...).")
        usable, size = batched(self.graph, dataset, None)
        batch_size = batch_of_model(self.graph, usable, size)
        samples = Samples(usable, usable, usable, batch_size, False, self._original)
        before = QuantizedModel(
            self.graph, self.config, self.plan, self.statistics, self._given, self.encodings
        )
        run = TECHNIQUES[technique].load()
        outcome = run(before, samples, options_of_it, emit, cancel or CancelToken())
        model = outcome.model
        self.graph, self.config, self.plan = model.graph, model.config, model.plan
        self.statistics, self.encodings, self._given = (
            model.statistics,
            model.encodings,
            model.given,
        )
        self._session = None
        return outcome

    def load_encodings(self, path: str | Path, *, partial: bool = False) -> MatchReport:
        """Quantize as the encodings file at `path` says; returns how file and model match.

        The file decides over the settings made so far; only the target stays. Tensors that it has
        nothing for stay float, or with `partial` follow the target's rules (calibrate then).
        Raises ConfigError naming what is wrong with the file, or does not fit the model.
        """
        config = QuantConfig(target=self.config.target)
        graph, report = graph_with_encodings(self.graph, config, Path(path), partial=partial)
        self.graph, self.config, self.plan = graph, config, place(graph, config)
        self._given = {}
        self.encodings = compute_encodings(graph, self.plan, self.statistics)
        self._session = None
        return report

    def __call__(self, inputs: Arrays) -> Any:
        """What the exported file computes for one batch.

        Returns torch tensors for torch tensors and arrays for arrays; a tuple if the model has
        several outputs. Raises ConfigError before calibration.
        """
        self._require_encodings()
        if self._session is None:
            self._session = simulated_session(self.graph, self.plan, self.encodings)
        first = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
        names = [value.name or "" for value in self.graph.outputs]
        values = self._session.run(self._named(inputs), names)
        results: tuple[Any, ...] = tuple(values[name] for name in names)
        if not isinstance(first, np.ndarray) and hasattr(first, "detach"):
            import torch

            results = tuple(torch.from_numpy(result) for result in results)
        return results[0] if len(results) == 1 else results

    def _require_encodings(self) -> None:
        known = self.data is not None or uses_file(self.graph, self.config)
        if not known or any(name not in self.encodings for name in self.plan.quantized):
            raise ConfigError("The model is not calibrated yet.", "Call calibrate(data) first.")

    def _named(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """`inputs` by input name, as arrays of the input's type."""
        specs = input_specs(self.graph)
        given = inputs if isinstance(inputs, Mapping) else {specs[0].name: inputs}
        missing = [spec.name for spec in specs if spec.name not in given]
        if missing:
            raise DataError(
                f"No values for the model input {missing[0]!r}.",
                f"Give a mapping with {', '.join(repr(spec.name) for spec in specs)}.",
            )
        return {spec.name: _array(given[spec.name], spec) for spec in specs}

    def _dataset(self, data: Any) -> Dataset:
        if isinstance(data, Dataset):
            return data
        if isinstance(data, (str, bytes)) or not (
            hasattr(data, "shape") or isinstance(data, Iterable)
        ):
            raise DataError(
                f"{data!r} holds no samples.",
                "Give an array, a dataset, or an iterable of batches.",
            )
        single = isinstance(data, Mapping) or hasattr(data, "shape")
        batches = [self._named(batch) for batch in ([data] if single else data)]
        if not batches:
            raise DataError("There is no sample to calibrate on.", "Give at least one batch.")
        specs = input_specs(self.graph)
        if self._are_calls(batches):
            return Calls("arrays", batches, specs)
        for index, batch in enumerate(batches):
            ArrayData(f"batch {index}", batch, None, specs)  # complains about shapes
        arrays = {}
        for spec in specs:
            parts = [batch[spec.name] for batch in batches]
            whole = [part if spec.batch is None else part.take([0], spec.batch) for part in parts]
            if len({part.shape for part in whole}) > 1:
                return Calls("arrays", batches, specs)
            if spec.batch is not None:
                arrays[spec.name] = np.concatenate(parts, spec.batch)
            elif all(np.array_equal(part, parts[0]) for part in parts):
                arrays[spec.name] = parts[0]
            else:
                return Calls("arrays", batches, specs)
        return ArrayData("arrays", arrays, None, specs)

    def _are_calls(self, batches: list[dict[str, np.ndarray]]) -> bool:
        """True if the inputs do not have one batch in common."""
        axes = {s.name: s.batch for s in input_specs(self.graph) if s.batch is not None}
        if not axes:
            return True
        shapes = {value.name: value.shape for value in self.graph.inputs}
        sizes = {str(shape[axis]) for name, axis in axes.items() if (shape := shapes[name])}
        lengths = [
            {batch[name].shape[axis] for name, axis in axes.items() if batch[name].ndim > axis}
            for batch in batches
        ]
        return len(sizes) > 1 and any(len(found) > 1 for found in lengths)


def _array(values: Any, spec: InputSpec) -> np.ndarray:
    """`values` as an array of the input's type."""
    try:
        array = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
        return array.astype(spec.dtype, copy=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The values for the model input {spec.name!r} are no array of {spec.dtype}: {error}.",
            "Give an array or a torch tensor.",
        ) from None


def export(
    sim: QuantSim,
    folder: str | Path,
    *,
    options: ExportOptions = DEFAULTS,
    data: Dataset | Iterable[Arrays] | Arrays | None = None,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> ExportSummary:
    """Write the artifacts of a calibrated `sim` that `options` ask for into `folder` and verify
    them on `data` (default: the calibration data).

    Raises ExportError, ConfigError before calibration, DataError without any data.
    """
    sim._require_encodings()
    dataset = sim.data if data is None else sim._dataset(data)
    if dataset is None:
        raise DataError("There is no data to verify the export on.", "Give export(..., data=...).")
    samples, batch_size = batched(sim.graph, dataset, VERIFIED_BATCH)
    return export_bundle(
        sim.graph,
        sim.config,
        sim.plan,
        sim.encodings,
        Path(folder),
        statistics=sim.statistics,
        calibration_data=FROM_THE_FILE if sim.data is None else sim.data.name,
        calibration_samples=0 if sim.data is None else len(sim.data),
        synthetic=sim.data is not None and sim.data.synthetic,
        evaluation=None,
        recipe=None,
        samples=samples,
        batch_size=batch_size,
        options=options,
        emit=emit,
        cancel=cancel or CancelToken(),
    )
