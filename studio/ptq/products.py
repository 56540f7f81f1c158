"""A weight as a matrix, and what each of its rows is multiplied with.

Conv and ConvTranspose of any rank, Gemm and MatMul are products: an output is a row of the weight
times the numbers that the layer reads there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from studio.graph.edit import int_attribute
from studio.quant.encoding import Encoding
from studio.runtime.ops.registry import Call, find
from studio.sim import op_rules
from studio.sim.plan import Layer, Role
from studio.sim.quantized_model import QuantizedModel

CONVOLUTIONS = ("Conv", "ConvTranspose")
MOST_INPUTS = 16384
"""Numbers that a row is multiplied with: the products of all pairs of them take 2 GiB."""


@dataclass(frozen=True)
class Product:
    """The rounded constant `weight` of `layer`, multiplied by its first node, `head`.

    index: int64 (groups, outputs, inputs of a group), the place of each factor in the flat weight.
    """

    layer: Layer
    head: ir.Node
    weight: str
    encoding: Encoding
    index: Tensor

    @property
    def source(self) -> str:
        """Name of the tensor that is read."""
        value = self.head.inputs[0]
        assert value is not None
        return value.name or ""

    def matrix(self, weight: Tensor) -> Tensor:
        """`weight` as (groups, outputs, inputs of a group)."""
        return weight.reshape(-1)[self.index]

    def restored(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The weight, of the shape of `like`, whose `matrix` this is."""
        flat = torch.empty(like.numel(), dtype=matrix.dtype)
        flat[self.index.reshape(-1)] = matrix.reshape(-1)
        return flat.reshape(like.shape)

    def owner(self) -> Tensor:
        """Which scale (flat) each factor has, int64, of the shape of `index`."""
        count = self.encoding.scale.size
        numbers = torch.arange(count).reshape(self.encoding.scale.shape).numpy()
        shape = tuple(self._shape)
        spread = torch.tensor(self.encoding.spread(numbers, shape))
        return self.matrix(spread.expand(shape))

    def rows(self, x: Tensor, count: int, seed: int) -> Tensor:
        """What `count` outputs of one channel, drawn at random, are made of where the layer reads
        `x`: (rows, groups, inputs of a group). The same `seed` draws the same outputs."""
        generator = torch.Generator().manual_seed(seed)
        if self.head.op_type not in CONVOLUTIONS:
            flat = x.reshape(-1, x.shape[-1])
            picked = torch.randperm(len(flat), generator=generator)[:count]
            return flat[picked][:, None]
        taps = self._taps(x)
        picked = torch.randperm(len(x) * taps.shape[1], generator=generator)[:count]
        image, place = picked // taps.shape[1], picked % taps.shape[1]
        read = taps[:, place].T  # (rows, taps)
        values = x.flatten(2).transpose(1, 2)[image[:, None], (read - 1).clamp(min=0)]
        values = values * (read > 0)[..., None]
        return values.transpose(1, 2).reshape(len(picked), self.index.shape[0], -1)

    def _taps(self, x: Tensor) -> Tensor:
        """Which place of an image each number of the kernel meets, (kernel, places of the output):
        from 1, and 0 in the padding. The operator itself tells, on an image of place numbers."""
        sizes, kernel = x.shape[2:], self._shape[2:]
        count = math.prod(kernel)
        image = torch.arange(1, math.prod(sizes) + 1, dtype=torch.float64).reshape(1, 1, *sizes)
        one_each = torch.eye(count, dtype=torch.float64)
        lead = (count, 1) if self.head.op_type == "Conv" else (1, count)
        known = find(self.head.domain, self.head.op_type)
        assert known is not None
        attributes = {name: _plain(item) for name, item in self.head.attributes.items()}
        call = Call(self.head.op_type, 0, {**attributes, "group": 1}, 1, (), torch.device("cpu"))
        made = known.function(call, image, one_each.reshape(*lead, *kernel))
        assert isinstance(made, Tensor)
        return made.round().long().reshape(count, -1)

    @property
    def _shape(self) -> list[int]:
        weight = self.head.inputs[1]
        assert weight is not None and weight.const_value is not None
        return list(weight.const_value.shape.numpy())


def product_of(model: QuantizedModel, layer: Layer) -> Product | str:
    """The product of `layer`, or why its weight is left alone ("" if it has none)."""
    rows = [model.plan.tensors[name] for name in layer.weights]
    rounded = [row for row in rows if row.role is Role.WEIGHT and row.spec is not None]
    if not rounded or not layer.nodes:
        return ""
    head, row = model.graph.node(layer.nodes[0]), rounded[0]
    if row.name not in {value.name for value in head.inputs if value is not None}:
        return ""  # the weight of a normalisation
    if row.layer != layer.name:
        return f"shares its weight with {row.layer}"
    if head.op_type in op_rules.NORMALIZATION_OPS or head.op_type == "PRelu":
        return ""
    known = head.domain in ("", "ai.onnx") and head.op_type in (*CONVOLUTIONS, "Gemm", "MatMul")
    if not known or len(rounded) > 1:
        return f"the weight of {head.op_type} is no matrix"
    if head.op_type == "Gemm" and int_attribute(head, "transA", 0):
        return "multiplies columns of what it reads"
    if row.name not in model.encodings:
        return "has no encoding"
    shape = model.graph.constant(row.name).shape
    if head.op_type == "MatMul" and len(shape) != 2:
        return f"has a weight of {len(shape)} axes"
    index = _index(head, shape)
    if index.shape[2] > MOST_INPUTS:
        return f"multiplies {index.shape[2]} numbers, more than {MOST_INPUTS}"
    return Product(layer, head, row.name, model.encodings[row.name], index)


def _index(head: ir.Node, shape: tuple[int, ...]) -> Tensor:
    places = torch.arange(math.prod(shape)).reshape(shape)
    groups = int_attribute(head, "group", 1)
    if head.op_type == "Conv":
        return places.reshape(groups, shape[0] // groups, -1)
    if head.op_type == "ConvTranspose":
        apart = places.unflatten(0, (groups, shape[0] // groups)).transpose(1, 2)
        return apart.reshape(groups, shape[1], -1)
    by_output = head.op_type == "Gemm" and int_attribute(head, "transB", 0)
    return (places if by_output else places.T)[None]


def _plain(attribute: ir.Attr) -> object:
    value = attribute.value
    return list(value) if isinstance(value, tuple) else value
