"""ONNX files as others may have them."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from studio.graph.describe import STACK

_PROTOBUF_LIMIT = 2**31 - 2**24


def save_onnx(model: ir.Model, path: Path) -> None:
    """Write `model`; weights go to a data file beside it where protobuf's 2 GiB are exceeded.

    Stack traces that torch's exporter left in the nodes are not written: they name folders of the
    machine the model was made on. Module scopes are.
    """
    portable = model.clone()
    for node in portable.graph.all_nodes():
        node.metadata_props.pop(STACK, None)
    size = sum(
        value.const_value.nbytes
        for value in portable.graph.initializers.values()
        if value.const_value
    )
    ir.save(portable, path, external_data=f"{path.name}.data" if size >= _PROTOBUF_LIMIT else None)
