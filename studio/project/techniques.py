"""The techniques a document can be improved with, and applying them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from studio.data.calls import Calls, share_a_batch
from studio.data.dataset import Dataset
from studio.errors import ConfigError
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken, Emit, Event, Progress, silent
from studio.project.document import Document
from studio.project.recipe import TechniqueStep
from studio.project.steps import document_data, input_specs, require_calibration
from studio.project.whole_batches import WholeBatches
from studio.ptq.technique import TECHNIQUES as POST_TRAINING
from studio.qat.technique import QAT
from studio.sim.quantized_model import QuantizedModel
from studio.techniques.applied import Applied
from studio.techniques.history import Recorder
from studio.techniques.technique import Options, Samples, Technique

TECHNIQUES: dict[str, Technique] = {
    technique.name: technique for technique in (*POST_TRAINING, QAT)
}
"""All techniques by name."""


def parse_options(name: str, values: Mapping[str, Any]) -> Options:
    """Options of the technique `name` from JSON-like values; ConfigError names what is wrong."""
    technique = TECHNIQUES.get(name)
    if technique is None:
        raise ConfigError(
            f"There is no technique {name!r}.", f"Techniques: {', '.join(TECHNIQUES)}."
        )
    try:
        return technique.options.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the options"
        known = ", ".join(technique.options.model_fields)
        raise ConfigError(
            f"{name}: {where}: {first['msg']} (got {first.get('input')!r}).", f"Options: {known}."
        ) from None


def parse_step(text: str) -> TechniqueStep:
    """`NAME[:key=value,...]` -> a step of a recipe; ConfigError names what is wrong."""
    name, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",")] if rest else []
    wrong = [key for key, equals, _ in pairs if not equals]
    if wrong:
        raise ConfigError(
            f"The technique {text!r} has {wrong[0]!r}, which is not of the form key=value.",
            "Give for example qat:epochs=3,ranges=fixed.",
        )
    step = TechniqueStep(technique=name, options={key: value for key, _, value in pairs})
    parse_options(step.technique, step.options)
    return step


def apply_technique(
    document: Document,
    name: str,
    options: Options,
    *,
    emit: Emit = silent,
    cancel: CancelToken | None = None,
) -> Document:
    """`document` improved by a technique. Raises ConfigError, DataError and CancelledError; the
    document is as it was then."""
    technique = TECHNIQUES[name]
    if technique.calibrated:
        require_calibration(document)
    emit(Progress(technique.title, 0, 0, "reading the data"))
    recorder = Recorder()
    started = time.monotonic()

    def record(event: Event) -> None:
        recorder.add(event)
        emit(event)

    outcome = technique.load()(
        document.model, _samples(document), options, record, cancel or CancelToken()
    )
    chosen, defaults = (o.model_dump(mode="json") for o in (options, technique.options()))
    applied = Applied(
        name,
        chosen,
        outcome.summary,
        outcome.measure,
        outcome.rows,
        recorder.history(),
        outcome.chart,
        title=technique.title,
        changed=tuple(key for key, value in chosen.items() if value != defaults[key]),
        seconds=time.monotonic() - started,
        configs=(document.config, outcome.model.config),
    )
    return replace(with_model(document, outcome.model), applied=(*document.applied, applied))


def with_model(document: Document, model: QuantizedModel) -> Document:
    """`document` with another model of the same graph, maybe with additions; results of the old one
    are dropped."""
    before = document.graph.initializers
    changed = {
        name
        for name, value in model.graph.initializers.items()
        if name not in before or value.const_value is not before[name].const_value
    }
    calibration = document.calibration
    if calibration is not None and model.statistics is not calibration.statistics:
        calibration = replace(calibration, statistics=model.statistics)
    return replace(
        document,
        graph=model.graph,
        config=model.config,
        plan=model.plan,
        calibration=calibration,
        encodings=model.encodings,
        given=model.given,
        tuned=document.tuned | changed,
        untuned=document.original if document.tuned | changed else None,
        evaluation=None,
        sensitivity=None,
        export=None,
    )


def _samples(document: Document) -> Samples:
    settings, training, size = document_data(document, training=True)
    _, validation, _ = document_data(document)
    apart = settings.training_path is not None
    calibration = training.subset(settings.calibration_size)
    batch_size = batch_of_model(document.graph, training, size)
    return Samples(calibration, training, validation, batch_size, apart, document.original)


def batch_of_model(graph: ModelGraph, data: Dataset, size: int) -> int | None:
    """`size`, with which `data` are read, if the model takes no other; else None."""
    # A fixed batch, or one call of the model at a time.
    given = isinstance(data, WholeBatches | Calls) or not share_a_batch(input_specs(graph))
    return size if given else None
