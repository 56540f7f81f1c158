"""Take published models through the product and write the table of results.

    python -m tests.zoo.real FOLDER [--photos FOLDER] [--only NAME ...] [--table FILE]

FOLDER has the unpacked wheels, each in a folder of its own name. The packages themselves are
neither installed nor imported.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import studio
from studio.analysis.quality import DistanceMeter
from studio.graph.model import ModelSource
from studio.graph.sources.python_source import build_module
from studio.runtime.executor import Executor
from studio.runtime.session import Optimizations, Session, float_session
from studio.runtime.threads import limit_threads

from .real_models import PRETRAINED, Feeds, Outputs, Real, models
from .registry import Entry
from .steps import (
    EQUAL,
    Result,
    Work,
    WrongError,
    check_placement,
    export_and_verify,
    largest_difference,
)
from .table import percent

ROUNDING = 4
PHOTOS = Path(__file__).parents[2] / "../shared/data/imagenet-sample"

HEAD = f"""# Published models

Models as they are published, taken through the whole studio: opened, prepared, compared with what
they are in onnxruntime (`.onnx`), in TorchScript, or in PyTorch (weights, on their published
architecture, every name and shape matched), quantized to 8-bit weights and activations for
`onnxruntime` on data like their own, exported, and the exported file verified against the
simulation layer by layer. The data: photographs of ImageNet, drawn lines of text, synthetic
speech-like sound, written sentences. `python -m tests.zoo.real FOLDER --table FILE` writes this.

- **nodes → layers**: operators of the graph as opened, and layers after preparation.
- **difference**: the largest of the prepared graph's outputs, in both engines, from the published
  model's, relative to the output's largest value. At most {EQUAL:.0e} passes, or {ROUNDING} times
  what onnxruntime's results for the published file differ with its optimisations on and off.
- **quantized**, **float**: tensors with an encoding, and without one but with a stated reason.
- **layers verified**, **identical**, **steps**: layers of the exported file compared with the
  simulation on equal inputs; the smallest share of equal integers, the largest difference in steps.
- **SQNR**: of the quantized model's first output against float. **decisions**: share of what the
  outputs are used for (a class, a character, a pixel of text, the most similar sentence) that is
  the same quantized as in float, on the calibration data. Settings are the default ones, and no
  technique beyond calibration is used; rows that say so have other settings. In 320n one output
  holds boxes (to 320) and scores (to 1): one scale for both leaves nothing of the scores.

"""
COLUMNS = (
    "model", "package", "what", "nodes → layers", "difference", "quantized", "float",
    "layers verified", "identical", "steps", "SQNR, dB", "decisions", "s",
)  # fmt: skip


@dataclass
class RealResult(Result):
    """`Result` with what a published model has besides."""

    package: str = ""
    decisions: float | None = None


class Published:
    """The model as it is published, called with feeds by input name."""

    def __init__(self, model: Real, path: Path) -> None:
        self.session = self.optimized = self.module = None
        if model.factory:
            file, factory = model.factory.split(":")
            source = ModelSource(PRETRAINED / file, factory, weights=path)
            self.module = build_module(source)
        elif path.suffix == ".onnx":
            self.session = Session(path, optimizations=Optimizations.NONE)
            self.optimized = Session(path)
        else:
            self.module = torch.jit.load(path).eval()
        self.fixed = model.fixed

    def __call__(self, feed: dict[str, np.ndarray]) -> Outputs:
        if self.session is not None:
            return self._run(self.session, feed)
        assert self.module is not None
        if isinstance(self.module, torch.jit.ScriptModule):
            self.module.reset_states()
        with torch.inference_mode():
            found = self.module(*(torch.from_numpy(a) for a in feed.values()), *self.fixed.values())
        return [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]

    def rounding(self, feed: dict[str, np.ndarray]) -> float:
        """How much onnxruntime's results differ with optimisations on and off; 0 for modules."""
        if self.session is None or self.optimized is None:
            return 0.0
        return largest_difference(self._run(self.session, feed), self._run(self.optimized, feed))

    def _run(self, session: Session, feed: dict[str, np.ndarray]) -> Outputs:
        fixed = {name: np.array(value) for name, value in self.fixed.items()}
        return list(session.run({**feed, **fixed}).values())


def main() -> int:
    options = _parser().parse_args()
    limit_threads(1)
    results = []
    for model in models():
        if options.only and model.name not in options.only:
            continue
        results.append(run(model, options.folder, options.photos))
        result = results[-1]
        failed = "; ".join(f"FAILED {step}: {error}" for step, error in result.failures.items())
        print(f"{model.name:28} {result.seconds:6.1f} s  {failed or 'ok'}", flush=True)
    if options.table is not None:
        part = options.table.with_name(f".{options.table.name}.part")
        part.write_text(page(results), encoding="utf-8")
        os.replace(part, options.table)
    return 0 if all(result.passed for result in results) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.real", description=__doc__)
    parser.add_argument("folder", type=Path, help="the unpacked wheels")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder of photographs")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--table", type=Path, help="where to write the page with the table")
    return parser


