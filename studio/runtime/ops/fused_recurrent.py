"""Recurrent layers of the common kind by torch's own kernels, which run all steps at once."""

from __future__ import annotations

import torch
from torch import Tensor

from studio.runtime.ops.registry import Call

_ACTIVATIONS = {
    "RNN": (["Tanh"], ["Relu"]),
    "GRU": (["Sigmoid", "Tanh"],),
    "LSTM": (["Sigmoid", "Tanh", "Tanh"],),
}
# torch's order of the gates, as positions in ONNX's.
_GATES = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
_WIDE = (torch.float32, torch.float64)


def is_common(call: Call, x: Tensor, directions: int, special: tuple[Tensor | None, ...]) -> bool:
    """True if torch's kernel computes this layer; `special` are the inputs it has no place for."""
    kinds = _ACTIVATIONS[call.op_type]
    chosen = call.get("activations") or kinds[0] * directions
    activated = any(chosen == kind * directions for kind in kinds)
    # torch's GRU resets after the product with the state.
    reset = call.op_type != "GRU" or bool(call.get("linear_before_reset", 0))
    plain = call.get("clip") is None and not call.get("input_forget", 0)
    given = any(tensor is not None for tensor in special)
    return activated and reset and plain and not given and x.dtype in _WIDE and x.numel() > 0


def run_fused(
    call: Call, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, start: list[Tensor | None]
) -> tuple[Tensor, list[Tensor]]:
    """x [T, N, I], states [D, N, H] -> all states [T, D, N, H] and the last of each."""
    directions, size = w.shape[0], r.shape[-1]
    reverse = call.get("direction", "forward") == "reverse"
    parameters = []
    for index in range(directions):
        parameters += [_reordered(call, w[index]), _reordered(call, r[index])]
        if b is not None:
            parameters += [_reordered(call, half) for half in b[index].chunk(2)]
    zero = x.new_zeros(directions, x.shape[1], size)
    states = tuple(zero if s is None else s for s in start)
    options = (b is not None, 1, 0.0, False, directions == 2, False)
    sequence = x.flip(0) if reverse else x
    if call.op_type == "LSTM":
        y, *last = torch.lstm(sequence, states, parameters, *options)
    elif call.op_type == "GRU":
        y, *last = torch.gru(sequence, states[0], parameters, *options)
    else:
        relu = (call.get("activations") or ["Tanh"])[0] == "Relu"
        run = torch.rnn_relu if relu else torch.rnn_tanh
        y, *last = run(sequence, states[0], parameters, *options)
    y = y.flip(0) if reverse else y
    return y.unflatten(-1, (directions, size)).transpose(1, 2), list(last)


def _reordered(call: Call, gates: Tensor) -> Tensor:
    order = _GATES[call.op_type]
    parts = gates.chunk(len(order))
    return torch.cat([parts[i] for i in order])
