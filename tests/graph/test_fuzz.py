"""Models damaged in what they say, not only in their bytes: they open, or a ModelError says why.

Every mutant is a well-formed file: an attribute of another size or type, a tensor that is missing
or doubled, an operator put in another's place, a shape that claims 2^31 elements.
"""

from __future__ import annotations

import copy
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import make_model, node
from onnx import TensorProto, helper, numpy_helper

from studio.errors import ModelError
from studio.graph.open import open_model
from studio.runtime.ops import unsupported_ops

Random = np.random.Generator
EXTREMES = (-(2**63), -(2**31), -7, -1, 0, 1, 3, 2**31 - 1, 2**31, 2**63 - 1)
OPS = (
    "Conv",
    "Relu",
    "Reshape",
    "Concat",
    "Gemm",
    "Pad",
    "Resize",
    "LSTM",
    "Loop",
    "Split",
    "Tile",
)
SLOWEST_SECONDS = 5.0
MEMORY_KIB = 400_000
MUTANTS = 120


def convolutions() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    return make_model(
        [
            node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["c", "s", "b", "b", "s"], ["n"], name="bn"),
            node("Clip", ["n", "low", "high"], ["k"]),
            node("Pad", ["k", "pads"], ["p"]),
            node("AveragePool", ["p"], ["a"], kernel_shape=[2, 2]),
            node("Resize", ["a", "", "scales"], ["r"], mode="nearest"),
            node("Flatten", ["r"], ["f"]),
            node("Gemm", ["f", "g"], ["y"], transB=1, alpha=0.5),
        ],
        {
            "w": random.standard_normal((4, 3, 3, 3)).astype(np.float32),
            "b": np.zeros(4, np.float32),
            "s": np.ones(4, np.float32),
            "low": np.float32(0),
            "high": np.float32(6),
            "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
            "scales": np.array([1, 1, 2, 2], np.float32),
            "g": random.standard_normal((5, 4 * 18 * 18)).astype(np.float32),
        },
        x=(1, 3, 8, 8),
    )


def transformer() -> onnx.ModelProto:
    random = np.random.default_rng(1)
    return make_model(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "one"], ["length"]),
            node("Unsqueeze", ["length", "zero"], ["l"]),
            node("Concat", ["zero", "l", "minus", "four"], ["t"], axis=0),
            node("MatMul", ["x", "w"], ["q"], name="query"),
            node("Reshape", ["q", "t"], ["h"]),
            node("Transpose", ["h"], ["p"], perm=[0, 2, 3, 1]),
            node("Transpose", ["h"], ["o"], perm=[0, 2, 1, 3]),
            node("MatMul", ["o", "p"], ["scores"]),
            node("Softmax", ["scores"], ["soft"], axis=-1),
            node("LayerNormalization", ["soft", "g"], ["y"], axis=-1),
        ],
        {
            "one": np.array(1),
            "zero": np.array([0]),
            "minus": np.array([-1]),
            "four": np.array([4]),
            "w": random.standard_normal((8, 8)).astype(np.float32),
            "g": np.ones(6, np.float32),
        },
        x=("N", 6, 8),
    )


def quantized() -> onnx.ModelProto:
    random = np.random.default_rng(2)
    return make_model(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
            node("DequantizeLinear", ["b", "bs"], ["bd"], axis=0),
            node("Conv", ["xd", "wd", "bd"], ["c"], name="conv"),
            node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
            node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
        ],
        {
            "s": np.float32(0.1),
            "z": np.uint8(128),
            "w": random.integers(-127, 127, (4, 3, 3, 3)).astype(np.int8),
            "ws": np.full(4, 0.01, np.float32),
            "wz": np.zeros(4, np.int8),
            "b": np.zeros(4, np.int32),
            "bs": np.full(4, 0.001, np.float32),
        },
        x=("N", 3, 8, 8),
    )


