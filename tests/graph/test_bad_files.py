"""Whatever a file holds: it opens, or there is a ModelError that names it. Nothing else."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import make_model, node
from onnx import TensorProto, helper, numpy_helper

from studio.errors import ModelError
from studio.graph.onnx_file import load_onnx
from studio.graph.open import open_model

WEIGHT = np.ones((4, 3, 3, 3), np.float32)


def tiny(opset: int = 17) -> onnx.ModelProto:
    squeeze = (
        [node("ReduceMean", ["c"], ["m"], axes=[2, 3], keepdims=1)]
        if opset < 18
        else [node("ReduceMean", ["c", "axes"], ["m"], keepdims=1)]
    )
    return make_model(
        [
            node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            *squeeze,
            node("Shape", ["m"], ["s"]),
            node("Slice", ["s", "zero", "one"], ["n"]),
            node("Concat", ["n", "minus"], ["t"], axis=0),
            node("Reshape", ["m", "t"], ["r"]),
            node("Softmax", ["r"], ["y"]),
        ],
        {
            "w": WEIGHT,
            "b": np.ones(4, np.float32),
            "axes": np.array([2, 3]),
            "zero": np.array([0]),
            "one": np.array([1]),
            "minus": np.array([-1]),
        },
        x=("N", 3, 8, 8),
        opset=opset,
    )


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(path)
    text = str(caught.value)
    assert path.name in text
    assert caught.value.hint
    for word in words:
        assert word in text


def test_the_model_itself_is_good(tmp_path: Path) -> None:
    for opset in (10, 13, 17, 20):
        graph = open_model(save(tiny(opset), tmp_path))
        assert graph.opset >= 13
        assert not graph.warnings


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), ["PNG"]),
        (b"PK\x03\x04" + bytes(100), ["zip"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS"]),
        (b"<!DOCTYPE html>", ["HTML"]),
        (b"hello world, this is text", ["not an ONNX model"]),
        (bytes(64), ["not an ONNX model"]),
        (b"\x08\x08", ["no operators"]),
    ],
)
def test_other_files(content: bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    refused(path, *words)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.onnx", "does not exist")
    (tmp_path / "net.onnx").mkdir()
    refused(tmp_path / "net.onnx", "folder")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_truncated(part: float, tmp_path: Path) -> None:
    content = tiny().SerializeToString()
    path = tmp_path / "net.onnx"
    path.write_bytes(content[: int(len(content) * part)])
    refused(path)


def edit_cycle(model: onnx.ModelProto) -> None:
    model.graph.node.append(node("Relu", ["q"], ["p"], name="first"))
    model.graph.node.append(node("Relu", ["p"], ["q"], name="second"))


def edit_duplicate_tensor(model: onnx.ModelProto) -> None:
    model.graph.node.append(node("Relu", ["x"], ["c"], name="again"))


def edit_duplicate_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def edit_missing_weight(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0]


def edit_missing_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nothing"


def edit_no_outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def edit_absurd_shape(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 50


def edit_negative_shape(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -4


def edit_unknown_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def edit_short_list(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[1]
    weight.ClearField("raw_data")
    weight.float_data.extend([1.0, 2.0])


def edit_sparse(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("where", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [5]))


def edit_no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def edit_old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 6


def edit_future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def edit_future_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 999


def edit_missing_operand(model: onnx.ModelProto) -> None:
    del model.graph.node[0].input[1:]


def edit_unknown_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("colour", "red"))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edit_cycle, ["cycle", "first"]),
        (edit_duplicate_tensor, ["'c'", "again"]),
        (edit_duplicate_weight, ["'w'"]),
        (edit_missing_weight, ["'w'", "conv"]),
        (edit_missing_output, ["'nothing'"]),
        (edit_no_outputs, ["no outputs"]),
        (edit_absurd_shape, ["'w'", "bytes"]),
        (edit_negative_shape, ["'w'", "negative"]),
        (edit_unknown_type, ["'w'", "data type"]),
        (edit_short_list, ["'b'", "4 numbers"]),
        (edit_sparse, ["sparse", "dense"]),
        (edit_no_opset, ["opset"]),
        (edit_old_opset, ["opset 6", "7"]),
        (edit_future_opset, ["opset 999", "newest"]),
        (edit_future_ir, ["IR version 999"]),
        (edit_missing_operand, ["malformed", "conv"]),
        (edit_unknown_attribute, ["malformed", "colour"]),
    ],
)
def test_damaged_model(
    edit: Callable[[onnx.ModelProto], None], words: list[str], tmp_path: Path
) -> None:
    model = tiny()
    edit(model)
    refused(save(model, tmp_path), *words)


def test_function_that_calls_itself(tmp_path: Path) -> None:
    model = tiny()
    model.opset_import.append(helper.make_opsetid("mine", 1))
    body = [helper.make_node("Loopy", ["a"], ["b"], domain="mine")]
    model.functions.append(
        helper.make_function("mine", "Loopy", ["a"], ["b"], body, [helper.make_opsetid("mine", 1)])
    )
    model.graph.node.append(helper.make_node("Loopy", ["x"], ["z"], domain="mine"))
    refused(save(model, tmp_path), "calls itself")


def test_functions_that_unfold_without_end(tmp_path: Path) -> None:
    model = tiny()
    imports = [helper.make_opsetid("mine", 1), helper.make_opsetid("", 17)]
    model.opset_import.append(imports[0])
    for level in range(40):
        body = [
            helper.make_node(f"F{level + 1}", ["a"], ["t"], domain="mine"),
            helper.make_node(f"F{level + 1}", ["t"], ["b"], domain="mine"),
        ]
        model.functions.append(
            helper.make_function("mine", f"F{level}", ["a"], ["b"], body, imports)
        )
    leaf = [node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("mine", "F40", ["a"], ["b"], leaf, imports))
    model.graph.node.append(helper.make_node("F0", ["x"], ["z"], domain="mine"))
    refused(save(model, tmp_path), "unfold")


# ---- external data


def with_external(folder: Path, location: str = "net.data", **entries: str) -> Path:
    model = tiny()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    return save(model, folder)


def test_external_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "net.data").write_bytes(bytes(16) + WEIGHT.tobytes())
    path = with_external(tmp_path, offset="16", length=str(WEIGHT.nbytes))
    graph = open_model(path)
    np.testing.assert_array_equal(graph.constant("w"), WEIGHT)
    assert numpy_helper.to_array(graph.to_proto().graph.initializer[0]).shape == WEIGHT.shape


def test_external_data_missing(tmp_path: Path) -> None:
    refused(with_external(tmp_path), "net.data", "missing")


@pytest.mark.parametrize(
    "entries", [{}, {"offset": "-1"}, {"length": "8"}, {"offset": str(1 << 60)}, {"offset": "x"}]
)
def test_external_data_too_short(entries: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "net.data").write_bytes(WEIGHT.tobytes()[:-1])
    refused(with_external(tmp_path, **entries), "net.data")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", ""])
def test_external_data_outside(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    refused(with_external(folder, location), "outside")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_external_data_behind_a_link(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    link(tmp_path / "secret", folder / "net.data")
    refused(with_external(folder))


# ---- not an error


def test_nan_in_weights_is_a_warning(tmp_path: Path) -> None:
    model = tiny()
    bad = WEIGHT.copy()
    bad[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].raw_data = bad.tobytes()
    graph = load_onnx(save(model, tmp_path))
    assert len(graph.warnings) == 1
    assert "'w'" in graph.warnings[0]


def test_training_information_is_left_out(tmp_path: Path) -> None:
    model = tiny()
    model.training_info.add()
    graph = load_onnx(save(model, tmp_path))
    assert "training information" in graph.warnings[0]


def test_claims_do_not_allocate(tmp_path: Path) -> None:
    """A constant that would have 2^45 elements stays an operator."""
    model = make_model(
        [
            node("ConstantOfShape", ["huge"], ["k"]),
            node("Expand", ["one", "huge"], ["e"]),
            node("Range", ["start", "stop", "step"], ["r"]),
            node("Pad", ["one", "far"], ["d"]),
            node("ReduceSum", ["d"], ["o"], keepdims=0),
            node("ReduceSum", ["k"], ["p"], keepdims=0),
            node("ReduceSum", ["e"], ["q"], keepdims=0),
            node("ReduceSum", ["r"], ["s"], keepdims=0),
            node("Sum", ["x", "o", "p", "q", "s"], ["y"]),
        ],
        {
            "huge": np.array([1 << 15] * 3),
            "far": np.array([0, 1 << 45]),
            "one": np.ones(1, np.float32),
            "start": np.float32(0),
            "stop": np.float32(1e18),
            "step": np.float32(1),
        },
        x=("N", 3),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graph = open_model(save(model, tmp_path))
    assert {"ConstantOfShape", "Expand", "Range", "Pad"} <= {n.op_type for n in graph.nodes()}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_mutations(opset: int, tmp_path: Path) -> None:
    """Bytes changed, cut out, doubled: a ModelError or success, soon, in little memory."""
    content = tiny(opset).SerializeToString()
    random = np.random.default_rng(opset)
    path = tmp_path / "net.onnx"
    before, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    opened, messages = 0, []
    for _ in range(200):
        mutant = bytearray(content)
        for _ in range(random.integers(1, 4)):
            at = int(random.integers(len(mutant)))
            kind = random.integers(4)
            if kind == 0:
                mutant[at] = random.integers(256)
            elif kind == 1:
                mutant[at] ^= 1 << int(random.integers(8))
            elif kind == 2:
                del mutant[at : at + int(random.integers(1, 9))]
            else:
                mutant[at:at] = mutant[at : at + int(random.integers(1, 9))]
        path.write_bytes(mutant)
        start = time.process_time()
        try:
            open_model(path)
            opened += 1
        except ModelError as error:
            messages.append(str(error))
        slowest = max(slowest, time.process_time() - start)
    assert opened
    assert all(path.name in message for message in messages)
    assert slowest < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
