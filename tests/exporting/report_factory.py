"""A made-up export like that of a MobileNet: every layer and tensor has its row and encoding."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from studio.analysis.quality import Accuracy, Distance, Evaluation, LayerQuality
from studio.exporting.report import ReportContent
from studio.exporting.summary import Artifact, EndToEnd, LayerCheck, Verification
from studio.graph.model import Change, ModelGraph, ModelSource
from studio.quant.encoding import Encoding, encoding_from_range
from studio.quant.grid import Grid
from studio.quant.statistics import BINS, TensorStatistics
from studio.sim.config import LayerSettings, QuantConfig
from studio.sim.plan import Layer, Plan, QuantSpec, Role, TensorPlan

ACTIVATION = QuantSpec(Grid(8, signed=False, symmetric=False), None, "mse")
WEIGHT = QuantSpec(Grid(8, signed=True, symmetric=True), 0, "minmax")
BIAS = QuantSpec(Grid(32, signed=True, symmetric=True), 0, "bias")
KINDS = (
    ("expand", ("Conv", "Clip")),
    ("dw", ("Conv", "Clip")),
    ("project", ("Conv",)),
    ("add", ("Add",)),
)


def graph(name: str = "mobilenet_like") -> ModelGraph:
    """A graph of one node: the report reads names, changes and warnings only."""
    image = ir.Value(
        name="image", shape=ir.Shape(["N", 3, 224, 224]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    scores = ir.Value(
        name="scores", shape=ir.Shape(["N", 1000]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    node = ir.Node("", "Relu", [image], outputs=[scores], name="relu")
    model = ir.Model(
        ir.Graph([image], [scores], nodes=[node], opset_imports={"": 21}, name="g"), ir_version=10
    )
    changes = tuple(
        Change(
            "fold batch norm", f"features.{k}.conv", f"folded features.{k}.bn into the convolution"
        )
        for k in range(18)
    )
    return ModelGraph(
        model,
        ModelSource(Path(f"/somewhere/{name}.onnx")),
        changes=changes,
        warnings=("The model has no metadata.",),
    )


def plan(layers: int = 95) -> Plan:
    """An input, blocks of Conv + Clip, Conv + Clip, Conv, Add, and a float TopK at the end."""
    tensors: dict[str, TensorPlan] = {}
    rows: list[Layer] = []

    def add(tensor: TensorPlan) -> str:
        tensors[tensor.name] = tensor
        return tensor.name

    add(TensorPlan("image", Role.INPUT, "image", ACTIVATION, "target onnxruntime"))
    settings = LayerSettings(act_bits=8, act_symmetric=False)
    rows.append(Layer("image", ("Input",), (), (), (), None, ("image",), settings))
    previous = "image"
    while len(rows) < layers - 2:
        index = len(rows) - 1
        kind, ops = KINDS[index % 4]
        name = f"features.{index // 4}.{kind}"
        weights: tuple[str, ...] = ()
        bias = None
        if ops[0] == "Conv":
            weights = (
                add(TensorPlan(f"{name}.weight", Role.WEIGHT, name, WEIGHT, "target onnxruntime")),
            )
            bias = add(
                TensorPlan(
                    f"{name}.bias",
                    Role.BIAS,
                    name,
                    BIAS,
                    "int32 at the scale of input times weight",
                    bias_of=(previous, weights[0]),
                )
            )
        if len(ops) == 2:
            add(
                TensorPlan(
                    f"{name}_conv_out",
                    Role.ACTIVATION,
                    name,
                    None,
                    "inside Conv + Clip: runs as one kernel",
                )
            )
            for limit in ("low", "high"):
                add(
                    TensorPlan(
                        f"{name}_{limit}",
                        Role.CONSTANT,
                        name,
                        None,
                        "parameter of Clip, used in float",
                    )
                )
        output = add(
            TensorPlan(f"{name}_out", Role.ACTIVATION, name, ACTIVATION, "target onnxruntime")
        )
        rows.append(
            Layer(
                name,
                ops,
                tuple(f"{name}.{op}" for op in ops),
                (previous,),
                weights,
                bias,
                (output,),
                LayerSettings(weight_bits=8, act_bits=8),
                frozenset({"act_bits"}) if index == 5 else frozenset(),
            )
        )
        previous = output
    add(
        TensorPlan(
            "flat",
            Role.ACTIVATION,
            "flatten",
            ACTIVATION,
            f"Flatten only moves values: uses the encoding of {previous}",
            tied_to=previous,
        )
    )
    rows.append(
        Layer(
            "flatten",
            ("Flatten",),
            ("flatten",),
            (previous,),
            (),
            None,
            ("flat",),
            LayerSettings(),
            follows=previous,
        )
    )
    reason = "selects values; runs in float"
    add(TensorPlan("scores", Role.ACTIVATION, "topk", None, reason))
    rows.append(
        Layer(
            "topk",
            ("TopK",),
            ("topk",),
            ("flat",),
            (),
            None,
            ("scores",),
            LayerSettings(),
            note=reason,
        )
    )
    return Plan(
        "onnxruntime", tuple(rows), tensors, ("The setting for 'head.*' matches no layer.",)
    )


def statistics(minimum: float, maximum: float, seed: int) -> TensorStatistics:
    """A bell, the values beyond the range's ends piled up at the ends."""
    rng = np.random.default_rng(seed)
    values = rng.normal((maximum + minimum) / 6, (maximum - minimum) / 9, 20_000)
    counts, _ = np.histogram(np.clip(values, minimum, maximum), BINS, (minimum, maximum))
    return TensorStatistics(minimum, maximum, counts.astype(np.int64), minimum, maximum)


