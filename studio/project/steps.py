"""The steps from a model file to an export, each from a `Document` to a new one.

The window runs them in a background thread, the command line in the foreground; both get the same
numbers. Every step takes `emit` (what happens) and `cancel`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from studio.analysis.evaluate import evaluate as evaluate_model
from studio.analysis.sensitivity import DEFAULTS as SENSITIVITY
from studio.analysis.sensitivity import SensitivityOptions
from studio.analysis.sensitivity import sensitivity as analyse
from studio.data.batch_axis import batch_axes
from studio.data.calls import Calls, share_a_batch
from studio.data.dataset import Dataset, InputSpec
from studio.data.opening import guess_for, open_data
from studio.data.random import RandomData
from studio.errors import ConfigError, DataError
from studio.exporting.bundle import export_bundle
from studio.exporting.options import DEFAULTS, ExportOptions
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.open import open_model
from studio.graph.open import prepare_again as prepare_graph_again
from studio.graph.sources.source import ExampleInput
from studio.jobs.events import CancelToken, Emit, Progress, Warned, silent
from studio.project.document import Calibration, DataSettings, Document
from studio.project.load_encodings import graph_with_encodings
from studio.project.recipe import document_recipe
from studio.project.whole_batches import WholeBatches
from studio.runtime.ops import unsupported_ops
from studio.runtime.world import join_world
from studio.sim.calibration import collect_statistics
from studio.sim.candidates import tensors_to_observe
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings, weights_to_calibrate_with
from studio.sim.found import found_encodings
from studio.sim.placement import place
from studio.sim.plan import require_possible

CACHED_BYTES = 2**20
"""Input bytes of a batch chosen by the studio; activations take some ten times as much."""

FROM_THE_FILE = "the model's file"
"""Stands for the calibration data of a model that came quantized."""

LARGEST_BATCH = 64
UNKNOWN_SIDE = 224
"""Stands for a dynamic dimension where a size has to be guessed."""


def open_document(
    path: str | Path | ModelSource,
    *,
    weights: Path | None = None,
    inputs: str | Iterable[str | ExampleInput] = (),
    fixed_inputs: Mapping[str, Any] | None = None,
    fixed_size: bool = False,
    without: Sequence[str] | None = None,
    trust: bool = False,
    config: QuantConfig | None = None,
    encodings: Path | None = None,
    partial_encodings: bool = False,
    executable: bool = True,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> Document:
    """Open and prepare a model, see `studio.graph.open.open_model`, `without` some of the rules.

    `encodings` is a file that says how the model is quantized where `config` does not ask for
    something else, see `load_encodings`. `executable` False opens a model with operators that
    cannot be executed as well, to report on. Raises ModelError, UnsupportedOpsError,
    ConsentRequiredError for Python without `trust`, and ConfigError for bad encodings.
    """
    emit(Progress("Opening", 0, 2, "reading and preparing the model"))
    graph = open_model(
        path,
        weights=weights,
        inputs=inputs,
        fixed_inputs=fixed_inputs,
        fixed_size=fixed_size,
        without=without,
        trust=trust,
        check=unsupported_ops if executable else None,
    )
    (cancel or CancelToken()).check()
    emit(Progress("Opening", 1, 2, "placing quantizers"))
    config = config or QuantConfig()
    if encodings is not None:
        named = replace(graph.source, encodings=encodings, encodings_partial=partial_encodings)
        graph = replace(graph, source=named)
    graph = _with_its_encodings(graph, config, emit)
    plan = place(graph, config)
    return Document(graph=graph, config=config, plan=plan, encodings=found_encodings(graph, plan))


def _with_its_encodings(graph: ModelGraph, config: QuantConfig, emit: Emit) -> ModelGraph:
    """`graph` with the encodings of the file that its source names, if it names one."""
    path, partial = graph.source.encodings, graph.source.encodings_partial
    if path is None:
        return graph
    return graph_with_encodings(graph, config, path, partial=partial, emit=emit)[0]


def prepare_again(
    document: Document,
    without: Sequence[str],
    *,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> Document:
    """The document's model prepared anew without the rules named, under the same settings.

    Neither reads nor executes the model's file again (but an encodings file given with it).
    Calibration is kept for the tensors that are still there by name, results are dropped. Raises
    ConfigError and UnsupportedOpsError.
    """
    emit(Progress("Preparing", 0, 2, "preparing the model again"))
    graph = prepare_graph_again(document.graph, without, check=unsupported_ops)
    graph = _with_its_encodings(graph, document.config, emit)
    (cancel or CancelToken()).check()
    emit(Progress("Preparing", 1, 2, "placing quantizers"))
    calibration = document.calibration
    if calibration is not None:
        known = {
            name: found for name, found in calibration.statistics.items() if graph.has_value(name)
        }
        if len(known) < len(calibration.statistics):
            calibration = replace(calibration, statistics=known)
    plan = place(graph, document.config)
    prepared = replace(
        document,
        graph=graph,
        plan=plan,
        calibration=calibration,
        encodings=found_encodings(graph, plan),
        evaluation=None,
        sensitivity=None,
        export=None,
    )
    if calibration is None:
        return prepared
    return refresh_encodings(prepared, emit=emit, cancel=cancel)


def input_specs(graph: ModelGraph) -> list[InputSpec]:
    """What the model wants to be fed, in order."""
    specs = []
    found = [[] if value.shape is None else list(value.shape) for value in graph.inputs]
    axes = batch_axes([[_size(size) for size in sizes] for sizes in found])
    for value, sizes, axis in zip(graph.inputs, found, axes, strict=True):
        # Some exporters write -1 for a dynamic side.
        shape = tuple(size if isinstance(size, int) and size > 0 else None for size in sizes)
        dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
        specs.append(InputSpec(value.name or "", shape, dtype, axis))
    return specs


def _size(size: int | ir.SymbolicDim) -> int | str | None:
    if isinstance(size, int):
        return size if size > 0 else None
    return size.value


def example_specs(graph: ModelGraph) -> list[InputSpec]:
    """`input_specs` with the sizes of the example the model was traced with, but for the batch."""
    specs = []
    for spec in input_specs(graph):
        sizes = [
            own if axis == spec.batch else example
            for axis, (own, example) in enumerate(
                zip(spec.shape, graph.example_shape(spec.name), strict=True)
            )
        ]
        specs.append(replace(spec, shape=tuple(sizes)))
    return specs


def default_data(document: Document, path: Path | None = None) -> DataSettings:
    """Data settings for the model's first input, with preprocessing guessed from its shape."""
    spec = example_specs(document.graph)[0]
    preprocess = guess_for(spec) if len(spec.shape) == 4 else None
    return DataSettings(path=path, preprocess=preprocess)


