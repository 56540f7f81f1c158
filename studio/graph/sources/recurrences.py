"""Keep LSTM and GRU layers whole while a module is traced, for sequences of any length.

torch.export asks for the shapes of `aten.lstm` and its kin by their Python decompositions, loops
over time (torch/_decomp/decompositions.py), and so takes the example's length for a constant, and
its time to walk through it. The shapes follow from the arguments alone. A plain RNN stays whole by
itself, but the exporter has no translation of it: `translations` has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def whole_recurrences() -> Iterator[None]:
    """While this lasts, tracing takes the shapes of recurrent layers from their arguments."""
    import torch
    from torch._C import DispatchKey
    from torch._decomp import decomposition_table

    keys = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)
    aten = torch.ops.aten
    ops = {
        aten.lstm.input: _lstm,
        aten.gru.input: _gru,
    }
    before: dict[Any, dict[Any, Any]] = {
        op: {key: op.py_kernels.get(key) for key in keys} for op in ops
    }
    table: dict[Any, Any] = {op: decomposition_table[op] for op in ops if op in decomposition_table}
    try:
        for op, shapes in ops.items():
            _use(op, dict.fromkeys(keys, shapes))
            decomposition_table[op] = shapes  # type: ignore[assignment]
        yield
    finally:
        for op, kernels in before.items():
            _use(op, kernels)
            decomposition_table.pop(op, None)
        decomposition_table.update(table)


def _use(op: Any, kernels: dict[Any, Any]) -> None:
    for key, kernel in kernels.items():
        if kernel is None:
            op.py_kernels.pop(key, None)
        else:
            op.py_kernels[key] = kernel
    op._dispatch_cache.clear()


def _output(sequence: Tensor, state: Tensor, bidirectional: bool) -> Tensor:
    """What the last layer returns for `sequence`, the features of both directions together."""
    features = state.shape[2] * (2 if bidirectional else 1)
    return sequence.new_empty((*sequence.shape[:2], features))


def _lstm(
    sequence: Tensor,
    states: tuple[Tensor, Tensor],
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`aten::lstm.input`: output, last hidden and last cell states."""
    import torch

    hidden, cell = states
    if hidden.shape[2] != cell.shape[2]:
        raise RuntimeError("an LSTM with proj_size has no counterpart in ONNX")
    output = _output(sequence, hidden, bidirectional)
    return output, torch.empty_like(hidden), torch.empty_like(cell)


def _gru(
    sequence: Tensor,
    hidden: Tensor,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    """`aten::gru.input`: output, last states."""
    import torch

    return _output(sequence, hidden, bidirectional), torch.empty_like(hidden)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ONNX for the recurrent layers that torch's exporter has no translation of."""
    import torch

    aten = torch.ops.aten
    return {aten.rnn_tanh.input: _translation("Tanh"), aten.rnn_relu.input: _translation("Relu")}


def _translation(activation: str) -> Callable[..., Any]:
    """Of a plain RNN with this activation: one ONNX RNN for each layer."""
    from onnxscript import opset18 as op

    def rnn(
        sequence: Any,
        hidden: Any,
        params: Any,
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Any, Any]:
        directions, size = (2 if bidirectional else 1), (4 if has_biases else 2)
        x, last = op.Transpose(sequence, perm=[1, 0, 2]) if batch_first else sequence, []
        for first in range(0, num_layers * directions, directions):
            groups = [params[(first + d) * size :][:size] for d in range(directions)]
            biases = [op.Concat(*group[2:], axis=0) for group in groups if has_biases]
            y, final = op.RNN(
                x,
                _stacked([group[0] for group in groups]),
                _stacked([group[1] for group in groups]),
                _stacked(biases) if has_biases else None,
                None,
                op.Slice(hidden, [first], [first + directions], [0]),
                direction="bidirectional" if bidirectional else "forward",
                hidden_size=hidden.shape[2],
                activations=[activation] * directions,
            )
            x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
            last.append(final)
        states = op.Concat(*last, axis=0)
        return op.Transpose(x, perm=[1, 0, 2]) if batch_first else x, states

    return rnn


def _stacked(tensors: list[Any]) -> Any:
    from onnxscript import opset18 as op

    return op.Concat(*(op.Unsqueeze(tensor, [0]) for tensor in tensors), axis=0)
