"""The validation report of a document: on a sample of its data where it has some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from studio.analysis.cost import Shapes, tensors_to_measure
from studio.analysis.validation import Finding, Severity, Validation, validate
from studio.data.random import RandomData
from studio.errors import ModelError, StudioError
from studio.graph.model import ModelGraph
from studio.project.document import Document
from studio.project.steps import batched, example_specs, open_dataset
from studio.runtime.ops import unsupported_ops
from studio.sim.target import load_target


@dataclass(frozen=True)
class Measured:
    """Shapes of the tensors on one sample; `failure` says why there are none."""

    shapes: Shapes
    failure: Finding | None = None


def measure_document(document: Document) -> Measured:
    """Run the model on one sample: of the chosen data, else of random data (224 a side for
    pictures). What the settings are does not matter."""
    if unsupported_ops(document.graph):
        return Measured(_inferred(document.graph))
    # torch is slow to import: only when a report is made
    from studio.runtime.shapes import measured_shapes

    graph = document.graph
    try:
        shapes = measured_shapes(graph, _sample(document), tensors_to_measure(graph))
    except StudioError as error:
        return Measured({}, _not_run(error))
    return Measured(shapes)


def validate_document(document: Document, measured: Measured | None = None) -> Validation:
    """What to know about the document's model before calibrating it.

    `measured` is what `measure_document` found for this model and data (None: found now). Where the
    model did not run on the sample, costs are unknown and a finding says why.
    """
    measured = measured or measure_document(document)
    graph, target = document.graph, load_target(document.config.target)
    report = validate(graph, document.plan, target, measured.shapes, unsupported_ops(graph))
    if measured.failure is None:
        return report
    return replace(report, findings=(measured.failure, *report.findings))


def _sample(document: Document) -> Mapping[str, np.ndarray]:
    if document.data is not None:
        dataset = open_dataset(document, document.data).subset(1)
    else:
        dataset = RandomData(example_specs(document.graph), 1, seed=0)
    usable, size = batched(document.graph, dataset, 1)
    batch = next(iter(usable.batches(size)), None)
    if batch is None:
        raise ModelError("There is no sample to run the model on.", "Choose other data.")
    return batch.inputs


def _inferred(graph: ModelGraph) -> Shapes:
    """What is known of the shapes of a model that cannot be run, for one sample."""
    shapes = {}
    for name in tensors_to_measure(graph):
        sizes = graph.value(name).shape or ()
        known = [size if isinstance(size, int) else None for size in sizes]
        if known and known[0] is None:
            known[0] = 1
        if known and None not in known:
            shapes[name] = [size for size in known if size is not None]
    return shapes


def _not_run(error: StudioError) -> Finding:
    return Finding(
        Severity.WARNING,
        "cost",
        "",
        f"The model did not run on a sample, so its cost is not known. {error}",
        "Choose data of the size the model wants, then validate again.",
    )