def run(model: Real, folder: Path, photos: Path) -> RealResult:
    """Every step in turn; the first that fails ends it."""
    result = RealResult(model.name, model.what, package=_package(folder / model.package))
    begin, step = time.perf_counter(), "data"
    with tempfile.TemporaryDirectory(prefix="real-") as scratch:
        work = Work(Entry(model.name, model.what, "", "", ()), result, Path(scratch))
        try:
            path = folder / model.package / model.file
            feeds = model.feeds(folder, photos)
            step = "open"
            _open(work, model, path)
            step = "compare"
            expected = _compare(work, Published(model, path), feeds)
            step = "calibrate"
            work.sim = studio.QuantSim(work.graph, model.config).calibrate(feeds)
            check_placement(work)
            step = "simulate"
            _simulate(work, model, feeds, expected)
            step = "export"
            export_and_verify(work)
        except Exception as error:  # of the product's own and any other
            result.failures[step] = f"{type(error).__name__}: {error}"
    result.seconds = time.perf_counter() - begin
    return result


def _open(work: Work, model: Real, path: Path) -> None:
    if model.factory:
        source, weights = str(PRETRAINED / model.factory), path
    else:
        source, weights = str(path), None
    work.graph = graph = studio.open_model(
        source, weights=weights, inputs=model.inputs, fixed_inputs=model.fixed, trust=True
    )
    assert graph.captured is not None
    work.result.source_nodes = sum(1 for _ in graph.captured.nodes())
    work.result.warnings = list(graph.warnings)


def _compare(work: Work, published: Published, feeds: Feeds) -> list[Outputs]:
    """The prepared graph in both engines against the published model, on all feeds."""
    executor, session = Executor(work.graph), float_session(work.graph)
    worst, between, rounding = 0.0, 0.0, 0.0
    expected = []
    for feed in feeds:
        with torch.inference_mode():
            ours = [tensor.numpy() for tensor in executor.run(feed).values()]
        theirs = list(session.run(feed).values())
        expected.append(published(feed))
        worst = max(worst, *(largest_difference(expected[-1], found) for found in (ours, theirs)))
        between = max(between, largest_difference(theirs, ours))
        rounding = max(rounding, published.rounding(feed))
    work.result.torch_difference, work.result.engine_difference = worst, between
    if worst > max(EQUAL, ROUNDING * rounding):
        raise WrongError(f"the prepared graph differs by {worst:.1e} of the largest value")
    return expected


def _simulate(work: Work, model: Real, feeds: Feeds, expected: list[Outputs]) -> None:
    meter, same, total = DistanceMeter(), 0, 0
    for feed, reference in zip(feeds, expected, strict=True):
        found = work.sim(feed)
        found = list(found) if isinstance(found, tuple) else [found]
        meter.add(reference[0], found[0])
        equal = model.decide(reference) == model.decide(found)
        same, total = same + int(equal.sum()), total + equal.size
    work.result.sqnr_db = meter.result().sqnr_db
    assert isinstance(work.result, RealResult)
    work.result.decisions = same / total


def _package(folder: Path) -> str:
    """`silero_vad 6.2.3`, from the wheel's own metadata."""
    found = next(folder.glob("*.dist-info"), None)
    return folder.name if found is None else " ".join(found.stem.rsplit("-", 1))


def page(results: list[RealResult]) -> str:
    """Markdown."""
    passed = sum(result.passed for result in results)
    lines = [f"{passed} of {len(results)} pass all steps.", ""]
    lines += [_row(COLUMNS), _row(["---"] * len(COLUMNS))]
    lines += [_row(_cells(result)) for result in results]
    failed = [result for result in results if not result.passed]
    if failed:
        lines += ["", "## Not passed", ""]
        for result in failed:
            ((step, error),) = result.failures.items()
            lines.append(f"- **{result.name}**, {step}: {' '.join(error.split())}")
    return HEAD + "\n".join(lines) + "\n"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(result: RealResult) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    return [
        result.name,
        result.package,
        result.family,
        f"{number(result.source_nodes, 'd')} → {number(result.layers, 'd')}",
        number(result.torch_difference, ".0e"),
        number(result.quantized, "d"),
        number(result.floating, "d"),
        number(result.verified_layers, "d"),
        "–" if result.identical is None else percent(result.identical),
        number(result.steps, "d"),
        number(result.sqnr_db, ".1f"),
        "–" if result.decisions is None else percent(result.decisions),
        number(result.seconds, ".1f"),
    ]


if __name__ == "__main__":
    sys.exit(main())
