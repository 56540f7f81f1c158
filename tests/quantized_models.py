"""Quantized models made on the spot: by onnxruntime's quantizer, or written out as ONNX text."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

SHAPE = (2, 3, 8, 8)


def model_of(
    text: str, constants: dict[str, np.ndarray | onnx.TensorProto], opset: int = 21
) -> onnx.ModelProto:
    """A checked model from ONNX text `(inputs) => (outputs) {nodes}`."""
    imports = f'"" : {opset}, "com.microsoft" : 1'
    model = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{imports}]> g {text}")
    for name, value in constants.items():
        if isinstance(value, np.ndarray | np.generic):
            value = numpy_helper.from_array(np.asarray(value), name)
        value.name = name
        model.graph.initializer.append(value)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}{index}"
    onnx.checker.check_model(model)
    return model


def packed(values: np.ndarray, kind: int) -> onnx.TensorProto:
    """Integers as a tensor of an ONNX type that numpy lacks (int4, ...)."""
    return helper.make_tensor("", kind, values.shape, values.reshape(-1).tolist())


def float_model() -> onnx.ModelProto:
    """Every operator that onnxruntime's quantizer knows a QLinear form of, in a small net."""
    rng = np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.4).astype(np.float32)

    return model_of(
        """(float[n, 3, 8, 8] x) => (float[n, 5] y) {
            a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
            b = Relu(a)
            c = Conv<pads = [1, 1, 1, 1], group = 8>(b, w2, b2)
            d = Clip(c, low, high)
            e = Conv(d, w3, b3)
            f = Add(e, b)
            g = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(f)
            h = LeakyRelu<alpha = 0.1>(g)
            i = Concat<axis = 1>(g, h)
            j = Sigmoid(i)
            k = Mul(i, j)
            l = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(k)
            m = GlobalAveragePool(l)
            o = Flatten(m)
            p = Gemm<transB = 1>(o, w4, b4)
            q = MatMul(p, w5)
            y = Softmax(q)
        }""",
        {
            "w1": normal(8, 3, 3, 3),
            "b1": normal(8),
            "w2": normal(8, 1, 3, 3),
            "b2": normal(8),
            "w3": normal(8, 8, 1, 1),
            "b3": normal(8),
            "w4": normal(10, 16),
            "b4": normal(10),
            "w5": normal(10, 5),
            "low": np.float32(0),
            "high": np.float32(6),
        },
        opset=17,
    )


def samples(seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)}


def quantized_by_onnxruntime(
    folder: Path, form: str, activations: str = "QUInt8", per_channel: bool = True
) -> Path:
    """`float_model` as onnxruntime quantizes it: form QDQ, QOperator or dynamic."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [samples(seed) for seed in (1, 2, 3)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    source, path = folder / "float.onnx", folder / f"{form}.onnx"
    onnx.save(float_model(), source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "dynamic":
            quantization.quantize_dynamic(
                source, path, per_channel=per_channel, weight_type=quantization.QuantType.QInt8
            )
        else:
            quantization.quantize_static(
                source,
                path,
                Reader(),
                quant_format=quantization.QuantFormat[form],
                activation_type=quantization.QuantType[activations],
                weight_type=quantization.QuantType.QInt8,
                per_channel=per_channel,
            )
    return path
