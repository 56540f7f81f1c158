"""LSTM, GRU and RNN in every form, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from one_op import assert_equal_to_onnxruntime, one_op

import studio.runtime.ops.recurrent as recurrent
from studio.runtime.ops.registry import Call, find

RANDOM = np.random.default_rng(2)
STEPS, BATCH, SIZE, HIDDEN = 7, 3, 5, 4
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
HARD = {"activation_alpha": [0.25], "activation_beta": [0.4]}
FORMS: list[dict[str, Any]] = [
    {},
    {"direction": "reverse"},
    {"direction": "bidirectional"},
    {"linear_before_reset": 1},
    {"linear_before_reset": 1, "direction": "bidirectional"},
    {"activations": ["Relu"]},
    {
        "activations": ["HardSigmoid", "Tanh", "Tanh"],
        "activation_alpha": [0.25],
        "activation_beta": [0.4],
    },
    {
        "activations": ["HardSigmoid", "ScaledTanh"],
        "activation_alpha": [0.25, 0.9],
        "activation_beta": [0.4, 1.1],
    },
    {"clip": 0.3},
    {"input_forget": 1},
]
NAMES = {"RNN": 1, "GRU": 2, "LSTM": 3}
CASES = [
    (op, form)
    for op in GATES
    for form in FORMS
    if ("linear_before_reset" not in form or op == "GRU")
    and ("input_forget" not in form or op == "LSTM")
    and len(form.get("activations", "x" * NAMES[op])) == NAMES[op]
]


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def inputs_of(op: str, form: dict[str, Any]) -> list[np.ndarray | None]:
    d, g = (2 if form.get("direction") == "bidirectional" else 1), GATES[op] * HIDDEN
    return [normal(STEPS, BATCH, SIZE), normal(d, g, SIZE), normal(d, g, HIDDEN), normal(d, 2 * g)]


@pytest.mark.parametrize("rest", ["plain", "lengths", "full lengths", "states"])
@pytest.mark.parametrize(("op", "form"), CASES, ids=[f"{op}-{form}" for op, form in CASES])
def test_equal_to_onnxruntime(op: str, form: dict[str, Any], rest: str) -> None:
    inputs = inputs_of(op, form)
    lengths = None
    if rest == "lengths":
        lengths = np.array([7, 2, 5], np.int32)
    elif rest == "full lengths":
        lengths = np.full(BATCH, STEPS, np.int32)
    states = [normal(len(inputs[1]), BATCH, HIDDEN) for _ in range(2 if op == "LSTM" else 1)]
    inputs += [lengths, *(states if rest == "states" else [None] * len(states))]
    while inputs[-1] is None:
        inputs.pop()
    model = one_op(op, inputs, form | {"hidden_size": HIDDEN}, [True] * (len(states) + 1))
    assert_equal_to_onnxruntime(model, inputs, rtol=1e-4, atol=1e-5)


def test_peepholes_equal_onnxruntime() -> None:
    inputs = [*inputs_of("LSTM", {}), None, None, None, normal(1, 3 * HIDDEN)]
    model = one_op("LSTM", inputs, {"hidden_size": HIDDEN}, [True] * 3)
    assert_equal_to_onnxruntime(model, inputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("op", list(GATES))
def test_kernels_and_steps_agree(op: str, layout: int, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = {"direction": "bidirectional", "linear_before_reset": 1, "layout": layout}
    call = Call(op, 14, attributes, outputs=3 if op == "LSTM" else 2)
    x, *weights = (torch.from_numpy(x).double() for x in inputs_of(op, attributes))
    function = find("", op).function
    fused = function(call, x, *weights)
    monkeypatch.setattr(recurrent, "is_common", lambda *arguments: False)
    for ours, wanted in zip(fused, function(call, x, *weights), strict=True):
        torch.testing.assert_close(ours, wanted)
