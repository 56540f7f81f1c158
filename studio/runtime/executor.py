"""The torch engine: runs a `ModelGraph` with torch, differentiable, on any device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from studio.errors import ModelError, UnsupportedOpsError
from studio.graph.model import ModelGraph
from studio.runtime.allocator import keep_freed_memory
from studio.runtime.ops import find, unsupported_ops
from studio.runtime.ops.dtypes import TORCH_DTYPES, from_numpy
from studio.runtime.plan import compile_plan, hooked_name
from studio.runtime.recompute import run_again
from studio.runtime.steps import Plan

Quantizer = Callable[[Tensor], Tensor]
Feed = Tensor | np.ndarray | list[Tensor | np.ndarray] | None

# Integer constants up to this many elements are shapes, axes and indices: kept on the CPU.
_SHAPE_LIKE = 64
_CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class _Quantized:
    """A quantized initializer: made from which tensor, in which state, and how."""

    source: Tensor
    version: int
    recorded: bool
    result: Tensor

    def serves(self, source: Tensor, recording: bool) -> bool:
        """False if `source` was written to, or if the quantizer may have a gradient to give."""
        same = self.source is source and self.version == source._version
        return same and (self.recorded or not recording)


class Executor:
    """Computes the values of a graph.

    `quantize` maps the name of a graph input, initializer or node output to a function applied to
    that value as soon as it exists; it gets the tensor and returns one of the same shape. Where a
    function has an attribute `write_over`, that is called instead, without gradients, on tensors
    whose memory nobody else reads. On an
    initializer it is applied once and again only when the initializer is written to, unless a
    gradient flows through it (after training what a quantizer itself learns, call
    `forget_quantized`). `quantize_for` names the nodes that read the quantized value where others,
    and who asks for it, get it as it is; a value not named there is quantized for all.

    `parameters` are the floating-point initializers by name, leaf tensors of their own (not the
    graph's memory) on `device`; call `requires_grad_()` on those to train or put others in their
    place. Gradients flow whenever torch records them: run under `torch.inference_mode` for values
    alone, which is also faster. With `recompute` only some values in between are kept for them, the
    rest is computed again (Chen et al. 2016, arXiv 1604.06174): less memory, more time.

    Raises UnsupportedOpsError naming every op it cannot compute.
    """

    def __init__(
        self,
        graph: ModelGraph,
        *,
        device: str | torch.device = "cpu",
        quantize: Mapping[str, Quantizer] | None = None,
        quantize_for: Mapping[str, Collection[str]] | None = None,
        recompute: bool = False,
    ) -> None:
        missing = unsupported_ops(graph)
        if missing:
            raise UnsupportedOpsError(missing)
        keep_freed_memory()
        self.graph = graph
        self.device = torch.device(device)
        self.recompute = recompute
        self.parameters: dict[str, Tensor] = {}
        self._constants: dict[str, Tensor] = {}
        self._quantize = dict(quantize or {})
        self._quantize_for = {
            name: frozenset(nodes) for name, nodes in (quantize_for or {}).items()
        }
        self._quantized: dict[str, _Quantized] = {}
        self._plans: dict[tuple[tuple[str, ...], ...], Plan] = {}
        self._load_constants()

    def _load_constants(self) -> None:
        kernels, data = _roles(self.graph)
        with torch.inference_mode(False):
            for name in self.graph.initializers:
                tensor = from_numpy(self.graph.constant(name)).clone()
                floating = tensor.is_floating_point()
                if name in kernels and tensor.dim() == 4:
                    # Convolutions follow the layout of their weights; this one is the faster.
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
                if name in data and (floating or tensor.numel() > _SHAPE_LIKE):
                    tensor = tensor.to(self.device)
                (self.parameters if floating else self._constants)[name] = tensor

    def run(
        self, inputs: Mapping[str, Feed], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Values named `outputs` (the graph's outputs by default) for `inputs` by name.

        A sequence is a list of tensors or arrays, an empty optional value None. Only the nodes
        they need are run. Raises ModelError if an input is missing or of the wrong type or rank,
        if an output is unknown, or if a node fails.
        """
        wanted = tuple(outputs) if outputs is not None else _names(self.graph.outputs)
        fed = _names(self.graph.inputs)
        feeds: dict[str, Any] = {name: self._input(name, inputs) for name in fed}
        plan = self._plan(None, fed, wanted)
        for name, target, hook in plan.feed_hooks:
            feeds[target] = hook(feeds[name])
        return self._execute(plan, feeds)

    def run_nodes(
        self, nodes: Sequence[str], values: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        """Values named `outputs` after running only `nodes` on the given `values`.

        `values` are taken as they are (no quantizer is applied to them) and may also stand in for
        initializers. Raises ModelError if a value that the nodes need is missing.
        """
        plan = self._plan(tuple(nodes), tuple(values), tuple(outputs))
        return self._execute(plan, {name: self._tensor(name, x) for name, x in values.items()})

    def forget_quantized(self) -> None:
        """Apply the quantizers of initializers anew on the next run: their settings changed."""
        self._quantized.clear()

    def _plan(
        self, nodes: tuple[str, ...] | None, fed: tuple[str, ...], wanted: tuple[str, ...]
    ) -> Plan:
        key = (("*",) if nodes is None else ("", *nodes), fed, wanted)
        if key not in self._plans:
            self._plans[key] = compile_plan(
                self.graph, nodes, fed, wanted, self._quantize, self.device, self._quantize_for
            )
        return self._plans[key]

    def _input(self, name: str, inputs: Mapping[str, Feed]) -> Tensor | list[Tensor] | None:
        if name not in inputs:
            raise ModelError(f"The input '{name}' is missing.", "Feed every input of the model.")
        fed, value = inputs[name], self.graph.value(name)
        if fed is None or isinstance(fed, list):
            if isinstance(value.type, ir.TensorType):
                raise ModelError(f"The input '{name}' is not a tensor.", "Feed a tensor.")
            return None if fed is None else [self._tensor(name, x) for x in fed]
        tensor = self._tensor(name, fed)
        if value.dtype is not None and tensor.dtype != TORCH_DTYPES[value.dtype]:
            raise ModelError(
                f"The input '{name}' is {tensor.dtype}, the model takes {value.dtype}.",
                "Convert the data to the model's type.",
            )
        if value.shape is not None and len(value.shape) != tensor.dim():
            raise ModelError(
                f"The input '{name}' is {list(tensor.shape)}, the model takes {value.shape}.",
                "Feed data of that many dimensions.",
            )
        return tensor

    def _tensor(self, name: str, x: Tensor | np.ndarray) -> Tensor:
        try:
            return (x if isinstance(x, Tensor) else from_numpy(x)).to(self.device)
        except TypeError as error:
            raise ModelError(f"'{name}': {error}", "Feed numbers.") from error

    def _constant(self, slot: str) -> Tensor:
        """The initializer that `slot` is named after, quantized if it has a quantizer there."""
        name = slot.removesuffix(hooked_name(""))
        tensor = self.parameters.get(name)
        if tensor is None:
            tensor = self._constants[name]
        hook = self._quantize.get(name)
        if hook is None or (slot == name and name in self._quantize_for):
            return tensor
        recording = torch.is_grad_enabled()
        if recording and tensor.requires_grad:
            return hook(tensor)
        known = self._quantized.get(name)
        if known is not None and known.serves(tensor, recording):
            return known.result
        # Made outside inference mode, so that a later run with gradients can use it.
        with torch.inference_mode(False), torch.set_grad_enabled(recording):
            result = hook(tensor)
        if not result.requires_grad:
            self._quantized[name] = _Quantized(tensor, tensor._version, recording, result)
        return result

    def _execute(self, plan: Plan, feeds: Mapping[str, Any]) -> dict[str, Tensor]:
        values: dict[str, Any] = {name: self._constant(name) for name, _ in plan.constants}
        values.update(feeds)
        run = run_again if self.recompute and torch.is_grad_enabled() else Plan.run
        results = run(plan, values, self.device)
        return {name: result for (name, _), result in zip(plan.results, results, strict=True)}


def _roles(graph: ModelGraph) -> tuple[set[str], set[str]]:
    """Names of the values that are a convolution's weight, and of those read as data.

    What no op reads as data is a number for the CPU: a shape, a bound, a scale factor.
    """
    kernels: set[str] = set()
    data = {value.name or "" for value in graph.outputs}
    for node in graph.ir.graph.all_nodes():
        known = find(node.domain, node.op_type)
        host = known.host if known else frozenset()
        names = [value.name if value is not None else None for value in node.inputs]
        data |= {name for i, name in enumerate(names) if name and i not in host}
        if node.op_type in _CONVOLUTIONS and names[1]:
            kernels.add(names[1])
    return kernels, data


def _names(values: Iterable) -> tuple[str, ...]:
    return tuple(value.name for value in values)
