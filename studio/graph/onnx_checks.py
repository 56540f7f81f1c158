"""Can this protobuf message be worked with? Decided before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import onnx
import onnx_ir as ir

from studio.errors import ModelError
from studio.graph.opset import OLDEST_READ
from studio.graph.subgraphs import proto_subgraphs

MAX_INLINED_NODES = 200_000
EXPORT_AGAIN = "Export the model again, and check that the file was copied completely."
_INT32_TYPES_PACKED = 8
BODIES = {"If": ("then_branch", "else_branch"), "Loop": ("body",), "Scan": ("body",)}
"""The subgraphs each control flow operator must have."""


class ProtoChecker:
    """Checks one model file; every problem is a ModelError that names the file."""

    def __init__(self, proto: onnx.ModelProto, path: Path) -> None:
        self.proto = proto
        self.path = path
        self.folder = path.parent
        self.opsets: dict[str, int] = {}

    def check(self) -> None:
        """Raise ModelError for the first thing that makes the model unusable."""
        if not self.proto.ir_version or not self.proto.graph.node:
            self.fail(
                "is not an ONNX model (it holds no operators)",
                "Choose an .onnx file, or a Python file as file.py:factory.",
            )
        self._check_versions()
        self._check_functions()
        self._check_graph(self.proto.graph, set())
        if not self.proto.graph.output:
            self.fail("has no outputs", EXPORT_AGAIN)
        for function in self.proto.functions:
            for node in function.node:
                self._check_attributes(node)

    def fail(self, what: str, hint: str = EXPORT_AGAIN) -> NoReturn:
        raise ModelError(f"{self.path.name} {what}.", hint)

    def _check_versions(self) -> None:
        if self.proto.ir_version > onnx.IR_VERSION:
            self.fail(
                f"has ONNX IR version {self.proto.ir_version}; version {onnx.IR_VERSION} is the"
                " newest the installed onnx knows",
                "Update the package onnx, or export the model with an older version of it.",
            )
        for entry in self.proto.opset_import:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            if self.opsets.setdefault(domain, entry.version) != entry.version:
                self.fail(f"imports two versions of the operator set {domain or 'ai.onnx'!r}")
        version, newest = self.opsets.get(""), onnx.defs.onnx_opset_version()
        if version is None:
            self.fail("does not say which ONNX opset it uses")
        if version < OLDEST_READ:
            self.fail(
                f"uses ONNX opset {version}; {OLDEST_READ} is the oldest that can be read",
                "Export the model again with opset 13 or later.",
            )
        if version > newest:
            self.fail(
                f"uses ONNX opset {version}; {newest} is the newest the installed onnx knows",
                f"Update the package onnx, or export the model with opset {newest} or earlier.",
            )

    def _check_functions(self) -> None:
        """Model-local functions must not call themselves, nor unfold into millions of nodes."""
        functions = {(f.domain, f.name, f.overload): f for f in self.proto.functions}
        sizes: dict[tuple[str, str, str], int] = {}

        def size(nodes: Iterable[onnx.NodeProto], calling: tuple[tuple[str, str, str], ...]) -> int:
            total = 0
            for node in nodes:
                key = (node.domain, node.op_type, node.overload)
                total += 1
                for graph in proto_subgraphs(node):
                    total += size(graph.node, calling)
                if key not in functions:
                    continue
                if key in calling:
                    self.fail(f"has a function that calls itself: {node.domain}::{node.op_type}")
                if key not in sizes:
                    sizes[key] = size(functions[key].node, (*calling, key))
                total += sizes[key]
            return total

        if functions and size(self.proto.graph.node, ()) > MAX_INLINED_NODES:
            self.fail(f"has functions that unfold into more than {MAX_INLINED_NODES:,} operators")

    def _check_graph(self, graph: onnx.GraphProto, outer: set[str]) -> None:
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            self.fail(
                f"stores the weights {name!r} as a sparse tensor, which is not supported",
                "Export the model with dense weights.",
            )
        made = {value.name for value in graph.input}
        if len(made) < len(graph.input) or "" in made:
            self.fail("has inputs with the same or no name")
        constants: set[str] = set()
        for tensor in graph.initializer:
            if tensor.name in constants or not tensor.name:
                self.fail(f"has two weights called {tensor.name!r}")
            constants.add(tensor.name)
            self._check_tensor(tensor)
        made |= constants
        for node in graph.node:
            for name in filter(None, node.output):
                if name in made or name in outer:
                    self.fail(f"has two tensors called {name!r}, one made by {_label(node)}")
                made.add(name)
        visible = made | outer
        for node in graph.node:
            for name in node.input:
                if name and name not in visible:
                    self.fail(f"lacks the tensor {name!r}, which {_label(node)} reads")
            self._check_attributes(node)
            self._check_bodies(node)
            for subgraph in proto_subgraphs(node):
                self._check_graph(subgraph, visible)
            self._check_schema(node)
        outputs = [value.name for value in graph.output]
        for name in outputs:
            if name not in visible:
                self.fail(f"has the output {name!r}, which no operator makes")
        if graph is self.proto.graph and len(set(outputs)) < len(outputs):
            self.fail("has two outputs with the same name")
        self._check_acyclic(graph)

    def _check_attributes(self, node: onnx.NodeProto) -> None:
        seen = set()
        for attribute in node.attribute:
            if attribute.name in seen:
                self.fail(f"gives {_label(node)} the attribute {attribute.name!r} twice")
            seen.add(attribute.name)
            if attribute.HasField("t"):
                self._check_tensor(attribute.t, f"the constant of {_label(node)}")
            for tensor in attribute.tensors:
                self._check_tensor(tensor, f"a constant of {_label(node)}")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                self.fail(
                    f"has a sparse constant in {_label(node)}, which is not supported",
                    "Export the model with dense weights.",
                )

    def _check_bodies(self, node: onnx.NodeProto) -> None:
        """The subgraphs of If, Loop and Scan take and give what their operator has for them."""
        if node.domain not in ("", "ai.onnx") or node.op_type not in BODIES:
            return
        graphs = {a.name: a.g for a in node.attribute if a.HasField("g")}
        before_9 = node.op_type == "Scan" and self.opsets.get("", 0) < 9
        inputs = 0 if node.op_type == "If" else len(node.input) - before_9
        outputs = len(node.output) + (node.op_type == "Loop")
        for name in BODIES[node.op_type]:
            if name not in graphs:
                self.fail(f"has a malformed operator, {_label(node)}: it lacks its {name}")
            ends = len(graphs[name].input), len(graphs[name].output)
            if ends != (inputs, outputs):
                self.fail(
                    f"has a malformed operator, {_label(node)}: its {name} has {ends[0]} inputs and"
                    f" {ends[1]} outputs instead of {inputs} and {outputs}"
                )

    def _check_schema(self, node: onnx.NodeProto) -> None:
        """Attributes and number of operands of a standard operator; others are not judged here."""
        version = self.opsets.get(node.domain if node.domain != "ai.onnx" else "")
        if version is None or node.op_type == "Constant" or proto_subgraphs(node):
            return
        if not onnx.defs.has(node.op_type, version, node.domain):
            return
        context = onnx.checker.C.CheckerContext()
        context.ir_version = self.proto.ir_version
        context.opset_imports = self.opsets
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            reason = str(error).strip().splitlines()[0]
            self.fail(f"has a malformed operator, {_label(node)}: {reason.rstrip('.')}")

    def _check_acyclic(self, graph: onnx.GraphProto) -> None:
        reads = [_reads(node) for node in graph.node]
        maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
        if all(maker.get(name, -1) < i for i, names in enumerate(reads) for name in names):
            return
        waiting = [len({maker[n] for n in names if n in maker}) for names in reads]
        readers: dict[int, set[int]] = {}
        for i, names in enumerate(reads):
            for name in names:
                if name in maker:
                    readers.setdefault(maker[name], set()).add(i)
        ready = [i for i, count in enumerate(waiting) if not count]
        done = 0
        while ready:
            done += 1
            for reader in readers.get(ready.pop(), ()):
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        if done < len(reads):
            stuck = next(i for i, count in enumerate(waiting) if count)
            self.fail(
                f"has a cycle: {_label(graph.node[stuck])} needs its own result",
                "Export the model again; only the Loop operator may repeat anything.",
            )

    def _check_tensor(self, tensor: onnx.TensorProto, label: str = "") -> None:
        label = label or f"the weights {tensor.name!r}"
        try:
            dtype = ir.DataType(tensor.data_type)
            bits = 0 if dtype == ir.DataType.STRING else dtype.bitwidth
        except (ValueError, TypeError):
            self.fail(f"gives {label} an unknown data type ({tensor.data_type})")
        if any(size < 0 for size in tensor.dims):
            self.fail(f"gives {label} a negative size: {list(tensor.dims)}")
        if tensor.HasField("segment"):
            self.fail(f"stores {label} in segments, which is not supported")
        count = math.prod(tensor.dims)
        size = (count * bits + 7) // 8
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            self._check_external(tensor, label, size)
            return
        if dtype == ir.DataType.STRING:
            held, needed = len(tensor.string_data), count
        elif tensor.HasField("raw_data"):
            held, needed = len(tensor.raw_data), size
        else:
            held = _typed_entries(tensor)
            needed = _expected_entries(dtype, count)
        if held != needed:
            unit = "bytes" if tensor.HasField("raw_data") else "numbers"
            self.fail(
                f"is damaged: {label} of shape {list(tensor.dims)} should hold {needed:,} {unit}"
                f" but holds {held:,}"
            )

    def _check_external(self, tensor: onnx.TensorProto, label: str, size: int) -> None:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", str(size)))
        except ValueError:
            self.fail(f"has an unreadable position of {label} in the file {location!r}")
        together = f"Put {Path(location).name!r} into the folder of {self.path.name}."
        if not location or "\0" in location or Path(location).is_absolute():
            self.fail(f"keeps {label} outside its own folder ({location!r})", together)
        folder = self.folder.resolve()
        file = (folder / location).resolve()
        if ".." in Path(location).parts or not file.is_relative_to(folder):
            self.fail(f"keeps {label} outside its own folder ({location!r})", together)
        try:
            status = file.stat()
        except OSError:
            self.fail(f"needs the file {location!r} for its weights, which is missing", together)
        if not file.is_file():
            self.fail(f"needs the file {location!r} for its weights, which is not a file", together)
        if status.st_nlink > 1:
            self.fail(
                f"keeps {label} in {location!r}, which is a hard link",
                f"Replace {location!r} by a copy of the file.",
            )
        if offset < 0 or length != size or offset + size > status.st_size:
            self.fail(
                f"is damaged: {label} needs {size:,} bytes at {offset:,} of {location!r}, which"
                f" has {status.st_size:,} bytes",
                f"Copy {location!r} again; it may be incomplete or belong to another model.",
            )


def _typed_entries(tensor: onnx.TensorProto) -> int:
    fields = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
    return sum(len(getattr(tensor, field)) for field in fields)


def _expected_entries(dtype: ir.DataType, count: int) -> int:
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * count
    if dtype.bitwidth < _INT32_TYPES_PACKED:
        return (count * dtype.bitwidth + 7) // 8
    return count


def _reads(node: onnx.NodeProto) -> set[str]:
    """Tensors a node needs from its own graph, those captured by its subgraphs included."""
    names = {name for name in node.input if name}
    for graph in proto_subgraphs(node):
        names |= set(_captured(graph))
    return names


def _captured(graph: onnx.GraphProto) -> Iterator[str]:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        own.update(node.output)
    for node in graph.node:
        yield from _reads(node) - own
    yield from ({value.name for value in graph.output} - own)


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else f"{node.op_type} without a name"