def open_dataset(document: Document, settings: DataSettings) -> Dataset:
    """The data of `settings` for the model of `document`. Raises DataError."""
    specs = input_specs(document.graph)
    if settings.path is None:
        examples = example_specs(document.graph)
        return RandomData(examples, settings.calibration_size, seed=0)
    return open_data(settings.path, specs, settings.preprocess)


def document_data(
    document: Document, *, training: bool = False
) -> tuple[DataSettings, Dataset, int]:
    """The data of `document` and the batch size to read it with; with `training` what is calibrated
    and trained on. Raises DataError."""
    if document.data is None:
        raise DataError("No data has been chosen.", "Choose a folder with images or arrays.")
    settings = document.data
    if training and settings.training_path is not None:
        settings = settings.model_copy(update={"path": settings.training_path})
    dataset = open_dataset(document, settings)
    return document.data, *batched(document.graph, dataset, document.data.batch_size)


def batched(graph: ModelGraph, dataset: Dataset, wanted: int | None) -> tuple[Dataset, int]:
    """`dataset` and the batch size to read it with: `wanted` (None: one that fits the processor's
    cache), or what the model is fixed to.

    Raises DataError if there are fewer samples than a fixed batch size needs.
    """
    specs = input_specs(graph)
    if isinstance(dataset, Calls) or not share_a_batch(specs):
        return dataset, 1
    fixed = [spec.shape[spec.batch] for spec in specs if spec.batch is not None]
    if fixed[0] is None:
        return dataset, wanted or cached_batch(example_specs(graph))
    return WholeBatches(dataset, fixed[0]), fixed[0]


