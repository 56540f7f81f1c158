"""Preparation: one form for every model, with the same output.

`PREPARATION` lists the rules in the order they run, `prepare` runs them until nothing changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import onnx_ir as ir

from studio.errors import ConfigError, ModelError
from studio.graph.model import Change, ModelGraph
from studio.graph.patterns import RECOGNITION
from studio.graph.prepare.batch_norm import (
    fold_batch_norms,
    split_batch_norms,
    unfolded_batch_norms,
)
from studio.graph.prepare.bias import merge_bias, merge_scale
from studio.graph.prepare.constants import fold_constants, lift_constants
from studio.graph.prepare.contrib import replace_contrib
from studio.graph.prepare.control_flow import (
    inline_branches,
    lift_body_constants,
    unroll_loops,
)
from studio.graph.prepare.dead_code import remove_dead_code, remove_dead_results
from studio.graph.prepare.duplicates import merge_common, merge_equal_weights
from studio.graph.prepare.gemm import normalise_gemm
from studio.graph.prepare.identities import remove_identities
from studio.graph.prepare.inline import inline_functions
from studio.graph.prepare.layout import move_transposes
from studio.graph.prepare.names import fill_names, name_by_scope
from studio.graph.prepare.padding import merge_padding, resolve_auto_pad
from studio.graph.prepare.pairs import merge_pairs
from studio.graph.prepare.pooling import recognise_pooling
from studio.graph.prepare.reshapes import simplify_reshapes
from studio.graph.prepare.sequences import split_sequences
from studio.graph.prepare.shapes import infer_shapes
from studio.graph.prepare.sharing import note_shared_weights, separate_biases
from studio.graph.prepare.softmax import restore_softmax

MAX_ROUNDS = 16
ON_OPENING = "Done when the file was read."


@dataclass(frozen=True)
class Pass:
    """One rule of preparation: works in place and says what it changed.

    `optional` rules can be switched off; what the studio cannot do without is not. A `last` rule
    waits until the others have nothing more to do. `renames`: gives operators other names. `marks`:
    only writes down what it found, so that no other rule has new work after it.
    """

    name: str
    description: str
    run: Callable[[ir.Model], list[Change]]
    optional: bool = True
    last: bool = False
    renames: bool = False
    marks: bool = False


PREPARATION: tuple[Pass, ...] = (
    Pass(
        "inline functions",
        "Replace model-local functions by their operators.",
        inline_functions,
        optional=False,
    ),
    Pass(
        "lift constants",
        "Turn Constant operators into named constants.",
        lift_constants,
        optional=False,
    ),
    Pass(
        "names",
        "Give every operator and tensor a unique name.",
        fill_names,
        optional=False,
        renames=True,
    ),
    Pass(
        "body constants",
        "Move weights out of branches and loops.",
        lift_body_constants,
        optional=False,
    ),
    Pass(
        "standard operators",
        "Write operators of com.microsoft as the standard ones they consist of.",
        replace_contrib,
    ),
    Pass("infer shapes", "Find the shape and type of every tensor.", infer_shapes, optional=False),
    Pass("fold constants", "Compute what depends on constants only once.", fold_constants),
    Pass("inline branches", "Replace an If by the branch it always takes.", inline_branches),
    Pass("unroll loops", "Write short loops of known length out.", unroll_loops),
    Pass("remove identities", "Remove operators that change nothing.", remove_identities),
    Pass("merge pairs", "Let one Transpose, Reshape or Cast do the work of two.", merge_pairs),
    Pass("merge common", "Compute what several layers need only once.", merge_common),
    Pass("restore softmax", "Turn Softmax of old opsets into one operator.", restore_softmax),
    Pass("split sequences", "Split tensors into parts, not sequences.", split_sequences),
    Pass("constant shapes", "Make shapes taken from a tensor itself constant.", simplify_reshapes),
    Pass("dead results", "Do not ask for results that nobody reads.", remove_dead_results),
    Pass("dead code", "Remove what no output depends on.", remove_dead_code, optional=False),
    Pass(
        "move transposes",
        "Remove Transposes between channels first and channels last.",
        move_transposes,
    ),
    Pass("recognise pooling", "Turn means over all positions into pooling.", recognise_pooling),
    Pass(
        "module names",
        "Name layers after the PyTorch module they come from.",
        name_by_scope,
        optional=False,
        renames=True,
    ),
    # Before constants are merged: what belongs to a recognised layer stays with it.
    *(Pass(rule.name, rule.description, rule.run, marks=True) for rule in RECOGNITION),
    Pass("explicit padding", "Write automatic padding down in numbers.", resolve_auto_pad),
    Pass("merge padding", "Merge zero padding into the layer after it.", merge_padding),
    Pass("normalise Gemm", "Multiply Gemm's factors into its constants.", normalise_gemm),
    Pass("merge bias", "Turn constants added to a layer into its bias.", merge_bias),
    Pass("merge scale", "Multiply constants after a layer into its weights.", merge_scale),
    Pass(
        "fold batch norm", "Fold batch normalization into the layer next to it.", fold_batch_norms
    ),
    Pass(
        "split batch norm",
        "Turn batch normalization that has no layer into scale and shift.",
        split_batch_norms,
        last=True,
    ),
    Pass(
        "merge equal weights",
        "Let layers with equal weights read one constant.",
        merge_equal_weights,
    ),
    Pass("separate biases", "Give each layer its own bias.", separate_biases, optional=False),
    Pass(
        "shared weights",
        "Write down which layers share weights.",
        note_shared_weights,
        optional=False,
    ),
)


@dataclass(frozen=True)
class Rule:
    """A rule as a person sees it for one model: how often it applied, whether it is on."""

    name: str
    description: str
    optional: bool
    on: bool
    count: int


def rules(graph: ModelGraph) -> tuple[Rule, ...]:
    """Every rule of preparation in order, then what else was done to `graph` on its way in."""
    counts = Counter(change.rule for change in graph.changes)
    listed = tuple(
        Rule(s.name, s.description, s.optional, s.name not in graph.source.without, counts[s.name])
        for s in PREPARATION
    )
    known = {rule.name for rule in listed}
    others = [name for name in counts if name not in known]
    return (*(Rule(name, ON_OPENING, False, True, counts[name]) for name in others), *listed)


def check_rules(names: Iterable[str]) -> None:
    """Raises ConfigError unless `names` are rules that can be switched off."""
    known = [step.name for step in PREPARATION if step.optional]
    for name in names:
        if name in known:
            continue
        fixed = any(step.name == name for step in PREPARATION)
        problem = "cannot be switched off" if fixed else "does not exist"
        raise ConfigError(
            f"The preparation rule {name!r} {problem}.",
            f"Rules that can be switched off: {', '.join(known)}.",
        )


def _run(step: Pass, model: ir.Model, graph: ModelGraph) -> list[Change]:
    try:
        return step.run(model)
    except Exception as error:  # the model contradicts itself in a way no check foresaw
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"{graph.source.file_name} cannot be prepared (step {step.name!r}): {reason}",
            "Check the model with onnx.checker, or export it again.",
        ) from error


def prepare(graph: ModelGraph) -> ModelGraph:
    """A prepared copy of `graph`, with what was done in `changes` and what was not in `warnings`.

    The outputs are those of `graph` to within float rounding. Preparing twice changes nothing more.
    Rules named in `graph.source.without` are left out; ConfigError if one cannot be.
    """
    without = graph.source.without
    check_rules(without)
    model = graph.ir.clone()
    done = list(graph.changes)
    steps = [step for step in PREPARATION if step.name not in without]
    for _ in range(MAX_ROUNDS):
        found: list[Change] = []
        again = False
        for step in steps:
            if step.last and again:
                continue
            before = {id(n): n.name for n in model.graph if n.name} if step.renames else {}
            new = _run(step, model, graph)
            if before:
                renamed = {before[id(n)]: n.name or "" for n in model.graph if id(n) in before}
                found = [replace(c, layer=renamed.get(c.layer, c.layer)) for c in found]
            found += new
            again |= bool(new) and not step.marks
        done += found
        if not again:
            break
    warnings = [*graph.warnings]
    if "fold batch norm" not in without:
        warnings += [w for w in unfolded_batch_norms(model) if w not in warnings]
    return replace(
        graph,
        ir=model,
        changes=tuple(done),
        warnings=tuple(warnings),
        captured=graph.captured or graph,
    )
