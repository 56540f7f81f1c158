"""AIMET's quantsim configuration: JSON of six sections, read as a target and written from one.

(aimet_torch 2.42, `common/quantsim_config/quantsim_config_schema.py`.) Switches are the words
"True" and "False". Later sections overrule earlier ones: defaults, params, op_type, supergroups,
model_input, model_output. What AIMET does in code, whatever the file says, is part of every target
read here: ops that move data keep their encoding, Concat and Relu tie theirs, BatchNormalization's
statistics stay float. A bias is int32 at input scale times weight scale or float, so the symmetry
of a bias means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from studio.errors import ConfigError
from studio.sim.aimet_schema import (
    Config,
    Constraints,
    Defaults,
    KernelPair,
    ModelInput,
    ModelOutput,
    NumberKind,
    OpDefaults,
    OpType,
    Param,
    Supergroup,
    switch,
)
from studio.sim.config import LayerSettings
from studio.sim.target import Target
from studio.sim.target_rules import (
    ActivationRule,
    ExportRule,
    FollowOps,
    Kernel,
    Numbers,
    QuantizedInputs,
    WeightRule,
)

_SECTIONS = frozenset(
    ["defaults", "params", "op_type", "supergroups", "model_input", "model_output"]
)
_PASSES = {"MatmulAdd": "Linear", "LayerNormalization": "LayerNorm", "RMSNormalization": "RMSNorm"}
"""Passes that make one layer of several operators, and the kind of layer."""

_STATISTICS = ("running_mean", "running_var")
_OFF = "its output is not quantized by the AIMET configuration"
_BIAS_OFF = "its bias is not quantized by the AIMET configuration"

_WEIGHT_OPS = frozenset(
    [
        *("BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gather", "Gemm", "GRU"),
        *("GroupNormalization", "InstanceNormalization", "LayerNormalization", "LSTM", "MatMul"),
        *("PRelu", "RMSNormalization", "RNN"),
    ]
)
_MOVES = frozenset(
    [
        *("Compress", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements"),
        *("GatherND", "Identity", "MaxPool", "Pad", "ReduceMax", "ReduceMin", "Reshape", "Slice"),
        *("SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze"),
    ]
)
_TIED = frozenset(["Concat", "ScatterElements", "ScatterND"])


def is_aimet_config(values: Any) -> bool:
    """True if JSON values have the sections of AIMET's configuration rather than a rule file's."""
    return isinstance(values, dict) and "defaults" in values and bool(_SECTIONS & values.keys())


def target_from_aimet(values: Any, name: str, source: str) -> Target:
    """The target that AIMET's configuration `values` (JSON) describes, called `name`.

    Raises ConfigError naming `source` and the key for unknown keys, missing sections, and what
    cannot be told apart here (an op whose inputs alone are quantized beside quantized outputs).
    """
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise _refused(error, source) from None
    return _Reader(config, name, source).target()


def _refused(error: ValidationError, source: str) -> ConfigError:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return ConfigError(
            f"The AIMET configuration {source} has an unknown key {where!r}.",
            "Remove it, or compare its spelling with AIMET's schema.",
        )
    return ConfigError(
        f"The AIMET configuration {source} is not valid at {where}: {first['msg']}.",
        'Give all six sections; switches are "True" or "False".',
    )


class _Reader:
    def __init__(self, config: Config, name: str, source: str) -> None:
        self.config = config
        self.name = name
        self.source = source
        self.outputs = bool(config.defaults.ops.is_output_quantized)
        self.ops: dict[str, dict[str, Any]] = {}
        self.inputs: dict[str, tuple[int, ...]] = {}

    def target(self) -> Target:
        config, defaults = self.config, self.config.defaults
        weight = _over(defaults.params, config.params.get("weight"))
        bias = _over(defaults.params, config.params.get("bias"))
        self._check_parameters(config.params, "params")
        for op, rule in config.op_type.items():
            self._read_op(op, rule)
        per_channel = self._per_channel()
        symmetric, strict = bool(defaults.ops.is_symmetric), bool(defaults.strict_symmetric)
        kernels = {
            op: _kernels(rule.supported_kernels)
            for op, rule in config.op_type.items()
            if rule.supported_kernels
        }
        return Target(
            version=1,
            name=self.name,
            title=f"AIMET configuration {self.name}",
            description="Read from AIMET's quantsim configuration.",
            weights=WeightRule(
                bits=8,
                signed=weight.is_symmetric is not False,
                symmetric=bool(weight.is_symmetric),
                per_channel=bool(per_channel),
                observer="minmax",
                strict=strict,
                enabled=bool(weight.is_quantized),
            ),
            activations=ActivationRule(
                bits=8,
                signed=symmetric,
                symmetric=symmetric,
                observer="minmax",
                strict=strict,
                unsigned_symmetric=bool(defaults.unsigned_symmetric),
                enabled=self.outputs or bool(self.inputs),
            ),
            bias="int32" if bias.is_quantized else "float",
            ops={op: LayerSettings(**given) for op, given in self.ops.items()},
            weight_ops=_WEIGHT_OPS,
            per_channel_ops=per_channel,
            block_ops=frozenset(["Conv", "Gemm", "MatMul"]),
            float_bias_ops=dict.fromkeys(self._biases(on=False), _BIAS_OFF),
            quantized_bias_ops=frozenset(self._biases(on=True)),
            fusions=tuple(group.op_list for group in config.supergroups),
            separate_kinds=self._separate(),
            follow_ops=FollowOps(
                exact=_MOVES,
                within_range=frozenset(["Resize", "Upsample"] if defaults.hw_version else []),
            ),
            tied_inputs=_TIED,
            backward_ops=frozenset(["Relu"]),
            float_ops={
                op: _OFF
                for op, rule in config.op_type.items()
                if rule.is_output_quantized is False and self.outputs
            },
            fixed_ranges={
                op: (rule.encoding_constraints.min, rule.encoding_constraints.max)
                for op, rule in config.op_type.items()
                if rule.encoding_constraints is not None
            },
            model_inputs=bool(config.model_input.is_input_quantized) or bool(self.inputs),
            model_outputs=config.model_output.is_output_quantized is not False,
            quantized_inputs=QuantizedInputs(ops=self.inputs) if self.inputs else None,
            numbers=Numbers(
                block_sizes=None,
                lpbq=True,
                kernels=_kernels(defaults.supported_kernels or ()),
                op_kernels=kernels,
            ),
            hardware=defaults.hw_version or "",
            export=ExportRule(format="encodings", weight_storage_bits=4),
        )

    def _read_op(self, op: str, rule: OpType) -> None:
        given: dict[str, Any] = {}
        if rule.is_symmetric is not None:
            given["act_symmetric"] = rule.is_symmetric
        elif rule.encoding_constraints is not None and _is_even(rule.encoding_constraints):
            given["act_symmetric"] = True
        if rule.is_output_quantized and not self.outputs:
            given["act_enabled"] = True
        if rule.is_input_quantized:
            if self.outputs:
                raise ConfigError(
                    f"The AIMET configuration {self.source} quantizes the inputs of {op} "
                    f"(op_type.{op}.is_input_quantized) and all outputs.",
                    "Remove the key: what the op reads is quantized where it is made.",
                )
            self.inputs[op] = (0, 1, 2)
        weight = (rule.params or {}).get("weight")
        if weight is not None and weight.is_quantized is not None:
            given["weight_enabled"] = weight.is_quantized
        if weight is not None and weight.is_symmetric is not None:
            given["weight_symmetric"] = weight.is_symmetric
        if given:
            self.ops[op] = given
        self._check_parameters(rule.params or {}, f"op_type.{op}.params")

    def _check_parameters(self, params: Mapping[str, Param], where: str) -> None:
        for param, rule in params.items():
            known = param in ("weight", "bias")
            if not known and (param not in _STATISTICS or rule.is_quantized):
                raise ConfigError(
                    f"The AIMET configuration {self.source} has a parameter that cannot be set: "
                    f"{where}.{param}.",
                    f"Parameters: weight, bias; {' and '.join(_STATISTICS)} can be off alone.",
                )

    def _biases(self, *, on: bool) -> list[str]:
        found = []
        for op, rule in self.config.op_type.items():
            bias = (rule.params or {}).get("bias")
            if bias is not None and bias.is_quantized is on:
                found.append(op)
        return found

    def _per_channel(self) -> frozenset[str]:
        every = self.config.defaults.per_channel_quantization
        own = {op: rule.per_channel_quantization for op, rule in self.config.op_type.items()}
        listed = {op for op, on in own.items() if on}
        if every:
            listed |= {op for op in _WEIGHT_OPS if own.get(op) is not False}
        return frozenset(listed)

    def _separate(self) -> frozenset[str]:
        passes = self.config.supergroup_pass_list or ()
        for word in passes:
            if word not in _PASSES:
                raise ConfigError(
                    f"The AIMET configuration {self.source} has an unknown pass {word!r} in "
                    "supergroup_pass_list.",
                    f"Passes: {', '.join(_PASSES)}.",
                )
        return frozenset(kind for word, kind in _PASSES.items() if word not in passes)


def aimet_config(target: Target) -> dict[str, Any]:
    """AIMET's configuration (JSON values) of a target.

    Raises ConfigError for rules that AIMET's file has no words for: bits, formats, blocks, dynamic
    ranges, Q/DQ at chosen inputs. What AIMET does in code (data movement, ties, rules of a chip)
    and what belongs to the export is not written.
    """
    _require_expressible(target)
    on = target.activations.enabled and target.quantized_inputs is None
    per_channel = target.per_channel_ops if target.weights.per_channel else frozenset()
    defaults = Defaults(
        ops=OpDefaults(is_output_quantized=on, is_symmetric=target.activations.symmetric),
        params=Param(is_quantized=target.weights.enabled, is_symmetric=target.weights.symmetric),
        strict_symmetric=target.weights.strict,
        unsigned_symmetric=target.activations.unsigned_symmetric,
        per_channel_quantization=False,
        supported_kernels=_aimet_kernels(target.numbers.kernels) or None,
        hw_version=target.hardware or None,
    )
    passes = [word for word, kind in _PASSES.items() if kind not in target.separate_kinds]
    config = Config(
        defaults=defaults,
        params={"bias": Param(is_quantized=target.bias == "int32")},
        op_type={
            op: _op_type(target, op, per_channel) for op in sorted(_named(target, per_channel))
        },
        supergroups=tuple(Supergroup(op_list=ops) for ops in target.fusions),
        supergroup_pass_list=tuple(passes) or None,
        model_input=ModelInput(is_input_quantized=True if target.model_inputs else None),
        model_output=ModelOutput(is_output_quantized=None if target.model_outputs else False),
    )
    return config.model_dump(mode="json", exclude_none=True)


_EXPRESSIBLE = frozenset(["act_symmetric", "act_enabled", "weight_symmetric", "weight_enabled"])


def _require_expressible(target: Target) -> None:
    weights, activations = target.weights, target.activations
    rules = {key for settings in target.ops.values() for key in settings.given()}
    inputs = target.quantized_inputs
    problems = {
        "default bits other than 8": (weights.bits, activations.bits) != (8, 8),
        "floating-point formats": (weights.format, activations.format) != ("int", "int"),
        "power-of-two scales": weights.power_of_two or activations.power_of_two,
        "strict weights without strict activations": weights.strict != activations.strict,
        "blocks of weights": bool(weights.block_size),
        "ranges at inference": activations.dynamic,
        "Q/DQ at chosen inputs": inputs is not None
        and (inputs.residual_add or inputs.weighted_only),
        f"rules for ops on {', '.join(sorted(rules - _EXPRESSIBLE))}": bool(rules - _EXPRESSIBLE),
    }
    found = [what for what, there in problems.items() if there]
    if found:
        raise ConfigError(
            f"The target {target.name} has rules that AIMET's configuration cannot say: "
            f"{'; '.join(found)}.",
            "Keep it as a rule file, or remove these rules.",
        )


def _named(target: Target, per_channel: frozenset[str]) -> set[str]:
    """Ops that the configuration says something of."""
    inputs = target.quantized_inputs.ops if target.quantized_inputs is not None else {}
    statistics = {"BatchNormalization"} & target.weight_ops
    return {
        *target.ops, *per_channel, *target.float_ops, *target.fixed_ranges, *inputs, *statistics,
        *target.float_bias_ops, *target.quantized_bias_ops, *target.numbers.op_kernels,
    }  # fmt: skip


def _op_type(target: Target, op: str, per_channel: frozenset[str]) -> OpType:
    settings = target.ops.get(op, LayerSettings())
    params: dict[str, Param] = {}
    if settings.weight_enabled is not None or settings.weight_symmetric is not None:
        params["weight"] = Param(
            is_quantized=settings.weight_enabled, is_symmetric=settings.weight_symmetric
        )
    if op in target.quantized_bias_ops or op in target.float_bias_ops:
        params["bias"] = Param(is_quantized=op in target.quantized_bias_ops)
    if op == "BatchNormalization":
        params |= dict.fromkeys(_STATISTICS, Param(is_quantized=False))
    low, high = target.fixed_ranges.get(op, (None, None))
    inputs = target.quantized_inputs.ops if target.quantized_inputs is not None else {}
    return OpType(
        is_input_quantized=True if op in inputs else None,
        is_output_quantized=False if op in target.float_ops else settings.act_enabled,
        is_symmetric=settings.act_symmetric,
        params=params or None,
        supported_kernels=_aimet_kernels(target.numbers.op_kernels.get(op, ())) or None,
        per_channel_quantization=True if op in per_channel else None,
        encoding_constraints=Constraints(min=low, max=high) if op in target.fixed_ranges else None,
    )


def _over(below: Param, above: Param | None) -> Param:
    given = {} if above is None else above.model_dump(exclude_none=True)
    return below.model_copy(update={key: switch(value) for key, value in given.items()})


def _is_even(range_: Constraints) -> bool:
    return range_.min is not None and range_.max is not None and range_.min == -range_.max


def _kernels(kernels: tuple[KernelPair, ...]) -> tuple[Kernel, ...]:
    return tuple(
        Kernel(
            activations=f"{kernel.activation.dtype}{kernel.activation.bitwidth}",
            weights=f"{kernel.param.dtype}{kernel.param.bitwidth}",
        )
        for kernel in kernels
    )


def _aimet_kernels(kernels: tuple[Kernel, ...]) -> tuple[KernelPair, ...]:
    return tuple(
        KernelPair(activation=_aimet_number(k.activations), param=_aimet_number(k.weights))
        for k in kernels
    )


def _aimet_number(number: str) -> NumberKind:
    dtype = "int" if number.startswith("int") else "float"
    return NumberKind.model_validate({"bitwidth": int(number.removeprefix(dtype)), "dtype": dtype})
