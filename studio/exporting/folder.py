"""Reading back a folder that an export wrote."""

from __future__ import annotations

from pathlib import Path

from studio.errors import ConfigError
from studio.exporting.encodings_file import read_encodings
from studio.graph.model import ModelGraph
from studio.graph.open import open_model
from studio.quant.encoding import Encoding
from studio.sim.config import QuantConfig
from studio.sim.encodings import bias_encodings
from studio.sim.found import found_encodings
from studio.sim.placement import place
from studio.sim.plan import Plan


def load_export(
    folder: Path, config: QuantConfig, *, from_file: bool = False
) -> tuple[ModelGraph, Plan, dict[str, Encoding]]:
    """Graph, plan and encodings of an exported folder under the configuration of its recipe.

    `from_file`: its model came quantized, so `model.onnx` alone says which tensors are. Raises
    ConfigError if a file is missing or the files do not belong together, ModelError if the model
    cannot be read.
    """
    for name in ("model.onnx", "model_float.onnx", "model.encodings"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} has no {name}.", "Give a folder that an export wrote.")
    graph = open_model(folder / ("model.onnx" if from_file else "model_float.onnx"))
    plan = place(graph, QuantConfig(target=config.target) if from_file else config)
    encodings = found_encodings(graph, plan)
    encodings.update(read_encodings(folder / "model.encodings", plan))
    for name, encoding in encodings.items():
        shape = graph.value(name).shape
        if encoding.axis is not None and (
            shape is None or shape[encoding.axis] != encoding.channels
        ):
            raise ConfigError(
                f"{folder / 'model.encodings'} has {encoding.channels} scales for {name} of shape "
                f"{shape}.",
                "Give a folder whose files come from one export.",
            )
    encodings.update(bias_encodings(plan, encodings))
    missing = [name for name in plan.quantized if name not in encodings]
    if missing:
        raise ConfigError(
            f"{folder / 'model.encodings'} has no encoding for {missing[0]} and {len(missing) - 1} "
            "more tensors.",
            "Give a folder whose files come from one export.",
        )
    return graph, plan, encodings
