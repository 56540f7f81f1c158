"""A model that takes its quantization from an encodings file, like one that came quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from studio.errors import ConfigError
from studio.exporting.encodings.match import MatchReport, match_encodings
from studio.exporting.encodings.stored import EncodingsFile
from studio.graph.model import ModelGraph
from studio.quant.encoding import Encoding
from studio.quant.grid import Grid
from studio.sim.config import QuantConfig
from studio.sim.found import as_found
from studio.sim.placement import place
from studio.sim.plan import Plan


def with_encodings(
    graph: ModelGraph, config: QuantConfig, file: EncodingsFile, *, partial: bool = False
) -> tuple[ModelGraph, MatchReport]:
    """`graph` with the encodings of `file` as its quantization, and how the two match.

    What came with the model is replaced. Tensors that the file has nothing for stay float; with
    `partial`, what came with the model or the settings hold for them instead, and entries that no
    tensor can use are only reported. Raises ConfigError for such entries otherwise, and if nothing
    matches at all.
    """
    plan = place(graph, config.model_copy(update={"source_encodings": False}))
    report = match_encodings(file, graph, plan)
    if not partial:
        report.require()
    if not report.encodings:
        raise ConfigError(
            f"{file.name} has no encoding for any tensor of {graph.source.file_name}.",
            "Give the file that belongs to this model.",
        )
    known = dict(report.encodings)
    if partial:
        for row in plan.tensors.values():
            if row.tied_to in known and row.name not in known:
                known[row.name] = known[row.tied_to]
    if partial or not file.biases:
        known |= _biases(plan, known)
    found = {**(graph.found if partial else {}), **{n: as_found(e) for n, e in known.items()}}
    return replace(graph, found=found, found_partly=partial), report


def _biases(plan: Plan, known: Mapping[str, Encoding]) -> dict[str, Encoding]:
    """int32 biases that a file does not list: at input scale times weight scale."""
    found = {}
    for row in plan.tensors.values():
        if row.bias_of is None or row.spec is None or row.name in known:
            continue
        if not all(name in known for name in row.bias_of):
            continue
        source, weight = (known[name] for name in row.bias_of)
        whole = isinstance(source.grid, Grid) and isinstance(weight.grid, Grid)
        if not whole or weight.block_size is not None:
            continue
        scale = np.asarray(source.scale * weight.scale)
        axis = None if weight.axis is None else 0
        zero_point = np.zeros(scale.shape, np.int64)
        found[row.name] = Encoding(Grid(32, True, True), scale, zero_point, axis)
    return found
