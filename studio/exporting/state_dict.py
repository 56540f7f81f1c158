"""The quantized weights under the names of the source model, as a PyTorch state dict.

`load_state_dict(load_file(path), strict=False)` makes the source module compute what the prepared
model computes with its constants rounded. Batch normalization that was folded into a layer is taken
out of it again: the module keeps its statistics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio import __version__
from studio.errors import ExportError
from studio.exporting.source_parameters import source_parameters
from studio.graph.additions import additions_of
from studio.graph.model import ModelGraph
from studio.graph.open import prepare_again
from studio.quant.encoding import Encoding
from studio.sim.plan import Plan

SHOWN = 5


@dataclass(frozen=True)
class StateDictSummary:
    """What a state dict holds: `quantized` parameters, rounded; `folded`: batch normalization ->
    the weight that was rounded with it folded in ("" where it became a scale and a shift of its
    own); `left_float`: parameters as they were, with the reason."""

    quantized: tuple[str, ...]
    folded: Mapping[str, str]
    left_float: Mapping[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever loads the file has to know."""
        notes = []
        lost = [name for name in self.left_float if name not in self.quantized]
        if lost:
            shown = ", ".join(lost[:SHOWN]) + (
                f" and {len(lost) - SHOWN} more" * (len(lost) > SHOWN)
            )
            notes.append(
                f"{len(lost)} parameters are in the state dict as they were: {shown}. Its metadata "
                "says why."
            )
        return tuple(notes)


def write_state_dict(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding], path: Path
) -> StateDictSummary:
    """Write the safetensors file at `path`; ExportError if that is not possible."""
    tensors, summary = state_dict(graph, plan, encodings)
    if not tensors:
        raise ExportError(
            f"{graph.source.file_name} has no floating-point parameters.", "Leave this file out."
        )
    from safetensors.numpy import save_file

    metadata = {
        "format": "pt",
        "producer": f"quantization-studio {__version__}",
        "quantized": json.dumps(summary.quantized),
        "folded": json.dumps(dict(summary.folded)),
        "left_float": json.dumps(dict(summary.left_float)),
    }
    try:
        save_file(tensors, path, metadata)
    except OSError as error:
        raise ExportError(f"Cannot write {path}: {error}.", "Choose another folder.") from error
    return summary


def state_dict(
    graph: ModelGraph, plan: Plan, encodings: Mapping[str, Encoding]
) -> tuple[dict[str, np.ndarray], StateDictSummary]:
    """Parameter of the source -> its array, in its own shape and type; and what was done.

    Raises ExportError where techniques added to the graph what the source module does not have.
    """
    _require_no_additions(graph)
    # Techniques changed numbers since: what is where is proved by those that were prepared.
    found = source_parameters(prepare_again(graph, graph.source.without))
    captured = graph.captured or graph

    def now(name: str) -> np.ndarray:
        array = graph.constant(name)
        return encodings[name].quantize_dequantize(array) if name in encodings else array

    tensors: dict[str, np.ndarray] = {}
    quantized: list[str] = []
    left_float: dict[str, str] = {}
    for name in captured.initializers:
        if name in found.lost:
            tensors[name] = np.ascontiguousarray(captured.constant(name))
            left_float[name] = found.lost[name]
        elif name in found.parts:
            part, own = found.parts[name], captured.constant(name)
            array = part.of(now).reshape(own.shape)
            tensors[name] = np.ascontiguousarray(array, own.dtype)
            if part.constant in encodings:
                quantized.append(name)
            elif part.constant is not None:
                left_float[name] = plan.tensors[part.constant].reason
    return tensors, StateDictSummary(tuple(quantized), dict(found.folded), left_float)


def _require_no_additions(graph: ModelGraph) -> None:
    added = additions_of(graph)
    if not added:
        return
    parts = {
        "limits for each channel in the place of": list(added.clips),
        "a bias for": sorted(added.biases),
        "a scale before": list(added.scales),
    }
    listed = "; ".join(
        f"{what} {', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)}"
        for what, names in parts.items()
        if names
    )
    raise ExportError(
        f"The weights do not fit {graph.source.name} any more: techniques added {listed}, which "
        "the module does not have.",
        "Leave the state dict out, or undo these techniques.",
    )
