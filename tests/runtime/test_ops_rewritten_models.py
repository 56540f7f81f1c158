"""Models as onnxruntime's optimizer and quantizers rewrite them, against onnxruntime."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import small_models
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from studio.graph.model import ModelGraph, ModelSource
from studio.runtime.executor import Executor

EXTENDED = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
IMAGES = {"x": small_models.numbers(40, 2, 3, 6, 6)}
TOKENS = {"tokens": np.random.default_rng(41).integers(0, 11, (2, 6))}
Feeds = dict[str, np.ndarray]


class Reader(CalibrationDataReader):
    def __init__(self, feeds: Feeds) -> None:
        self.batches: Iterator[Feeds] = iter([feeds])

    def get_next(self) -> Feeds | None:
        return next(self.batches, None)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def optimized(path: Path) -> Path:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = EXTENDED
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    ort.InferenceSession(path, options)
    return path.with_suffix(".optimized.onnx")


def assert_same(path: Path, feeds: Feeds, expected: set[str], atol: float = 1e-5) -> None:
    """The model has the `expected` ops of com.microsoft and gives onnxruntime's values."""
    nodes = onnx.load(path).graph.node
    assert expected <= {node.op_type for node in nodes if node.domain == "com.microsoft"}
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    (wanted,) = ort.InferenceSession(path, options).run(None, feeds)
    (result,) = Executor(_as_it_is(path)).run(feeds).values()
    np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-5, atol=atol)


def _as_it_is(path: Path) -> ModelGraph:
    """The graph without preparation, which would lift integers back to floats."""
    model = ir.load(path)
    for i, node in enumerate(model.graph):
        node.name = node.name or f"node_{i}"
    return ModelGraph(model, ModelSource(path))


def test_optimized_convolutions(tmp_path: Path) -> None:
    path = optimized(small_models.conv_net(tmp_path / "net.onnx"))
    assert_same(path, IMAGES, {"FusedConv"})


def test_optimized_attention(tmp_path: Path) -> None:
    path = optimized(small_models.transformer(tmp_path / "net.onnx"))
    assert_same(path, TOKENS, {"FusedMatMul"})


def test_integer_operators(tmp_path: Path) -> None:
    source, target = small_models.conv_net(tmp_path / "net.onnx"), tmp_path / "integer.onnx"
    quantize_static(source, target, Reader(IMAGES), quant_format=QuantFormat.QOperator)
    assert_same(target, IMAGES, {"QGemm"})


def test_dynamically_quantized_products(tmp_path: Path) -> None:
    target = tmp_path / "dynamic.onnx"
    quantize_dynamic(small_models.transformer(tmp_path / "net.onnx"), target)
    assert_same(optimized(target), TOKENS, {"MatMulIntegerToFloat"})


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights(tmp_path: Path, bits: int) -> None:
    model = onnx.load(small_models.transformer(tmp_path / "net.onnx"))
    quantizer = MatMulNBitsQuantizer(model, bits, 16)
    quantizer.process()
    quantizer.model.save_model_to_file(str(tmp_path / "packed.onnx"))
    assert_same(tmp_path / "packed.onnx", TOKENS, {"MatMulNBits"})
