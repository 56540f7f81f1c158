"""Models of a layer or two, calibrated on random numbers, for techniques that fit weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from studio.data.arrays import ArrayData
from studio.data.dataset import InputSpec
from studio.graph.open import open_model
from studio.jobs.events import CancelToken, silent
from studio.ptq.products import Product, product_of
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.placement import place
from studio.sim.quantized_model import QuantizedModel, quantized_model
from studio.techniques.technique import Samples

Feed = dict[str, np.ndarray]


def calibrated(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, np.ndarray],
    feed: Feed | None = None,
    *,
    target: str = "onnxruntime",
    layers: Mapping[str, Mapping[str, Any]] | None = None,
    opset: int = 23,
    **defaults: Any,
) -> tuple[QuantizedModel, Feed]:
    """The quantized model of `nodes` and the samples it was calibrated on."""

    def infos(shapes: Mapping[str, tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
        kind = TensorProto.FLOAT
        return [
            helper.make_tensor_value_info(name, kind, ["N", *shape[1:]])
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(
        nodes,
        "model",
        infos(inputs),
        infos(outputs),
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    opened = open_model(path)
    rng = np.random.default_rng(0)
    if feed is None:
        feed = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in inputs.items()}
    config = QuantConfig(target=target).with_defaults(**defaults)
    for name, settings in (layers or {}).items():
        config = config.with_layers([name], **settings)
    plan = place(opened, config)
    count = len(next(iter(feed.values())))
    statistics = collect_statistics(
        opened, plan.observed, [feed], count, emit=silent, cancel=CancelToken()
    )
    return quantized_model(opened, config, statistics, {}), feed


def layer_model(
    folder: Path,
    op: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    attributes: Mapping[str, Any],
    feed: Feed | None = None,
    weight: np.ndarray | None = None,
    **settings: Any,
) -> tuple[QuantizedModel, Feed]:
    """One layer y = op(x, w)."""
    node = helper.make_node(op, ["x", "w"], ["y"], "layer", **attributes)
    if weight is None:
        weight = np.random.default_rng(1).standard_normal(w_shape).astype(np.float32)
    rank = len(x_shape)
    outputs: dict[str, Any] = {"y": ("N", *[None] * (rank - 1))}
    return calibrated(folder, [node], {"x": x_shape}, outputs, {"w": weight}, feed, **settings)


def first_product(model: QuantizedModel) -> Product:
    """That of the first layer that has one."""
    found = (product_of(model, layer) for layer in model.plan.layers)
    return next(item for item in found if isinstance(item, Product))


def samples_of(feed: Feed) -> Samples:
    """The samples of `feed`, for everything."""
    specs = [InputSpec(name, (None, *array.shape[1:]), array.dtype) for name, array in feed.items()]
    data = ArrayData("numbers", feed, None, specs)
    return Samples(data, data, data)