def content(layers: int = 95, **changes: Any) -> ReportContent:
    """A complete, passed export; `changes` replace fields."""
    rng = np.random.default_rng(0)
    rows = plan(layers)
    seen: dict[str, TensorStatistics] = {}
    encodings: dict[str, Encoding] = {}
    drawn = statistics(-1.0, 1.0, 0)
    for index, name in enumerate(rows.quantized):
        tensor = rows.tensors[name]
        assert tensor.spec is not None
        if tensor.tied_to:
            encodings[name] = encodings[tensor.tied_to]
        elif tensor.observed:
            low = 0.0 if ".dw" in name or ".expand" in name else -float(rng.gamma(4, 0.9))
            high = min(6.0, float(rng.gamma(6, 0.9))) if low == 0 else float(rng.gamma(4, 0.9))
            if layers < 500:
                drawn = statistics(low, high, index)
            seen[name] = TensorStatistics(low, high, drawn.counts, low, high)
            cut = 0.72 if index % 11 == 0 else 1.0
            encodings[name] = encoding_from_range(low * cut, high * cut, tensor.spec.grid)
        else:
            peak = rng.gamma(3, 0.1, 4)
            encodings[name] = encoding_from_range(-peak, peak, tensor.spec.grid, tensor.spec.axis)
    sqnr = [
        max(9.0, 41 - 0.12 * min(k, 150) + 4 * rng.standard_normal())
        for k in range(len(rows.layers))
    ]
    qualities = [
        LayerQuality(layer.name, layer.output, Distance(value, 0.99))
        for layer, value in zip(rows.layers, sqnr, strict=True)
    ]
    qualities[6] = LayerQuality(rows.layers[6].name, rows.layers[6].output, Distance(14.1, 0.96))
    qualities[0] = LayerQuality("image", "image", Distance(math.inf, 1.0))
    checks = [
        LayerCheck(
            layer.name, layer.output, 1 - float(rng.random()) * 1e-3 * (k % 3), 1.0, min(1, k % 3)
        )
        for k, layer in enumerate(rows.layers)
        if rows.tensors[layer.output].spec is not None
    ]
    fields: dict[str, Any] = {
        "graph": graph(),
        "config": QuantConfig(
            layers={
                "features.1.dw": LayerSettings(act_bits=8),
                "head.*": LayerSettings(weight_bits=4),
            }
        ),
        "plan": rows,
        "encodings": encodings,
        "statistics": seen,
        "calibration_data": "photographs",
        "calibration_samples": 64,
        "synthetic": False,
        "evaluation": Evaluation(
            "photographs",
            500,
            False,
            Accuracy(88.0, 97.4),
            Accuracy(87.2, 97.2),
            94.6,
            Distance(21.37, 0.99631),
            tuple(qualities),
        ),
        "verification": Verification(
            32,
            tuple(checks),
            EndToEnd(False, Distance(38.24, 0.9999), 100.0),
            EndToEnd(True, Distance(33.91, 0.9998), 96.875),
            51,
            2,
        ),
        "artifacts": (
            Artifact("model.onnx", 5_012_345, "quantized model, runs in onnxruntime"),
            Artifact("model_float.onnx", 18_601_234, "prepared float model"),
            Artifact("model.encodings", 654_321, "encodings in AIMET's 1.0.0 layout"),
            Artifact("recipe.json", 812, "replays this export"),
        ),
        "float_bytes": 18_601_234,
        "quantized_bytes": 5_012_345,
        "created": datetime(2026, 3, 4, 15, 6),
        "version": "0.1.0",
    }
    return ReportContent(**(fields | changes))