def branches() -> onnx.ModelProto:
    def branch(op: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT, None)
        return helper.make_graph([node(op, ["x"], [f"{op}_y"])], op, [], [made])

    body = helper.make_graph(
        [
            node("Add", ["state", "x"], ["next"]),
            node("Identity", ["go"], ["again"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    return make_model(
        [
            node("ReduceSum", ["x"], ["sum"], keepdims=0),
            node("Greater", ["sum", "zero"], ["positive"]),
            node("If", ["positive"], ["b"], then_branch=branch("Relu"), else_branch=branch("Neg")),
            node("Loop", ["count", "true", "b"], ["y"], body=body),
        ],
        {"zero": np.float32(0), "count": np.array(3), "true": np.array(True)},
        x=("N", 4),
    )


def recurrent() -> onnx.ModelProto:
    random = np.random.default_rng(3)
    return make_model(
        [
            node("LSTM", ["x", "w", "r", "b"], ["h"], hidden_size=3, direction="bidirectional"),
            node("Squeeze", ["h", "one"], ["q"]),
            node("Split", ["h", "sizes"], ["first", "second"], axis=1),
            node("Concat", ["first", "second"], ["y"], axis=-1),
        ],
        {
            "w": random.standard_normal((2, 12, 4)).astype(np.float32),
            "r": random.standard_normal((2, 12, 3)).astype(np.float32),
            "b": np.zeros((2, 24), np.float32),
            "one": np.array([1]),
            "sizes": np.array([1, 1]),
        },
        x=(5, "N", 4),
    )


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for found in graph.node:
        yield found
        for attribute in found.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)


def change_attribute(model: onnx.ModelProto, random: Random) -> None:
    choices = [a for n in nodes_of(model.graph) for a in n.attribute]
    if not choices:
        return
    attribute = choices[random.integers(len(choices))]
    extreme = int(random.choice(EXTREMES))
    if attribute.ints:
        at = int(random.integers(len(attribute.ints)))
        if random.integers(3):
            attribute.ints[at] = extreme
        else:
            del attribute.ints[at]
    elif attribute.HasField("i"):
        attribute.i = extreme
    elif attribute.HasField("f"):
        attribute.f = float(random.choice([np.nan, np.inf, -1e30, 0.0]))
    elif attribute.HasField("s"):
        attribute.s = bytes(random.choice([b"", b"\xff\xfe", b"nearest", b"reverse"]))
    attribute.type = attribute.type if random.integers(4) else int(random.integers(1, 14))


def change_edge(model: onnx.ModelProto, random: Random) -> None:
    found = list(nodes_of(model.graph))
    chosen = found[random.integers(len(found))]
    names = [name for n in found for name in (*n.input, *n.output)] + ["", "nowhere"]
    field = chosen.input if random.integers(3) else chosen.output
    kind = random.integers(3)
    if kind == 0 and field:
        field[int(random.integers(len(field)))] = str(random.choice(names))
    elif kind == 1 and field:
        del field[int(random.integers(len(field)))]
    else:
        field.append(str(random.choice(names)))


def change_node(model: onnx.ModelProto, random: Random) -> None:
    found = list(nodes_of(model.graph))
    chosen = found[random.integers(len(found))]
    kind = random.integers(4)
    if kind == 0:
        chosen.op_type = str(random.choice(OPS))
    elif kind == 1:
        chosen.domain = str(random.choice(["com.microsoft", "ai.onnx", "nobody.knows"]))
    elif kind == 2:
        model.graph.node.add().CopyFrom(chosen)
    else:
        del model.graph.node[int(random.integers(len(model.graph.node)))]


def change_weight(model: onnx.ModelProto, random: Random) -> None:
    tensors = model.graph.initializer
    if not tensors:
        return
    tensor = tensors[int(random.integers(len(tensors)))]
    kind = random.integers(5)
    if kind == 0:
        array = numpy_helper.to_array(tensor)
        other = random.choice([np.float16, np.int8, np.int64, np.float64, np.bool_])
        tensor.CopyFrom(numpy_helper.from_array(array.astype(other), tensor.name))
    elif kind == 1:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array.reshape(-1)[:-1], tensor.name))
    elif kind == 2:
        array = numpy_helper.to_array(tensor).copy()
        if array.size:
            array.reshape(-1)[0] = array.dtype.type(0)
        extreme = (
            np.full_like(array, np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else array
        )
        tensor.CopyFrom(numpy_helper.from_array(extreme, tensor.name))
    elif kind == 3:
        del tensor.dims[:]
        tensor.dims.extend([int(random.choice([0, 1, 2**31, 2**40])) for _ in range(3)])
    else:
        tensors.remove(tensor)


def change_claim(model: onnx.ModelProto, random: Random) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    value = values[int(random.integers(len(values)))]
    shape = value.type.tensor_type.shape
    kind = random.integers(4)
    if kind == 0:
        value.type.tensor_type.elem_type = int(random.integers(0, 30))
    elif kind == 1 and shape.dim:
        shape.dim[int(random.integers(len(shape.dim)))].dim_value = int(random.choice(EXTREMES))
    elif kind == 2:
        shape.dim.add().dim_value = int(random.choice(EXTREMES))
    else:
        value.name = str(random.choice(["", "x", "y", "nowhere"]))


MUTATIONS: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    change_attribute,
    change_edge,
    change_node,
    change_weight,
    change_claim,
)


@pytest.mark.parametrize("make", [convolutions, transformer, quantized, branches, recurrent])
def test_mutants(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    original = make()
    random = np.random.default_rng(7)
    path = tmp_path / "mutant.onnx"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    opened, refused, slowest = 0, [], 0.0
    for _ in range(MUTANTS):
        mutant = copy.deepcopy(original)
        for _ in range(int(random.integers(1, 3))):
            MUTATIONS[int(random.integers(len(MUTATIONS)))](mutant, random)
        path.write_bytes(mutant.SerializeToString())
        start = time.process_time()
        try:
            open_model(path, check=unsupported_ops)
            opened += 1
        except ModelError as error:
            refused.append((error.message, error.hint))
        slowest = max(slowest, time.process_time() - start)
    assert opened
    assert refused
    assert all(message and hint for message, hint in refused)
    assert slowest < SLOWEST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KIB


def test_the_originals_open(tmp_path: Path) -> None:
    for make in (convolutions, transformer, quantized, branches, recurrent):
        path = tmp_path / f"{make.__name__}.onnx"
        onnx.save(make(), path)
        open_model(path, check=unsupported_ops)
