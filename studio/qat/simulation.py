"""The simulation as a torch module: weights and ranges are its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from studio.graph.folded_norms import kept_norms
from studio.graph.model import ModelGraph
from studio.qat.batch_norm import Mode, TrainedNorm
from studio.qat.following import FollowingScale, following
from studio.qat.options import Ranges
from studio.quant.dynamic import DynamicFakeQuantizer
from studio.quant.encoding import Encoding
from studio.quant.fake_quantize import FakeQuantizer, fake_quantize
from studio.quant.grid import FloatGrid, Grid
from studio.quant.learned import LearnedQuantizer, LearnedRange, LearnedScale, lsq_gradient_scale
from studio.runtime.executor import Executor, Quantizer
from studio.sim.plan import Plan, Role, TensorPlan
from studio.sim.quantized_model import QuantizedModel
from studio.sim.target import load_target

_BIAS = Grid(32, signed=True, symmetric=True)

_NORMS = frozenset(
    [
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
    ]
)


class TrainedSimulation(nn.Module):
    """Computes what `studio.sim.simulator` computes, with gradients to weights and ranges.

    `forward` takes the inputs by name and returns the outputs in order. `weights` are parameters by
    initializer name (a dot becomes `|`), float32; `quantizers` those modules that learn a range or
    follow a weight, by tensor name; `norms` those that normalize, by the name of the weight before
    them, where BatchNormalization is kept: `start_norms` comes before all else then. `recompute` as
    of the executor.
    """

    def __init__(
        self,
        model: QuantizedModel,
        ranges: Ranges,
        device: torch.device,
        *,
        keep_norms: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.ranges = ranges
        self.device = device
        self.names = [value.name or "" for value in model.graph.outputs]
        self.quantizers = nn.ModuleDict()
        self._trained = trained_constants(model.graph, model.plan)
        rows = model.plan.tensors
        hooks = {name: hook for name, row in rows.items() if (hook := self._hook(row, device))}
        self.norms = nn.ModuleDict()
        if keep_norms:
            self._keep_norms(hooks)
        readers = {
            name: row.read_by
            for name, row in rows.items()
            if row.read_by is not None and name in hooks
        }
        self._executor = Executor(
            model.graph,
            device=device,
            quantize=hooks,
            quantize_for=readers,
            recompute=recompute,
        )
        self.weights = nn.ParameterDict()
        biases = {norm.kept.bias for norm in self._norms()}
        for name in self._trained:
            parameter = nn.Parameter(self._executor.parameters[name].detach())
            self._executor.parameters[name] = parameter
            if name not in biases:
                self.weights[_key(name)] = parameter
        self.to(device)

    def forward(self, inputs: Mapping[str, Tensor | np.ndarray]) -> list[Tensor]:
        values = self._executor.run(inputs, self.names)
        return [values[name] for name in self.names]

    def train(self, mode: bool = True) -> TrainedSimulation:
        super().train(mode)
        norms = Mode.BATCH if mode and not self._frozen else Mode.FOLDED
        self._enter(norms)
        return self

    # --- norms that are kept --------------------------------------------------------------------

    _frozen = False

    @property
    def norms_are_frozen(self) -> bool:
        return self._frozen

    def freeze_norms(self) -> None:
        """Go on with the statistics there are."""
        self._frozen = True
        self.train(self.training)

    def start_norms(self, batches: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Take the first statistics, on `batches` of inputs; nothing is computed differently."""
        self._run_through(batches)
        self.train(self.training)

    def estimate_norms(self, batches: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Replace the statistics by their mean over `batches` of inputs, unless they are frozen."""
        if len(self.norms) and not self._frozen:
            self._enter(Mode.ESTIMATE)
            self._run_through(batches)
            self.train(self.training)

    def _run_through(self, batches: Iterable[Mapping[str, np.ndarray]]) -> None:
        with torch.no_grad():
            for inputs in batches:
                self._executor.forget_quantized()  # each batch changes what weights are folded with
                self._executor.run(inputs, self.names)

    def _enter(self, mode: Mode) -> None:
        for norm in self._norms():
            norm.enter(mode)
        # Constants are rounded again: they are folded differently now.
        self._executor.forget_quantized()

    def _norms(self) -> list[TrainedNorm]:
        return [norm for norm in self.norms.values() if isinstance(norm, TrainedNorm)]

    def _keep_norms(self, hooks: dict[str, Quantizer]) -> None:
        """Put the norms of the graph between its layers and their quantizers."""
        rows, graph = self.model.plan.tensors, self.model.graph
        trained = set(self._trained)
        for kept in kept_norms(graph):
            row = rows.get(kept.output)
            if {kept.weight, kept.bias} - trained or (row is not None and row.read_by is not None):
                continue
            bias = torch.tensor(graph.constant(kept.bias))
            norm = TrainedNorm(kept, bias.reshape(-1))
            self.norms[_key(kept.weight)] = norm
            rounding = hooks.get(kept.weight)
            if rounding is not None and self._rounds_before(norm):
                hooks[kept.weight] = _then(rounding, norm.folded)
            else:
                hooks[kept.weight] = _then(norm.folded, rounding)
            hooks[kept.bias] = partial(_own_bias, norm, hooks.get(kept.bias))
            hooks[kept.output] = _then(norm, hooks.get(kept.output))

    def _rounds_before(self, norm: TrainedNorm) -> bool:
        """True if a weight may be rounded before it is folded: its channels have scales of their
        own that may be any number."""
        encoding = self.model.encodings[norm.kept.weight]
        own = encoding.axis == norm.kept.axis and encoding.block_size is None
        return own and not encoding.grid.power_of_two

    def _norm(self, key: str) -> TrainedNorm | None:
        norm = self.norms[key] if key in self.norms else None  # noqa: SIM401
        return norm if isinstance(norm, TrainedNorm) else None

    def _weight(self, key: str) -> Tensor:
        """A weight as the layer has it, before rounding."""
        norm, weight = self._norm(key), self.weights[key]
        return weight if norm is None else norm.folded(weight)

    def _weight_scale(self, key: str, quantizer: LearnedQuantizer | FollowingScale) -> Tensor:
        """The scale of a weight as the layer has it."""
        norm = self._norm(key)
        before = norm is not None and self._rounds_before(norm)
        if isinstance(quantizer, FollowingScale):
            scale = quantizer.scale(self.weights[key] if before else self._weight(key))
        else:
            scale = quantizer.scale_and_zero_point()[0]
        return norm.folded(scale) if norm is not None and before else scale

    def parameters_of_weights(self) -> list[nn.Parameter]:
        """What is trained besides ranges."""
        norms = [item for norm in self._norms() for item in (norm.gamma, norm.beta)]
        return [*self.weights.values(), *norms]

    # --- quantizers -----------------------------------------------------------------------------

    def _hook(self, row: TensorPlan, device: torch.device) -> Quantizer | None:
        if row.spec is None:
            return None
        if row.bias_of is not None:
            return partial(self._rounded_bias, row.bias_of)
        spec, shape = row.spec, self.model.graph.value(row.name).shape
        rank = None if shape is None else len(shape)
        if row.dynamic:
            return DynamicFakeQuantizer(spec.grid, spec.axis, spec.block_size, rank)
        if row.tied_to is not None:
            return self._tied(row, rank, device)
        encoding = self.model.encodings[row.name]
        weight = row.role is Role.WEIGHT and row.name in self._trained
        observed = row.role in (Role.INPUT, Role.ACTIVATION) and spec.fixed_range is None
        if _unscaled(encoding.grid) or not (weight or observed):
            return FakeQuantizer(encoding, rank, device)
        if not weight and self.ranges is Ranges.FIXED:
            return FakeQuantizer(encoding, rank, device)
        if weight and self.ranges in (Ranges.FIXED, Ranges.PACT):
            assert rank is not None
            start = torch.tensor(self.model.graph.constant(row.name))
            quantizer: Quantizer = following(encoding, rank, start)
        else:
            values = 1 if shape is None else _values(shape, skip=0 if weight else 1)
            quantizer = self._learned(encoding, rank, values)
        if isinstance(quantizer, nn.Module):
            self.quantizers[_key(row.name)] = quantizer
        return quantizer

    def _rounded_bias(self, sources: tuple[str, str], bias: Tensor) -> Tensor:
        """`bias` in steps of input scale times weight scale, as they are now; those of few bits are
        coarse. (int32 is taken to be wide enough: encodings see to that.)"""
        scale = (self._scale(sources[0]) * self._scale(sources[1])).detach()
        highest = float(2**31 - 1)
        return fake_quantize(bias, scale, -highest, highest, _BIAS)

    def _scale(self, name: str) -> Tensor:
        """The scale of a tensor now: (), or one a channel."""
        name = self.model.plan.tensors[name].tied_to or name
        key = _key(name)
        quantizer = self.quantizers[key] if key in self.quantizers else None  # noqa: SIM401
        if isinstance(quantizer, LearnedQuantizer | FollowingScale):
            return self._weight_scale(key, quantizer)
        return torch.tensor(self.model.encodings[name].scale, device=self.device)

    def _tied(self, row: TensorPlan, rank: int | None, device: torch.device) -> Quantizer | None:
        assert row.tied_to is not None
        if self._only_moves(row):
            return None  # its values are on the grid already
        key = _key(row.tied_to)
        known = self.quantizers[key] if key in self.quantizers else None  # noqa: SIM401
        return known or FakeQuantizer(self.model.encodings[row.name], rank, device)

    def _only_moves(self, row: TensorPlan) -> bool:
        producer = self.model.graph.value(row.name).producer()
        exact = load_target(self.model.config.target).follow_ops.exact
        if producer is None or producer.op_type not in exact or row.read_by is not None:
            return False
        source = producer.inputs[0]
        origin = None if source is None else self.model.plan.tensors.get(source.name or "")
        return origin is not None and origin.spec is not None and origin.read_by is None

    def _learned(self, encoding: Encoding, rank: int | None, values: int) -> LearnedQuantizer:
        channels = max(encoding.scale.size, 1)
        if self.ranges is Ranges.SCALE:
            asymmetric = not encoding.grid.symmetric
            # LSQ's own scale of the gradient: so many values share one scale.
            share = lsq_gradient_scale(max(values // channels, 1), encoding.grid)
            return LearnedScale(encoding, rank, learn_zero_point=asymmetric, gradient_scale=share)
        pact = self.ranges is Ranges.PACT
        quantizer = LearnedRange(encoding, rank, rounding_term=not pact)
        if pact:
            quantizer.minimum.requires_grad_(False)
        return quantizer

    def learned(self) -> Iterator[tuple[str, LearnedQuantizer]]:
        """Quantizers that have parameters of their own, by tensor name."""
        for key, quantizer in self.quantizers.items():
            if isinstance(quantizer, LearnedQuantizer):
                yield _name(key), quantizer

    # --- results --------------------------------------------------------------------------------

    def result(self, start: QuantizedModel) -> QuantizedModel:
        """`start` with the weights and encodings that training found."""
        return start.changed(constants=self.trained_weights(), encodings=self.trained_encodings())

    def trained_weights(self) -> dict[str, np.ndarray]:
        """The initializers as they are now, norms folded, float32."""
        found = {_name(key): self._weight(key) for key in self.weights}
        found |= {norm.kept.bias: norm.folded_bias() for norm in self._norms()}
        shapes = {name: self.model.graph.constant(name).shape for name in found}
        return {
            name: tensor.detach().cpu().numpy().copy().reshape(shapes[name])
            for name, tensor in found.items()
        }

    def trained_encodings(self) -> dict[str, Encoding]:
        """Encodings that training found: learned ones, and those of weights they followed."""
        found = {}
        for key, quantizer in self.quantizers.items():
            name = _name(key)
            if not isinstance(quantizer, LearnedQuantizer | FollowingScale):
                continue
            known = self.model.encodings[name]
            if isinstance(quantizer, LearnedQuantizer):
                known = quantizer.encoding()
            if isinstance(quantizer, FollowingScale) or self._norm(key) is not None:
                scale = self._weight_scale(key, quantizer).detach().cpu().numpy()
                known = replace(known, scale=scale.reshape(known.scale.shape).astype(np.float32))
            found[name] = known
        return found


def _then(first: Quantizer, second: Quantizer | None) -> Quantizer:
    return first if second is None else lambda x: second(first(x))


def _own_bias(norm: TrainedNorm, rounding: Quantizer | None, bias: Tensor) -> Tensor:
    """The bias of a layer whose norm is kept: none while that normalizes batch by batch."""
    if norm.per_batch:
        return torch.zeros_like(bias)
    folded = norm.folded_bias().view_as(bias)
    return folded if rounding is None else rounding(folded)


def trained_constants(graph: ModelGraph, plan: Plan) -> list[str]:
    """Initializers that training changes: weights, biases, and what normalization multiplies with
    and adds; not constants of the computation."""
    names = [row.name for row in plan.tensors.values() if row.role in (Role.WEIGHT, Role.BIAS)]
    for node in graph.nodes():
        slots: Sequence[int] = (1, 2) if node.op_type in _NORMS else ()
        slots = (1,) if node.op_type == "PRelu" else slots
        for slot in slots:
            value = node.inputs[slot] if slot < len(node.inputs) else None
            if value is not None and value.name in graph.initializers:
                names.append(value.name or "")
    return [
        name
        for name in dict.fromkeys(names)
        if name in graph.initializers and graph.constant(name).dtype == np.float32
    ]


def _values(shape: Iterable[object], skip: int) -> int:
    """Values of a tensor, the first `skip` axes apart, as far as the sizes are known."""
    known = [size for size in list(shape)[skip:] if isinstance(size, int)]
    return int(np.prod(known)) if known else 1


def _unscaled(grid: Grid | FloatGrid) -> bool:
    return isinstance(grid, FloatGrid) and grid.format in ("float16", "bfloat16")


def _key(name: str) -> str:
    """`name` as torch allows it for a parameter."""
    return name.replace(".", "|")


def _name(key: str) -> str:
    return key.replace("|", ".")
