"""The validation report of a document: on a sample of its data where it has some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from studio.analysis.cost import Shapes, tensors_to_measure
from studio.analysis.validation import Finding, Severity, Validation, validate
from studio.data.random import RandomData
from studio.errors import ModelError, StudioError
from studio.project.document import Document
from studio.project.steps import batched, input_specs, open_dataset
from studio.runtime.ops import unsupported_ops
from studio.sim.target import load_target


def validate_document(document: Document) -> Validation:
    """What to know about the document's model before calibrating it.

    Sizes left open in the model are those of one sample: of the chosen data, else of random data
    (224 a side for pictures). Where the model does not run on it, costs are unknown and a finding
    says why.
    """
    graph = document.graph
    unsupported = unsupported_ops(graph)
    shapes: Shapes = {}
    failure: tuple[Finding, ...] = ()
    if not unsupported:
        try:
            shapes = _shapes(document)
        except StudioError as error:
            failure = (_not_run(error),)
    target = load_target(document.config.target)
    report = validate(graph, document.plan, target, shapes, unsupported)
    return replace(report, findings=(*failure, *report.findings))


def _shapes(document: Document) -> Shapes:
    # torch is slow to import: only when a report is made
    from studio.runtime.shapes import measured_shapes

    return measured_shapes(document.graph, _sample(document), tensors_to_measure(document.graph))


def _sample(document: Document) -> Mapping[str, np.ndarray]:
    if document.data is not None:
        dataset = open_dataset(document, document.data).subset(1)
    else:
        dataset = RandomData(input_specs(document.graph), 1, seed=0)
    usable, size = batched(document.graph, dataset, 1)
    batch = next(iter(usable.batches(size)), None)
    if batch is None:
        raise ModelError("There is no sample to run the model on.", "Choose other data.")
    return batch.inputs


def _not_run(error: StudioError) -> Finding:
    return Finding(
        Severity.WARNING,
        "cost",
        "",
        f"The model did not run on a sample, so its cost is not known. {error}",
        "Choose data of the size the model wants, then validate again.",
    )
