"""The table of operators for the docs.

python tests/runtime/operators_table.py > resources/docs/operators.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import onnx
import test_ops_fused
import test_ops_old_versions
import test_ops_quantized_layers
import test_ops_recurrent
import test_ops_standard
from conformance import NOT_APPLICABLE, listed, outcomes

from studio.runtime.ops import find, supported_ops
from studio.runtime.ops.registry import MAX_OPSET

INTRODUCTION = """\
# Operators

What the torch engine computes, in any opset given here. A model with another operator is refused
with the names of the layers concerned. ONNX's node tests (of onnx {version}) compare with the
values of ONNX's reference; the other tests with onnxruntime, or with PyTorch or a closed form where
onnxruntime does not have the operator on the CPU.

Of {total} node tests {applicable} apply. **{passed} of {applicable} pass, {share:.1f} %.**

| Not passed | Because |
|---:|---|
{reasons}

| Do not apply | Because |
|---:|---|
{foreign}
"""
DOMAINS = {"": "ONNX", "com.microsoft": "com.microsoft", "ai.onnx.preview": "ai.onnx.preview"}

# Ops whose tests are not one of the lists of cases, and what these compare with.
ELSEWHERE = (
    {
        ("", name): "onnxruntime"
        for name in (
            "ConcatFromSequence",
            "Optional",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceErase",
        )
    }
    | {
        ("", name): "its distribution"
        for name in (
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        )
    }
    | {
        ("com.microsoft", name): "PyTorch"
        for name in (
            "BiasAdd",
            "BiasSplitGelu",
            "GroupNorm",
            "NhwcConv",
            "NhwcFusedConv",
            "SkipGroupNorm",
        )
    }
)


def document() -> str:
    """The page in Markdown."""
    reasons = listed()
    results = [outcome for outcome in outcomes() if _applies(outcome.name)]
    passed = sum(not outcome.failure for outcome in results)
    counts = Counter(reasons.values())
    foreign = {why: n for why, n in counts.items() if why.startswith(NOT_APPLICABLE)}
    parts = [
        INTRODUCTION.format(
            version=onnx.__version__,
            total=len(outcomes()),
            applicable=len(results),
            passed=passed,
            share=100 * passed / len(results),
            reasons=_rows((why, n) for why, n in counts.items() if why not in foreign),
            foreign=_rows(foreign.items()),
        )
    ]
    for domain, title in DOMAINS.items():
        parts += [f"## {title}\n", "| Operator | Opsets | Tested by |", "|---|---|---|"]
        parts += [_line(domain, name) for known, name in supported_ops() if known == domain]
        parts.append("")
    return "\n".join(parts)


def _applies(name: str) -> bool:
    return not listed().get(name, "").startswith(NOT_APPLICABLE)


def _rows(counts: Iterable[tuple[str, int]]) -> str:
    return "\n".join(f"| {n} | {why.removeprefix(NOT_APPLICABLE)} |" for why, n in counts)


def _line(domain: str, name: str) -> str:
    opsets = "1" if domain else f"{_first_opset(name)} to {MAX_OPSET}"
    return f"| {name} | {opsets} | {', '.join(tested_by(domain, name))} |"


def _first_opset(name: str) -> int:
    """The oldest opset, from 7 on, that has the op in a form the engine knows."""
    known = find("", name)
    versions = _versions().get(name, [1])
    return max(7, known.since if known else 0, min(versions))


@cache
def _versions() -> dict[str, list[int]]:
    versions: dict[str, list[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            versions.setdefault(schema.name, []).append(schema.since_version)
    return versions


def tested_by(domain: str, name: str) -> list[str]:
    """Node tests passed of those whose model has the op, and what else compares its values."""
    key = (domain or "ai.onnx", name)
    using = [x for x in outcomes() if key in x.ops and _applies(x.name)]
    # Models that spell out another op in this one count where there is nothing else.
    cases = [x for x in using if "_expanded" not in x.name] or using
    passed = sum(not case.failure for case in cases)
    tests = [f"node tests {passed}/{len(cases)}"] if cases else []
    if (domain, name) in _with_onnxruntime():
        tests.append("onnxruntime")
    if (domain, name) in ELSEWHERE:
        tests.append(ELSEWHERE[domain, name])
    return tests


@cache
def _with_onnxruntime() -> frozenset[tuple[str, str]]:
    standard = [*test_ops_old_versions.CASES, *test_ops_standard.CASES, *test_ops_recurrent.CASES]
    layers = test_ops_quantized_layers
    fused = [*test_ops_fused.CASES, *layers.STEPS, *layers.REALS]
    return frozenset(
        {("", case[0]) for case in standard} | {("com.microsoft", case[0]) for case in fused}
    )


if __name__ == "__main__":
    print(document(), end="")
