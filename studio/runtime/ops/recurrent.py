"""Recurrent layers, one step after the other where torch has no kernel for them.

Gate orders and equations as in the ONNX spec.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.runtime.ops.fused_recurrent import is_common, run_fused
from studio.runtime.ops.registry import Call, Result, op

Activation = Callable[[Tensor], Tensor]
_PLAIN: dict[str, Activation] = {
    "Relu": torch.relu,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "Softsign": F.softsign,
    "Softplus": F.softplus,
}
# The function of x, alpha and beta; the defaults of those it has.
_WITH_PARAMETERS: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "LeakyRelu": (lambda x, alpha: F.leaky_relu(x, alpha), (0.01,)),
    "ThresholdedRelu": (lambda x, alpha: F.threshold(x, alpha, 0.0), (1.0,)),
    "Elu": (lambda x, alpha: F.elu(x, alpha), (1.0,)),
    "Affine": (lambda x, alpha, beta: alpha * x + beta, (1.0, 0.0)),
    "ScaledTanh": (lambda x, alpha, beta: alpha * torch.tanh(beta * x), (1.0, 1.0)),
    "HardSigmoid": (lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1), (0.2, 0.5)),
}


def _with(function: Callable[..., Tensor], numbers: list[float]) -> Activation:
    return lambda x: function(x, *numbers)


def _activations(call: Call, names: list[str]) -> list[Activation]:
    """One function a name; `activation_alpha` and `_beta` go to those that have one, in order."""
    given = [iter(call.get(f"activation_{name}") or ()) for name in ("alpha", "beta")]
    chosen: list[Activation] = []
    for name in names:
        if name in _PLAIN:
            chosen.append(_PLAIN[name])
            continue
        if name not in _WITH_PARAMETERS:
            raise ValueError(f"no activation {name}")
        function, defaults = _WITH_PARAMETERS[name]
        numbers = [next(values, default) for values, default in zip(given, defaults, strict=False)]
        chosen.append(_with(function, numbers))
    return chosen


@dataclass(frozen=True)
class _Direction:
    """Weights of one direction: of the input [G H, I], the state [G H, H], both biases [G H]."""

    w: Tensor
    r: Tensor
    wb: Tensor
    rb: Tensor
    peephole: Tensor | None
    activations: list[Activation]


Cell = Callable[[Call, _Direction, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def _limited(call: Call, x: Tensor) -> Tensor:
    limit = call.get("clip")
    return x if limit is None else x.clamp(-limit, limit)


def _rnn_step(
    call: Call, d: _Direction, x: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    return (d.activations[0](_limited(call, x + F.linear(state[0], d.r, d.rb))),)


def _gru_step(
    call: Call, d: _Direction, x: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Gates in the order update, reset, hidden."""
    (h,) = state
    f, g = d.activations
    size = h.shape[-1]
    recurrent = F.linear(h, d.r[: 2 * size], d.rb[: 2 * size])
    z, r = f(_limited(call, x[:, : 2 * size] + recurrent)).chunk(2, -1)
    weight, bias = d.r[2 * size :], d.rb[2 * size :]
    if call.get("linear_before_reset", 0):
        candidate = r * F.linear(h, weight, bias)
    else:
        candidate = F.linear(r * h, weight, bias)
    candidate = g(_limited(call, x[:, 2 * size :] + candidate))
    return ((1 - z) * candidate + z * h,)


def _lstm_step(
    call: Call, d: _Direction, x: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Gates in the order input, output, forget, cell; peepholes input, output, forget."""
    h, c = state
    f, g, last = d.activations
    i, o, forget, cell = (x + F.linear(h, d.r, d.rb)).chunk(4, -1)
    p = torch.zeros(3 * c.shape[-1], dtype=c.dtype, device=c.device)
    peep_i, peep_o, peep_f = (p if d.peephole is None else d.peephole).chunk(3)
    i = f(_limited(call, i + peep_i * c))
    forget = 1 - i if call.get("input_forget", 0) else f(_limited(call, forget + peep_f * c))
    c = forget * c + i * g(_limited(call, cell))
    return f(_limited(call, o + peep_o * c)) * last(c), c


def _run(
    call: Call,
    cell: Cell,
    defaults: list[str],
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    start: list[Tensor | None],
    peephole: Tensor | None = None,
) -> Result:
    """x [T, N, I] (with `layout=1` [N, T, I]) -> all states [T, D, N, H] and the last of each."""
    batch_first = bool(call.get("layout", 0))
    if batch_first:
        x = x.transpose(0, 1)
        start = [None if s is None else s.transpose(0, 1) for s in start]
    if lengths is not None and bool((lengths == len(x)).all()):
        lengths = None
    if is_common(call, x, w.shape[0], (lengths, peephole)):
        return _laid_out(call, *run_fused(call, x, w, r, b, start))
    steps, batch, directions, size = x.shape[0], x.shape[1], w.shape[0], r.shape[-1]
    names = call.get("activations") or defaults * directions
    activations, count = _activations(call, names), len(defaults)
    valid = None
    if lengths is not None:
        at = torch.arange(steps, device=x.device).reshape(-1, 1, 1)
        valid = at < lengths.to(x.device).reshape(-1, 1)
    sequences, finals = [], []
    for index in range(directions):
        gates = w.shape[1]
        biases = x.new_zeros(2 * gates) if b is None else b[index]
        direction = _Direction(
            w=w[index],
            r=r[index],
            wb=biases[:gates],
            rb=biases[gates:],
            peephole=None if peephole is None else peephole[index],
            activations=activations[index * count : (index + 1) * count],
        )
        zero = x.new_zeros(batch, size)
        state = tuple(zero if s is None else s[index] for s in start)
        projected = F.linear(x, direction.w, direction.wb)
        backward = call.get("direction", "forward") == "reverse" or index == 1
        outputs: list[Tensor] = [zero] * steps
        for t in reversed(range(steps)) if backward else range(steps):
            stepped = cell(call, direction, projected[t], state)
            if valid is None:
                state, outputs[t] = stepped, stepped[0]
                continue
            pairs = zip(stepped, state, strict=True)
            state = tuple(torch.where(valid[t], new, old) for new, old in pairs)
            outputs[t] = torch.where(valid[t], stepped[0], zero)
        sequences.append(torch.stack(outputs))
        finals.append(state)
    y = torch.stack(sequences, 1)
    last = [torch.stack(parts) for parts in zip(*finals, strict=True)]
    return _laid_out(call, y, last)


def _laid_out(call: Call, y: Tensor, last: list[Tensor]) -> Result:
    """The outputs with the batch where `layout` puts it: behind the time, or in front."""
    if call.get("layout", 0):
        y, last = y.permute(2, 0, 1, 3), [s.transpose(0, 1) for s in last]
    return (y, *last)[: call.outputs]


@op("RNN", since=7, host=(4,), fresh=True)
def rnn(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> Result:
    return _run(call, _rnn_step, ["Tanh"], x, w, r, b, lengths, [h])


@op("GRU", since=7, host=(4,), fresh=True)
def gru(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> Result:
    return _run(call, _gru_step, ["Sigmoid", "Tanh"], x, w, r, b, lengths, [h])


@op("LSTM", since=7, host=(4,), fresh=True)
def lstm(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    peephole: Tensor | None = None,
) -> Result:
    defaults = ["Sigmoid", "Tanh", "Tanh"]
    return _run(call, _lstm_step, defaults, x, w, r, b, lengths, [h, c], peephole)
