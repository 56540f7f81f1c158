"""Graphs in older opsets compute the same in onnxruntime; what cannot be said there is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import onnxruntime as ort
import pytest

from studio.errors import ExportError
from studio.graph.older_opset import older_opset

CASES = {
    "axes": (
        """(float[n, 4] x) => (float[n, 1, 4] y) {
            axes = Constant<value_ints = [1]>()
            a = Unsqueeze(x, axes)
            b = Squeeze(a, axes)
            c = ReduceMean<keepdims = 1>(b, axes)
            d = ReduceSum<keepdims = 1>(b, axes)
            e = Add(c, d)
            f = Sub(b, e)
            y = Unsqueeze(f, axes)
        }""",
        18,
    ),
    "limits": (
        """(float[n, 4] x) => (float[n, 6] y) {
            low = Constant<value_float = -0.5>()
            high = Constant<value_float = 0.75>()
            pads = Constant<value_ints = [0, 1, 0, 1]>()
            a = Clip(x, low, high)
            y = Pad(a, pads, low)
        }""",
        17,
    ),
    "parts": (
        """(float[n, 4] x) => (float[n, 2] y) {
            a, b = Split<axis = 1, num_outputs = 2>(x)
            c = Softmax<axis = -1>(a)
            y = Mul(c, b)
        }""",
        18,
    ),
    "sizes": (
        """(float[n, 4] x) => (float[n, 3] y) {
            sizes = Constant<value_ints = [1, 3]>()
            a, b = Split<axis = 1>(x, sizes)
            shape = Constant<value_ints = [0, 3]>()
            y = Reshape<allowzero = 0>(b, shape)
        }""",
        17,
    ),
}


def model_of(text: str, opset: int) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {text}')
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(("text", "opset"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("target", [10, 11, 12, 13, 16])
def test_older_opset_computes_the_same(text: str, opset: int, target: int) -> None:
    model = model_of(text, opset)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    expected = run(model, x)
    older = older_opset(model, target)
    assert older.opset_imports[""] == target
    assert model.opset_imports[""] == opset
    np.testing.assert_array_equal(run(older, x), expected)


REFUSED = {
    "does not exist": (
        "(float[n, 4] x) => (float[n, 4] y) { y = Gelu(x) }",
        20,
        17,
        "Gelu 'n' .*does not exist there",
    ),
    "another meaning": (
        "(float[n, 4, 5] x) => (float[n, 4, 5] y) { y = Softmax<axis = 1>(x) }",
        17,
        12,
        "means something else",
    ),
    "an attribute": (
        "(float[n, 2, 4] x) => (float[n, 2, 3] y) "
        "{ y = AveragePool<kernel_shape = [2], dilations = [1]>(x) }",
        19,
        17,
        "its attribute dilations does not exist",
    ),
    "computed axes": (
        "(float[n, 4] x, int64[1] axes) => (float[n, 4] y) { y = ReduceMax(x, axes) }",
        18,
        17,
        "fewer inputs",
    ),
    "a type": (
        "(int8[n, 4] x) => (int8[n, 4] y) { y = Relu(x) }",
        17,
        13,
        "takes no int8",
    ),
}


@pytest.mark.parametrize(("text", "opset", "target", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_an_older_opset_cannot_say_is_refused(
    text: str, opset: int, target: int, reason: str
) -> None:
    model = model_of(text, opset)
    for node in model.graph:
        node.name = "n"
    with pytest.raises(ExportError, match=reason):
        older_opset(model, target)
