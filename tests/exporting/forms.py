"""Small quantized models, their exported forms, and how far these are from the simulation."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch

from studio.exporting.graphs import quantized_model
from studio.exporting.options import ExportOptions, export_form
from studio.graph.model import ModelGraph
from studio.jobs import CancelToken, silent
from studio.quant.encoding import Encoding
from studio.quant.grid import FloatGrid
from studio.runtime.session import Optimizations, Session
from studio.sim.calibration import collect_statistics
from studio.sim.config import QuantConfig
from studio.sim.encodings import compute_encodings
from studio.sim.placement import place
from studio.sim.plan import Layer, Plan
from studio.sim.qdq import dequantized_name, quantized_name
from studio.sim.simulator import simulating_executor
from studio.sim.target import load_target

sys.path.append(str(Path(__file__).parents[1] / "sim"))
from sim_graphs import graph_of

Values = Mapping[str, np.ndarray]


def mlp() -> ModelGraph:
    """Two linear layers and a residual Add, 40 and 64 inputs wide: no multiples of all blocks."""
    return graph_of(
        """(float[n, 40] x) => (float[n, 10] y) {
            a = Gemm<transB = 1>(x, w1, b1)
            b = Relu(a)
            c = MatMul(b, w2)
            d = Add(c, b)
            y = Gemm(d, w3, b3)
        }""",
        w1=(64, 40),
        b1=(64,),
        w2=(64, 64),
        w3=(64, 10),
        b3=(10,),
    )


def attention() -> ModelGraph:
    """A transformer block: LayerNormalization, two heads of attention, a gated linear layer."""
    return graph_of(
        """(float[n, 6, 32] x) => (float[n, 6, 32] y) {
            split = Constant<value_ints = [0, 0, 2, 16]>()
            join = Constant<value_ints = [0, 0, 32]>()
            root = Constant<value_float = 4.0>()
            h = LayerNormalization<axis = -1>(x, gain, shift)
            q = MatMul(h, wq)
            k = MatMul(h, wk)
            v = MatMul(h, wv)
            q1 = Reshape(q, split)
            k1 = Reshape(k, split)
            v1 = Reshape(v, split)
            q2 = Transpose<perm = [0, 2, 1, 3]>(q1)
            k2 = Transpose<perm = [0, 2, 3, 1]>(k1)
            v2 = Transpose<perm = [0, 2, 1, 3]>(v1)
            s = MatMul(q2, k2)
            s1 = Div(s, root)
            p = Softmax<axis = -1>(s1)
            m = MatMul(p, v2)
            m1 = Transpose<perm = [0, 2, 1, 3]>(m)
            m2 = Reshape(m1, join)
            o = MatMul(m2, wo)
            r = Add(o, x)
            f = MatMul(r, wf)
            f1 = Add(f, bf)
            g = Sigmoid(f1)
            y = Mul(f1, g)
        }""",
        gain=(32,),
        shift=(32,),
        wq=(32, 32),
        wk=(32, 32),
        wv=(32, 32),
        wo=(32, 32),
        wf=(32, 32),
        bf=(32,),
    )


def recurrent() -> ModelGraph:
    """An LSTM of 12 units over 7 steps and a linear layer on its last state."""
    return graph_of(
        """(float[7, n, 16] x) => (float[n, 5] y) {
            one = Constant<value_ints = [0]>()
            a, b, c = LSTM<hidden_size = 12>(x, w, r, bias)
            d = Squeeze(b, one)
            y = Gemm(d, w2, b2)
        }""",
        w=(1, 48, 16),
        r=(1, 48, 12),
        bias=(1, 96),
        w2=(12, 5),
        b2=(5,),
    )


def pools() -> ModelGraph:
    """Operators with an integer form of their own, and some that only move values."""
    return graph_of(
        """(float[n, 4, 8, 8] x) => (float[n, 8, 2, 5] y) {
            pads = Constant<value_ints = [0, 0, 1, 1, 0, 0, 1, 1]>()
            shape = Constant<value_ints = [0, 8, 64]>()
            starts = Constant<value_ints = [1]>()
            ends = Constant<value_ints = [3]>()
            axes = Constant<value_ints = [1]>()
            last = Constant<value_ints = [2]>()
            wide = Constant<value_ints = [1, 8, 2, 5]>()
            a = Pad(x, pads)
            b = Conv(a, w1, b1)
            c = LeakyRelu<alpha = 0.1>(b)
            d = Sigmoid(x)
            e = Concat<axis = 1>(c, d)
            f = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(e)
            g = Mul(f, e)
            h = Reshape(g, shape)
            i = Transpose<perm = [0, 2, 1]>(h)
            j = MatMul(i, w2)
            k = Softmax<axis = -1>(j)
            l = Slice(k, starts, ends, axes)
            m = Gather<axis = 1>(h, starts)
            o, p = Split<axis = 2, num_outputs = 2>(m)
            q = MatMul(o, w3)
            r = Unsqueeze(q, last)
            s = Unsqueeze(l, axes)
            t = Add(r, s)
            y = Expand(t, wide)
        }""",
        opset=18,
        w1=(4, 4, 3, 3),
        b1=(4,),
        w2=(8, 5),
        w3=(32, 5),
    )


def inputs_of(graph: ModelGraph, seed: int = 1, size: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        value.name: rng.standard_normal(
            [side if isinstance(side, int) else size for side in value.shape]
        ).astype(np.float32)
        for value in graph.inputs
    }


def quantized(graph: ModelGraph, config: QuantConfig) -> tuple[Plan, dict[str, Encoding]]:
    plan = place(graph, config)
    batches = [inputs_of(graph, seed) for seed in (1, 2)]
    statistics = collect_statistics(
        graph, plan.observed, batches, 16, emit=silent, cancel=CancelToken()
    )
    return plan, compute_encodings(graph, plan, statistics)


def exported(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    options: ExportOptions | None = None,
    target: str = "onnxruntime",
) -> ir.Model:
    """The quantized ONNX, checked by onnx."""
    form = export_form(options or ExportOptions(), load_target(target).export)
    model = quantized_model(graph, plan, encodings, form)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def differences(
    graph: ModelGraph,
    plan: Plan,
    encodings: Mapping[str, Encoding],
    model: ir.Model,
    optimizations: Optimizations = Optimizations.NONE,
) -> dict[str, float]:
    """Layer -> how far the file is from the simulation of that layer on equal inputs: in steps of
    an integer output, else relative to the largest value."""
    feeds = inputs_of(graph, seed=9)
    readable = {
        value.name
        for node in model.graph
        for value in node.outputs
        if value.dtype in (ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.UINT8,
                           ir.DataType.INT16, ir.DataType.UINT16)
    }  # fmt: skip
    session = Session(model, optimizations=optimizations, outputs=sorted(readable - {"", *feeds}))
    values = {**feeds, **session.run(feeds)}
    executor = simulating_executor(graph, plan, encodings)
    # these range their input and their state inside: no tensor of the file shows what they read
    ranging = {node.name for node in model.graph if node.op_type == "DynamicQuantizeLSTM"}
    result = {}
    for layer in plan.layers:
        output = layer.output
        if not layer.nodes or graph.value(output).dtype != ir.DataType.FLOAT:
            continue
        if not {output, quantized_name(output)} & values.keys():
            continue
        if layer.nodes[0] in ranging:
            continue
        inputs = {name: torch.from_numpy(_read(plan, encodings, values, layer, name).copy())
                  for name in layer.inputs}  # fmt: skip
        with torch.inference_mode():
            expected = executor.run_nodes(layer.nodes, inputs, [output])[output].numpy()
        result[layer.name] = _distance(plan, encodings, values, output, expected)
    return result


def _read(
    plan: Plan, encodings: Mapping[str, Encoding], values: Values, layer: Layer, name: str
) -> np.ndarray:
    """What `layer` reads as `name`, from the numbers in the file."""
    row = plan.tensors[name]
    rounded = row.spec is not None and (row.read_by is None or bool(set(layer.nodes) & row.read_by))
    if not rounded:
        return values[name]
    if isinstance(row.spec.grid, FloatGrid):  # onnxruntime hands out no numbers of these types
        return values[_rounded_name(values, name)]
    if row.dynamic:
        return _ranged(values, name)
    return encodings[name].dequantize(_integers(encodings, values, name))


def _ranged(values: Values, name: str) -> np.ndarray:
    """The tensor `name` as DynamicQuantizeLinear rounded it."""
    zero = values[f"{name}_zero_point"].astype(np.float32)
    return (values[quantized_name(name)].astype(np.float32) - zero) * values[f"{name}_scale"]


def _integers(encodings: Mapping[str, Encoding], values: Values, name: str) -> np.ndarray:
    """The integers of the tensor `name`; onnxruntime hands out none of fewer than 8 bits."""
    if quantized_name(name) in values:
        return values[quantized_name(name)].astype(np.int64)
    return encodings[name].quantize(values[_rounded_name(values, name)])


def _rounded_name(values: Values, name: str) -> str:
    inner = dequantized_name(name, False)
    return inner if inner in values else name


def _distance(
    plan: Plan,
    encodings: Mapping[str, Encoding],
    values: Values,
    output: str,
    expected: np.ndarray,
) -> float:
    encoding = encodings.get(output)
    if encoding is not None and isinstance(encoding.grid, FloatGrid):
        actual = values[_rounded_name(values, output)]
        wanted = encoding.quantize_dequantize(expected)
        return float(np.abs(actual - wanted).max() / max(np.abs(wanted).max(), 1e-9))
    if encoding is not None:
        actual = _integers(encodings, values, output)
        return float(np.abs(actual - encoding.quantize(expected)).max())
    actual = values[output]
    row = plan.tensors[output]
    if row.dynamic and row.read_by is None and quantized_name(output) in values:
        actual = _ranged(values, output)
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-9))
