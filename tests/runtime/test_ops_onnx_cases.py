"""Every op against ONNX's own node tests.

`not_covered.txt` lists the cases that do not pass, under the reason why. A case that is listed and
passes fails the test as much as one that fails and is not listed.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import operators_table
from conformance import NOT_APPLICABLE, NOT_COVERED, cases, listed, outcomes, value_of
from torch import Tensor

from studio.runtime.ops import Call, find, supported_ops

OPERATORS = Path(__file__).parents[2] / "resources" / "docs" / "operators.md"


def test_every_case_passes_or_is_listed() -> None:
    failed = {outcome.name: outcome.failure for outcome in outcomes() if outcome.failure}
    surprises = {name: why for name, why in failed.items() if name not in listed()}
    assert not surprises, "\n".join(f"{name}: {why}" for name, why in surprises.items())
    # Random values may come out as the reference's.
    reasons = {name: why for name, why in listed().items() if not why.startswith(NOT_APPLICABLE)}
    now_passing = sorted(set(reasons) - set(failed))
    assert not now_passing, f"listed in {NOT_COVERED.name} but passing: {now_passing}"
    missing = sorted(set(listed()) - {outcome.name for outcome in outcomes()})
    assert not missing, f"listed in {NOT_COVERED.name} but no case: {missing}"


def test_at_least_97_of_100_applicable_cases_pass() -> None:
    applicable = [x for x in outcomes() if not listed().get(x.name, "").startswith(NOT_APPLICABLE)]
    passed = sum(not outcome.failure for outcome in applicable)
    assert len(applicable) > 1800 and passed >= 0.97 * len(applicable)


def test_random_values_have_the_type_and_the_shape_of_the_reference() -> None:
    random = {name for name, why in listed().items() if "random" in why}
    failures = [x.failure for x in outcomes() if x.name in random and x.failure]
    assert random and all("Not equal to tolerance" in failure for failure in failures)


def test_half_precision_attention_is_nearer_to_float64_than_the_reference() -> None:
    half = {name for name, why in listed().items() if why.startswith("half precision")}
    compared = 0
    for case in cases():
        (node, *others) = case.model.graph.node
        if case.name not in half or others:
            continue
        given = iter(value_of(x) for x in case.data_sets[0][0])
        inputs = [next(given) if name else None for name in node.input]
        attributes = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
        call = Call("Attention", 24, attributes)
        exact, ours = (
            find("", "Attention").function(call, *x)[0] for x in (doubled(inputs), inputs)
        )
        reference = value_of(case.data_sets[0][1][0])
        assert (ours - exact).abs().mean() < (reference - exact).abs().mean()
        compared += 1
    assert compared == 6


def doubled(inputs: list[Tensor | None]) -> list[Tensor | None]:
    return [x.double() if x is not None and x.is_floating_point() else x for x in inputs]


def test_every_op_is_tested() -> None:
    untested = [op for op in supported_ops() if not operators_table.tested_by(*op)]
    assert not untested


def test_the_table_in_the_docs_is_up_to_date() -> None:
    hint = "run: python tests/runtime/operators_table.py > resources/docs/operators.md"
    assert OPERATORS.read_text(encoding="utf-8") == operators_table.document(), hint
