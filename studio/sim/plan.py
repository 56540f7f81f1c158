"""What placement decides: one row per tensor, one per layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from studio.errors import ConfigError
from studio.quant.grid import FloatGrid, Grid
from studio.sim.config import LayerSettings

FROM_FILE = "file"
"""Observer of a tensor whose encoding the model's file gives: nothing is observed."""

DYNAMIC = "dynamic"
"""Observer of a tensor that is ranged at every inference: it has no encoding of its own."""


class Role(StrEnum):
    """What a tensor is in the network."""

    INPUT = "input"
    ACTIVATION = "activation"
    WEIGHT = "weight"
    BIAS = "bias"
    CONSTANT = "constant"


@dataclass(frozen=True)
class QuantSpec:
    """How a tensor is quantized: grid, channel axis (None: per tensor), and where ranges come from.

    `block_size` values along `axis` share an encoding (None: all along the other axes do), with
    `lpbq` by integer multiples of one scale for each channel. `percentile` belongs to the observer
    of that name. `fixed_range` replaces the observer where the op bounds its output (Sigmoid: 0 to
    1). `storage_bits` is the size of the integers in a file that came quantized (None: the exporter
    chooses).
    """

    grid: Grid | FloatGrid
    axis: int | None
    observer: str
    block_size: int | None = None
    lpbq: bool = False
    percentile: float = 99.99
    fixed_range: tuple[float, float] | None = None
    storage_bits: int | None = None


@dataclass(frozen=True)
class TensorPlan:
    """One tensor's row: quantized how, or why not.

    `spec` is None for a tensor that stays as it is; `reason` then says why, and otherwise which
    rule or setting decided. `tied_to` names the tensor whose encoding this one uses. `bias_of`
    names the (input, weight) whose scales multiply to a bias's scale. `read_by` names the nodes
    that read the rounded tensor; all others, and a model output, get it as it is (None: all get it
    rounded).
    """

    name: str
    role: Role
    layer: str
    spec: QuantSpec | None
    reason: str
    tied_to: str | None = None
    bias_of: tuple[str, str] | None = None
    read_by: frozenset[str] | None = None

    @property
    def dynamic(self) -> bool:
        """True if the tensor is ranged anew at every inference."""
        return self.spec is not None and self.spec.observer == DYNAMIC

    @property
    def from_file(self) -> bool:
        """True if the model's file says how this tensor is quantized."""
        return self.spec is not None and self.spec.observer == FROM_FILE

    @property
    def observed(self) -> bool:
        """True if calibration has to range this tensor on data."""
        return (
            self.spec is not None
            and not self.from_file
            and not self.dynamic
            and self.tied_to is None
            and self.spec.fixed_range is None
            and self.role in (Role.INPUT, Role.ACTIVATION)
        )


@dataclass(frozen=True)
class Layer:
    """Nodes that run as one on the target: the row a user sees and edits.

    name: stable and unique. ops: op types in order, `("Conv", "Clip")`; `("Input",)` for a graph
    input. nodes: their names. inputs: the activation tensors read. weights: quantizable constants
    read (weight first). bias: the bias tensor or None. outputs: the tensors the layer produces.
    kind: what people call operators that were recognised as one layer (LayerNorm), else "". block:
    kind and name of the recognised block the layer belongs to (an attention), else None.
    settings: resolved, every field filled in that applies. origins: where each setting comes from,
    as pairs of key and words. changed: keys the user has set for this very layer. editable_act:
    False where the output follows another tensor (`follows` names it) or is not quantized at all
    (`note` says why).
    """

    name: str
    ops: tuple[str, ...]
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    bias: str | None
    outputs: tuple[str, ...]
    settings: LayerSettings
    changed: frozenset[str] = frozenset()
    follows: str | None = None
    note: str = ""
    kind: str = ""
    block: tuple[str, str] | None = None
    origins: tuple[tuple[str, str], ...] = ()

    def origin(self, key: str) -> str:
        """Where the value of the setting `key` comes from, for people; "" for an unknown key."""
        return dict(self.origins).get(key, "")

    def described(self) -> tuple[tuple[str, object, str], ...]:
        """(setting, value, where it comes from) of all settings that mean something here."""
        return tuple((key, value, self.origin(key)) for key, value in self.settings.given().items())

    @property
    def title(self) -> str:
        """What the layer is, as shown to the user: `Conv + Clip`, `LayerNorm`, `Linear + Relu`."""
        return self.kind or " + ".join(self.ops)

    @property
    def output(self) -> str:
        """The tensor whose encoding is shown for the layer."""
        return self.outputs[0]

    @property
    def editable_act(self) -> bool:
        return self.settings.act_bits is not None

    @property
    def editable_weight(self) -> bool:
        return self.settings.weight_bits is not None


@dataclass(frozen=True)
class Plan:
    """The result of placement for one graph and one configuration.

    layers: in execution order. tensors: every tensor of the graph by name (model inputs, node
    outputs, constants). warnings: settings that matched nothing, or that cost speed. impossible:
    what the target cannot do at all, with what it can; such a plan can be looked at and simulated,
    not exported (`require_possible`).
    """

    target: str
    layers: tuple[Layer, ...]
    tensors: Mapping[str, TensorPlan]
    warnings: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()

    @property
    def observed(self) -> tuple[str, ...]:
        """Tensors whose ranges calibration collects, in graph order."""
        return tuple(name for name, tensor in self.tensors.items() if tensor.observed)

    @property
    def quantized(self) -> tuple[str, ...]:
        """Tensors that have an encoding once calibrated, in graph order."""
        return tuple(
            name
            for name, tensor in self.tensors.items()
            if tensor.spec is not None and not tensor.dynamic
        )

    def layer(self, name: str) -> Layer:
        """The layer `name`; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)


def require_possible(plan: Plan) -> None:
    """Raise ConfigError naming all settings that the plan's target cannot do, if there are any."""
    if plan.impossible:
        raise ConfigError(
            f"The target {plan.target} cannot do these settings:\n  "
            + "\n  ".join(plan.impossible),
            "Change them, or choose the target custom to try numbers that no hardware has.",
        )
