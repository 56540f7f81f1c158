"""If, Loop, Scan and SequenceMap: ops that run subgraphs of their node.

A subgraph comes as an attribute with `run(inputs, captured)`, compiled once; the values it reads
from outside follow the node's own inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studio.runtime.ops.dtypes import TORCH_DTYPES
from studio.runtime.ops.registry import Call, op

Values = tuple[Any, ...]


@op("If", host=(0,))
def if_(call: Call, condition: Tensor, *captured: Any) -> Values:
    branch = call.get("then_branch" if condition.item() else "else_branch")
    return tuple(branch.run((), captured))


@op("Loop", host=(0, 1))
def loop(call: Call, trips: Tensor | None, condition: Tensor | None, *rest: Any) -> Values:
    """States go from one iteration to the next; the other outputs are stacked, one row each."""
    body = call.get("body")
    count = len(body.inputs) - 2
    states, captured = list(rest[:count]), rest[count:]
    goes_on = torch.tensor(True) if condition is None else condition
    stacks: list[list[Tensor]] = [[] for _ in body.outputs[1 + count :]]
    limit = None if trips is None else int(trips.item())
    index = 0
    while (limit is None or index < limit) and goes_on.item():
        goes_on, *results = body.run((torch.tensor(index), goes_on.cpu(), *states), captured)
        states = results[:count]
        for stack, row in zip(stacks, results[count:], strict=True):
            stack.append(row)
        index += 1
    return (*states, *(_stacked(stack, 0, body, 1 + count + i) for i, stack in enumerate(stacks)))


@op("Scan", since=8)
def scan(call: Call, *operands: Any) -> Values:
    """States go from one step to the next over slices of the scanned inputs (Scan-8: batched)."""
    if call.opset < 9:
        return _batched_scan(call, *operands)
    body, scanned = call.get("body"), call.get("num_scan_inputs")
    count = len(body.inputs) - scanned
    states, sequences = list(operands[:count]), operands[count : len(body.inputs)]
    captured = operands[len(body.inputs) :]
    outputs = len(body.outputs) - count
    axes = call.get("scan_input_axes") or [0] * scanned
    backward = call.get("scan_input_directions") or [0] * scanned
    out_axes = call.get("scan_output_axes") or [0] * outputs
    out_backward = call.get("scan_output_directions") or [0] * outputs
    steps = sequences[0].shape[axes[0]]
    stacks: list[list[Tensor]] = [[] for _ in range(outputs)]
    for step in range(steps):
        slices = [
            sequence.select(axis, steps - 1 - step if back else step)
            for sequence, axis, back in zip(sequences, axes, backward, strict=True)
        ]
        results = body.run((*states, *slices), captured)
        states = results[:count]
        for stack, row in zip(stacks, results[count:], strict=True):
            stack.append(row)
    rows = (
        _stacked(stack[::-1] if back else stack, axis, body, count + i)
        for i, (stack, axis, back) in enumerate(zip(stacks, out_axes, out_backward, strict=True))
    )
    return (*states, *rows)


def _batched_scan(call: Call, lengths: Tensor | None, *operands: Any) -> Values:
    """Scan-8: axis 0 of every operand is the batch, axis 1 of the scanned ones the sequence.

    Rows past a sample's length are zeros.
    """
    body, scanned = call.get("body"), call.get("num_scan_inputs")
    total = len(body.inputs)
    count, captured = total - scanned, operands[total:]
    backward = call.get("directions") or [0] * scanned
    steps = operands[count].shape[1]
    samples = []
    for sample in range(operands[count].shape[0]):
        length = steps if lengths is None else int(lengths[sample])
        slices = [x[sample, :length] for x in operands[count:total]]
        one = Call(
            "Scan", 9, {"body": body, "num_scan_inputs": scanned, "scan_input_directions": backward}
        )
        results = scan(one, *(x[sample] for x in operands[:count]), *slices, *captured)
        rows = [_padded(row, steps) for row in results[count:]]
        samples.append((*results[:count], *rows))
    return tuple(torch.stack(column) for column in zip(*samples, strict=True))


@op("SequenceMap", since=17)
def sequence_map(call: Call, first: list[Any], *rest: Any) -> Values:
    """The body for each element of the first sequence, with the same element of the others."""
    body = call.get("body")
    others, captured = rest[: len(body.inputs) - 1], rest[len(body.inputs) - 1 :]
    columns: list[list[Any]] = [[] for _ in body.outputs]
    for position, element in enumerate(first):
        row = [x[position] if isinstance(x, list) else x for x in others]
        for column, value in zip(columns, body.run((element, *row), captured), strict=True):
            column.append(value)
    return tuple(columns)


def _stacked(rows: list[Tensor], axis: int, body: Any, output: int) -> Tensor:
    """`rows` along a new axis; of none, the type and the known sizes that the body states."""
    if rows:
        rank = rows[0].dim() + 1
        return torch.stack(rows, axis % rank)
    dtype, shape = body.outputs[output]
    sizes = [size if isinstance(size, int) else 0 for size in shape or ()]
    sizes.insert(axis % (len(sizes) + 1), 0)
    return torch.empty(sizes, dtype=TORCH_DTYPES.get(dtype, torch.float32), device=body.device)


def _padded(rows: Tensor, steps: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(steps - len(rows), *rows.shape[1:])])