def cached_batch(specs: list[InputSpec]) -> int:
    """Samples whose inputs take `CACHED_BYTES` together, 1 to `LARGEST_BATCH`."""
    sizes = [
        spec.dtype.itemsize * math.prod(side or UNKNOWN_SIDE for side in spec.sample_shape)
        for spec in specs
    ]
    return min(max(CACHED_BYTES // max(sum(sizes), 1), 1), LARGEST_BATCH)


def _report(dataset: Dataset, emit: Emit) -> None:
    for warning in dataset.warnings:
        emit(Warned(warning))


def refresh_encodings(
    document: Document, *, emit: Emit = silent, cancel: CancelToken | None = None
) -> Document:
    """Encodings for the document's settings from the statistics it has; the data are not read."""
    emit(Progress("Computing encodings", 0, 1))
    statistics = document.calibration.statistics if document.calibration else {}
    encodings = compute_encodings(document.graph, document.plan, statistics, cancel, document.given)
    return replace(document, encodings=encodings)


def change_config(
    document: Document,
    config: QuantConfig,
    *,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> Document:
    """The document under other settings, its encodings up to date."""
    return refresh_encodings(document.with_config(config), emit=emit, cancel=cancel)


def calibrate(
    document: Document, *, emit: Emit = silent, cancel: CancelToken | None = None
) -> Document:
    """Collect statistics on the document's data and compute every encoding. Raises ConfigError for
    settings that the target cannot do."""
    require_possible(document.plan)
    cancel = cancel or CancelToken()
    settings, dataset, batch_size = document_data(document, training=True)
    subset = dataset.subset(settings.calibration_size)
    world = join_world()
    positions = np.arange(len(subset))
    share = world.share(positions, batch_size)
    mine: Dataset | None = subset
    if world.size > 1:
        mine = subset.select(share) if len(share) else None  # fewer batches than processes
    read: list[int] = []  # fewer samples than there are pictures where some are broken

    def inputs() -> Iterator[Mapping[str, np.ndarray]]:
        if not world.first:  # it tells the shapes
            for batch in subset.select(positions[:batch_size]).batches(batch_size):
                yield batch.inputs
        if mine is not None:
            for batch in mine.batches(batch_size, cancel=cancel):
                read.append(len(batch))
                yield batch.inputs

    statistics = collect_statistics(
        document.graph,
        tensors_to_observe(document.graph, document.config, document.plan),
        inputs(),
        len(subset),
        weights=weights_to_calibrate_with(document.graph, document.plan, document.config),
        world=world,
        emit=emit,
        cancel=cancel,
    )
    _report(mine or subset, emit)
    (count,) = world.total([float(sum(read))])
    calibration = Calibration(statistics, dataset.name, int(count), dataset.synthetic)
    calibrated = replace(document.without_results(), calibration=calibration)
    return refresh_encodings(calibrated, emit=emit, cancel=cancel)


def evaluate(
    document: Document, *, emit: Emit = silent, cancel: CancelToken | None = None
) -> Document:
    """Measure the simulated model against float on the document's data."""
    require_calibration(document)
    settings, dataset, batch_size = document_data(document)
    evaluation = evaluate_model(
        document.graph,
        document.plan,
        document.encodings,
        dataset,
        original=document.original,
        limit=settings.evaluation_size,
        batch_size=batch_size,
        emit=emit,
        cancel=cancel or CancelToken(),
    )
    _report(dataset, emit)
    return replace(document, evaluation=evaluation)


def sensitivity(
    document: Document,
    options: SensitivityOptions = SENSITIVITY,
    *,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> Document:
    """Measure what the quantization of each layer does, on the document's data."""
    require_calibration(document)
    _, dataset, batch_size = document_data(document)
    found = analyse(
        document.graph,
        document.plan,
        document.encodings,
        dataset,
        original=document.original,
        options=options,
        batch_size=batch_size,
        emit=emit,
        cancel=cancel or CancelToken(),
    )
    _report(dataset, emit)
    return replace(document, sensitivity=found)


def export(
    document: Document,
    folder: Path,
    *,
    options: ExportOptions = DEFAULTS,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> Document:
    """Write the artifacts that `options` ask for to `folder` and verify them.

    Raises ExportError, and ConfigError for options that contradict the target; nothing is left
    half-written.
    """
    require_possible(document.plan)
    require_calibration(document)
    _, dataset, batch_size = document_data(document)
    calibration = document.calibration or Calibration({}, FROM_THE_FILE, 0, synthetic=False)
    summary = export_bundle(
        document.graph,
        document.config,
        document.plan,
        document.encodings,
        folder,
        statistics=calibration.statistics,
        calibration_data=calibration.data,
        calibration_samples=calibration.samples,
        synthetic=calibration.synthetic,
        evaluation=document.evaluation,
        sensitivity=document.sensitivity,
        applied=document.applied,
        recipe=document_recipe(document, folder, options).model_dump(mode="json"),
        samples=dataset,
        batch_size=batch_size,
        options=options,
        emit=emit,
        cancel=cancel or CancelToken(),
    )
    return replace(document, export=summary)


def require_calibration(document: Document) -> None:
    known = document.calibration is not None or document.from_file
    if not (known and document.calibrated):
        raise ConfigError("The model is not calibrated yet.", "Calibrate first.")
