"""The exported file in OpenVINO, where that is installed, and how to check it elsewhere.

OpenVINO is asked on its CPU in float32, on one thread: its own default may compute in bfloat16.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from studio.analysis.evaluate import OutputMeter
from studio.exporting.summary import RuntimeCheck
from studio.graph.model import ModelGraph
from studio.jobs.events import CancelToken
from studio.quant.encoding import Encoding
from studio.runtime.budget import samples
from studio.runtime.session import first_line
from studio.sim.plan import Plan
from studio.sim.simulator import simulating_executor

OPENVINO, TENSORRT = "OpenVINO", "TensorRT"
_CONTRIB = "com.microsoft"


def check_other_runtimes(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    path: Path,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    cancel: CancelToken,
) -> tuple[RuntimeCheck, ...]:
    """The first output of the file at `path` against the simulation in every runtime but
    onnxruntime that this computer has, and the command that runs it where it has not."""
    if find_spec("openvino") is None:
        found = RuntimeCheck(OPENVINO, problem="not installed", command=command(OPENVINO, path))
    else:
        found = check_openvino(graph, plan, encodings, path, batches, cancel=cancel)
    sizes = command(TENSORRT, path, _static_inputs(graph))
    return found, RuntimeCheck(TENSORRT, problem="not run here", command=sizes)


def command(runtime: str, path: Path, inputs: str = "") -> str:
    """The shell command that runs the file at `path` in `runtime` on another computer.

    `inputs` are shapes to fix, as `name:1x3x224x224`, of inputs with open sizes.
    """
    if runtime == TENSORRT:
        shapes = f" --shapes={inputs}" if inputs else ""
        return f"trtexec --onnx={path.name} --stronglyTyped{shapes}"
    return f"benchmark_app -m {path.name} -d CPU -hint latency -infer_precision f32"


def check_openvino(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    path: Path,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    cancel: CancelToken,
) -> RuntimeCheck:
    """The first output in OpenVINO against the simulation; `problem` where it refuses the file."""
    openvino: Any = importlib.import_module("openvino")
    version, how = str(openvino.__version__), command(OPENVINO, path)
    foreign = _contrib_ops(path)
    if foreign:
        text = f"{foreign[0]} is an operator of onnxruntime alone"
        return RuntimeCheck(OPENVINO, version, problem=text, command=how)
    executor = simulating_executor(graph, plan, encodings)
    output = graph.outputs[0].name or ""
    meter, done = OutputMeter(), 0
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        core = openvino.Core()
        model = core.compile_model(core.read_model(str(path)), "CPU", settings)
        port = next(port for port in model.outputs if output in port.get_names())
        for batch in batches:
            cancel.check()
            with torch.inference_mode():
                simulated = executor.run(batch, [output])[output].numpy()
            meter.add(simulated, model(dict(batch))[port])
            done += samples(batch)
    except RuntimeError as error:  # what OpenVINO raises for whatever it does not take
        return RuntimeCheck(OPENVINO, version, problem=first_line(error), command=how)
    distance, agreement = meter.distance.result(), meter.agreement.result()
    return RuntimeCheck(OPENVINO, version, done, distance, agreement, command=how)


def _contrib_ops(path: Path) -> list[str]:
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return [node.op_type for node in nodes if node.domain == _CONTRIB]


def _static_inputs(graph: ModelGraph) -> str:
    """Shapes of the inputs that leave sizes open, with 1 for each of those."""
    shapes = []
    for value in graph.inputs:
        sizes = list(value.shape or ())
        if not all(isinstance(size, int) for size in sizes):
            fixed = "x".join(str(size) if isinstance(size, int) else "1" for size in sizes)
            shapes.append(f"{value.name}:{fixed}")
    return ",".join(shapes)
