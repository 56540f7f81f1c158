"""Open an .onnx file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from studio.errors import ModelError
from studio.graph.model import FLOAT_TYPES, Change, ModelGraph, ModelSource
from studio.graph.onnx_checks import EXPORT_AGAIN, ProtoChecker
from studio.graph.opset import normalise_opset
from studio.graph.subgraphs import give_bodies_own_outputs, reads

LARGEST_FILE = 2**31 - 1  # of a protobuf message
KNOWN_MAGIC = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"PK\x03\x04": "a zip archive (a PyTorch .pth file, perhaps)",
    b"\x80\x02": "a Python pickle (an old PyTorch .pth file, perhaps)",
    b"\x89HDF": "an HDF5 file (a Keras model, perhaps)",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer, not the model itself",
    b"<": "an HTML or XML page",
}


def load_onnx(path: str | Path) -> ModelGraph:
    """Read an .onnx file (opset 7 or later, external data too) without running or copying anything.

    Returns the graph as in the file, with functions inlined and the opset at least 13 (17 where
    possible). Weights are mapped, not copied. Raises ModelError naming the file and the remedy.
    """
    path = Path(path)
    proto = _parse(path)
    checker = ProtoChecker(proto, path)
    warnings = []
    if proto.training_info:
        warnings.append(f"{path.name} has training information; it was left out.")
        del proto.training_info[:]
    try:
        checker.check()
        give_bodies_own_outputs(proto)
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, path.resolve().parent)
        _sort(model)
        common.RemoveInitializersFromInputsPass()(model)
        changes = _inline(model)
    except ModelError:
        raise
    except Exception as error:  # names that are no text, sizes beyond 64 bits, ...
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{path.name} is damaged: {reason.rstrip('.')}.", EXPORT_AGAIN) from error
    model, converted = normalise_opset(model, path.name)
    warnings += [
        f"The weights {name!r} contain NaN or infinite numbers." for name in _not_finite(model)
    ]
    return ModelGraph(model, ModelSource(path), (*changes, *converted), tuple(warnings))


def _parse(path: Path) -> onnx.ModelProto:
    if path.is_dir():
        raise ModelError(f"{path} is a folder.", "Choose the .onnx file inside it.")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ModelError(
                f"{path.name} has {size / 2**30:.1f} GiB; an ONNX file cannot have more than 2.",
                "Export the model with its weights in an external data file.",
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist.", "Check the name of the file.") from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}.", "Check the permissions of the file."
        ) from None
    if not content:
        raise ModelError(f"{path.name} is empty.", EXPORT_AGAIN)
    for magic, kind in KNOWN_MAGIC.items():
        if content.startswith(magic):
            raise ModelError(f"{path.name} is {kind}, not an ONNX model.", "Choose an .onnx file.")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise ModelError(
            f"{path.name} is not an ONNX model, or only the beginning of one.", EXPORT_AGAIN
        ) from None
    return proto


def _sort(model: ir.Model) -> None:
    """Topological order; left alone where it holds already."""
    done = {id(value) for value in (*model.graph.inputs, *model.graph.initializers.values())}
    for node in model.graph:
        if any(v is not None and id(v) not in done and v.producer() for v in reads(node)):
            common.TopologicalSortPass()(model)
            return
        done.update(id(value) for value in node.outputs)


def _inline(model: ir.Model) -> list[Change]:
    from studio.graph.prepare.inline import inline_functions

    return inline_functions(model)


def _not_finite(model: ir.Model) -> Iterator[str]:
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype not in FLOAT_TYPES or not tensor.size:
            continue
        numbers = tensor.numpy()
        # min and max carry NaN along, and need no memory of the tensor's size
        if not np.isfinite(float(numbers.min())) or not np.isfinite(float(numbers.max())):
            yield name
