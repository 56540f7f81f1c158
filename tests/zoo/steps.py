"""One architecture through the whole product: open, compare, quantize, export, verify."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import studio
from studio.analysis.forecast import Runs
from studio.analysis.quality import DistanceMeter
from studio.graph.model import ModelGraph, ModelSource
from studio.graph.sources.python_source import build_module
from studio.runtime.executor import Executor
from studio.runtime.session import Session, float_session

from . import inputs
from .registry import ZOO, Entry

OTHER_BATCH = 3
CALIBRATION = (4, 4)
"""Batches of random data, and samples in each."""

EQUAL = 2e-5
"""Largest difference of an output that float rounding explains, relative to its largest value."""

ALIVE = 1e-3
"""An output differs between samples by at least this much of its largest value: else nothing would
be compared but constants."""

Arrays = tuple[np.ndarray, ...]


class WrongError(Exception):
    """A step ran, and its result is not what it has to be."""


@dataclass
class Result:
    """What became of one architecture.

    Differences are the largest over the outputs, relative to each output's largest value. None: not
    measured. unexplained: tensors with neither an encoding nor a reason. sqnr_db: the quantized
    model's first output against the float one's. export_sqnr_db: the exported file in onnxruntime
    against the simulation. exported_db, exported_top1: the same for the worst output; levels_db,
    levels_top1: onnxruntime with its optimisations on against off, of that output.
    integer_layers: those that onnxruntime runs in integers. not_as_forecast: those that it runs in
    another way than forecast. failures: step -> error; empty if all passed.
    """

    name: str
    family: str
    source_nodes: int | None = None
    nodes: int | None = None
    layers: int | None = None
    open_seconds: float | None = None
    torch_difference: float | None = None
    engine_difference: float | None = None
    batch_difference: float | None = None
    size_difference: float | None = None
    quantized: int | None = None
    floating: int | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    verified_layers: int | None = None
    identical: float | None = None
    steps: int | None = None
    sqnr_db: float | None = None
    export_sqnr_db: float | None = None
    all_identical: float | None = None
    within_one: float | None = None
    exported_db: float | None = None
    exported_top1: float | None = None
    levels_db: float | None = None
    levels_top1: float | None = None
    integer_layers: int | None = None
    not_as_forecast: list[str] = field(default_factory=list)
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    note: str = ""
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.failures


def run(entry: Entry) -> Result:
    """Every step in turn. A failing one is recorded, whatever it raises, and the run goes on while
    the next steps have what they need."""
    result = Result(entry.name, entry.family, note=entry.note or entry.fixed_batch)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        work = Work(entry, result, Path(folder))
        for name, step, needed in STEPS:
            try:
                step(work)
            except Exception as error:  # of the product's own and any other
                result.failures[name] = f"{type(error).__name__}: {error}"
                if needed:
                    break
    result.seconds = time.perf_counter() - begin
    return result


@dataclass
class Work:
    """What the steps hand on. The graph and the simulation are there once made."""

    entry: Entry
    result: Result
    folder: Path
    graph: ModelGraph = field(init=False)
    module: torch.nn.Module = field(init=False)
    sim: studio.QuantSim = field(init=False)

    @property
    def names(self) -> list[str]:
        return [value.name or "" for value in self.graph.inputs]

    def feeds(self, arrays: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(self.names, arrays, strict=True))

    def batch(self, count: int, seed: int) -> Arrays:
        """`count` samples, or what a fixed batch holds."""
        if self.entry.fixed_batch:
            return inputs.make(self.entry.inputs, [item.shape for item in self.entry.inputs], seed)
        return inputs.batch(self.entry.inputs, count, seed)


def open_and_prepare(work: Work) -> None:
    begin = time.perf_counter()
    work.graph = graph = studio.open_model(
        work.entry.source, inputs=[item.text for item in work.entry.inputs], trust=True
    )
    work.result.open_seconds = time.perf_counter() - begin
    assert graph.captured is not None
    work.result.source_nodes = sum(1 for _ in graph.captured.nodes())
    work.result.nodes = sum(1 for _ in graph.nodes())
    work.result.warnings = list(graph.warnings)
    work.module = build_module(ModelSource(ZOO / work.entry.file, work.entry.factory))


def compare(work: Work) -> None:
    """The prepared graph against PyTorch, and the two engines against each other."""
    result, entry = work.result, work.entry
    engines = Executor(work.graph), float_session(work.graph)
    first = inputs.make(entry.inputs, [item.shape for item in entry.inputs], seed=1)
    result.torch_difference, result.engine_difference = _differences(work, engines, first)
    if not entry.fixed_batch:
        others = work.batch(OTHER_BATCH, seed=2)
        result.batch_difference, between = _differences(work, engines, others)
        result.engine_difference = max(result.engine_difference, between)
        _check_alive(_reference(work.module, others))
    _check_equal("the prepared graph and PyTorch", result.torch_difference)
    _check_equal("they, at another batch size,", result.batch_difference)
    _check_equal("the torch engine and onnxruntime", result.engine_difference)


def compare_other_size(work: Work) -> None:
    """The same with images or sequences of another size."""
    result, entry = work.result, work.entry
    if not entry.other_shapes:
        return
    for item, value in zip(entry.inputs, work.graph.inputs, strict=True):
        fixed = [
            axis for axis in item.dynamic if value.shape and isinstance(value.shape[axis], int)
        ]
        if fixed:
            raise WrongError(
                f"axis {fixed[0]} of {value.name} is fixed. {' '.join(result.warnings)}"
            )
    engines = Executor(work.graph), float_session(work.graph)
    sized = inputs.make(entry.inputs, entry.other_shapes, seed=3)
    result.size_difference, between = _differences(work, engines, sized)
    result.engine_difference = max(result.engine_difference or 0.0, between)
    _check_equal("the prepared graph and PyTorch", result.size_difference)
    _check_equal("the torch engine and onnxruntime", between)


def calibrate(work: Work) -> None:
    """8-bit weights and activations, a few batches of random data."""
    work.sim = sim = studio.QuantSim(work.graph, studio.QuantConfig(target="onnxruntime"))
    count, size = CALIBRATION
    sim.calibrate([work.feeds(work.batch(size, seed=10 + index)) for index in range(count)])


def check_placement(work: Work) -> None:
    """Every tensor has an encoding or a reason."""
    result, sim, plan = work.result, work.sim, work.sim.plan
    result.layers = len(plan.layers)
    result.quantized = len(plan.quantized)
    floating = [row for row in plan.tensors.values() if row.spec is None]
    result.floating = len(floating)
    for row in floating:
        result.reasons[row.reason] = result.reasons.get(row.reason, 0) + 1
    known = {row.name for row in floating if row.reason} | set(sim.encodings)
    result.unexplained = [name for name in _tensors(work.graph) if name not in known]
    if result.unexplained:
        raise WrongError(f"neither encoding nor reason: {', '.join(result.unexplained[:5])}")


def simulate(work: Work) -> None:
    """The quantized model's first output against the float one's."""
    data = work.batch(4, seed=10)
    float_output = next(iter(float_session(work.graph).run(work.feeds(data)).values()))
    simulated = work.sim(work.feeds(data))
    simulated = simulated[0] if isinstance(simulated, tuple) else simulated
    if simulated.shape != float_output.shape or not np.isfinite(simulated).all():
        raise WrongError("the simulated output has another shape or is not finite")
    meter = DistanceMeter()
    meter.add(float_output, simulated)
    work.result.sqnr_db = meter.result().sqnr_db


def export_and_verify(work: Work) -> None:
    """The exported file equals the simulation layer by layer."""
    summary = studio.export(work.sim, work.folder / "export")
    verification = summary.verification
    assert verification is not None
    result = work.result
    result.verified_layers = len(verification.layers)
    result.identical = verification.identical
    result.steps = verification.largest
    result.export_sqnr_db = verification.plain.distance.sqnr_db
    result.all_identical = verification.all_identical
    result.within_one = verification.within_one
    worst = min(verification.outputs, key=lambda output: output.plain.distance.sqnr_db)
    result.exported_db = worst.plain.distance.sqnr_db
    result.exported_top1 = worst.plain.agreement
    result.levels_db = worst.itself.distance.sqnr_db
    result.levels_top1 = worst.itself.agreement
    result.integer_layers = sum(row.runs is Runs.INTEGER for row in verification.kernels)
    result.not_as_forecast = [
        f"{row.layer}: {row.runs} ({row.kernel}), forecast {row.forecast}"
        for row in verification.not_as_forecast
    ]
    if verification.problem:
        raise WrongError(verification.problem)
    if result.not_as_forecast:
        raise WrongError(f"not as forecast: {'; '.join(result.not_as_forecast[:3])}")


def run_exported(work: Work) -> None:
    """The exported file takes the sizes that the module takes."""
    session = Session(work.folder / "export" / "model.onnx")
    own = work.batch(OTHER_BATCH, seed=4)
    for shapes in filter(None, ([array.shape for array in own], work.entry.other_shapes)):
        data = inputs.make(work.entry.inputs, shapes, seed=4)
        outputs = session.run(work.feeds(data)).values()
        for actual, reference in zip(outputs, _reference(work.module, data), strict=True):
            if actual.shape != reference.shape or not np.isfinite(actual).all():
                raise WrongError(f"an output has another shape or is not finite for {shapes}")


# name, step, whether the next ones need it
STEPS: tuple[tuple[str, Callable[[Work], None], bool], ...] = (
    ("open", open_and_prepare, True),
    ("compare", compare, False),
    ("compare at another size", compare_other_size, False),
    ("calibrate", calibrate, True),
    ("place", check_placement, False),
    ("simulate", simulate, False),
    ("export", export_and_verify, True),
    ("run the exported file", run_exported, False),
)


def _tensors(graph: ModelGraph) -> list[str]:
    """Names of all tensors of the graph."""
    names = [value.name or "" for value in graph.inputs]
    for node in graph.nodes():
        names += [value.name or "" for value in node.outputs]
    return list(dict.fromkeys(name for name in (*names, *graph.initializers) if name))


def _reference(module: torch.nn.Module, arrays: Arrays) -> list[np.ndarray]:
    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(array) for array in arrays))
    return [tensor.numpy() for tensor in _flat(outputs)]


def _flat(outputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _flat(value)
    else:
        for value in outputs:
            yield from _flat(value)


def _differences(
    work: Work, engines: tuple[Executor, Session], arrays: Arrays
) -> tuple[float, float]:
    """(onnxruntime from PyTorch, the engines from each other) on the prepared graph."""
    executor, session = engines
    feeds = work.feeds(arrays)
    with torch.inference_mode():
        ours = [tensor.numpy() for tensor in executor.run(feeds).values()]
    theirs = list(session.run(feeds).values())
    reference = _reference(work.module, arrays)
    return (
        max(largest_difference(reference, ours), largest_difference(reference, theirs)),
        largest_difference(theirs, ours),
    )


def largest_difference(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """max |difference| / max |expected| of the worst output; WrongError for other shapes."""
    if len(expected) != len(actual):
        raise WrongError(f"{len(actual)} outputs, not {len(expected)}")
    worst = 0.0
    for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
        if one.shape != other.shape:
            raise WrongError(f"output {index} has the shape {other.shape}, not {one.shape}")
        if not np.isfinite(one).all() or not np.isfinite(other).all():
            raise WrongError(f"output {index} is not finite")
        difference = np.abs(one.astype(np.float64) - other).max(initial=0.0)
        worst = max(worst, float(difference / max(np.abs(one).max(initial=0.0), 1e-12)))
    return worst


def _check_equal(what: str, difference: float | None) -> None:
    if difference is not None and not difference <= EQUAL:
        raise WrongError(f"{what} differ by {difference:.1e} of the largest value")


def _check_alive(outputs: Sequence[np.ndarray]) -> None:
    """The zoo's own mistake: an output that is the same for every sample."""
    for index, output in enumerate(outputs):
        values = output.astype(np.float64)
        apart = np.abs(values - values.mean(0, keepdims=True)).max(initial=0.0)
        if apart < ALIVE * np.abs(values).max(initial=0.0):
            raise WrongError(f"output {index} hardly depends on the input")
