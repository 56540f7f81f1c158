"""Is this still the model that was calibrated?"""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from studio.graph.model import ModelGraph

_PLAIN = frozenset(
    [
        ir.AttributeType.FLOAT,
        ir.AttributeType.FLOATS,
        ir.AttributeType.INT,
        ir.AttributeType.INTS,
        ir.AttributeType.STRING,
        ir.AttributeType.STRINGS,
    ]
)


def fingerprint(graph: ModelGraph) -> str:
    """A digest of the graph's operators, their plain attributes, all constants and the quantization
    it came with, in hex."""
    digest = hashlib.blake2b(digest_size=16)
    for node in graph.ir.graph.all_nodes():
        plain = sorted(
            (name, repr(attribute.value))
            for name, attribute in node.attributes.items()
            if attribute.type in _PLAIN
        )
        inputs = [None if value is None else value.name for value in node.inputs]
        outputs = [value.name for value in node.outputs]
        digest.update(repr((node.domain, node.op_type, inputs, outputs, plain)).encode())
    constants = dict(graph.initializers)
    for body in graph.ir.graph.subgraphs():
        ends = [value.name for value in (*body.inputs, *body.outputs)]
        digest.update(repr(ends).encode())
        constants.update(body.initializers)
    for name in sorted(constants):
        tensor = constants[name].const_value
        assert tensor is not None, name
        array = tensor.numpy()
        digest.update(repr((name, str(array.dtype), array.shape)).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    for name, found in sorted(graph.found.items()):
        integers = (found.axis, found.bits, found.signed, found.storage_bits, found.symmetric)
        others: tuple[object, ...] = (found.float_format, found.block_size, found.strict)
        others += ("dynamic",) if found.dynamic else ()
        digest.update(repr((name, integers, others, found.zero_point.tolist())).encode())
        digest.update(found.scale.tobytes())
    return digest.hexdigest()
