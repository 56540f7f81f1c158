"""Preparation: one form for every model, with the same output.

`PREPARATION` lists the passes in the order they run, `prepare` runs them until nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from studio.errors import ModelError
from studio.graph.model import Change, ModelGraph
from studio.graph.prepare.batch_norm import fold_batch_norms, unfolded_batch_norms
from studio.graph.prepare.bias import merge_bias
from studio.graph.prepare.constants import fold_constants, lift_constants
from studio.graph.prepare.dead_code import remove_dead_code
from studio.graph.prepare.gemm import normalise_gemm
from studio.graph.prepare.identities import remove_identities
from studio.graph.prepare.inline import inline_functions
from studio.graph.prepare.names import fill_names, name_by_scope
from studio.graph.prepare.padding import merge_padding
from studio.graph.prepare.pooling import recognise_pooling
from studio.graph.prepare.reshapes import simplify_reshapes
from studio.graph.prepare.shapes import infer_shapes
from studio.graph.prepare.sharing import note_shared_weights, separate_biases
from studio.graph.prepare.softmax import restore_softmax

MAX_ROUNDS = 8


@dataclass(frozen=True)
class Pass:
    """One step of preparation: works in place and says what it changed."""

    name: str
    description: str
    run: Callable[[ir.Model], list[Change]]


PREPARATION: tuple[Pass, ...] = (
    Pass("inline functions", "Replace model-local functions by their operators.", inline_functions),
    Pass("lift constants", "Turn Constant operators into named constants.", lift_constants),
    Pass("names", "Give every operator and tensor a unique name.", fill_names),
    Pass("infer shapes", "Find the shape and type of every tensor.", infer_shapes),
    Pass("fold constants", "Compute what depends on constants only once.", fold_constants),
    Pass("remove identities", "Remove operators that change nothing.", remove_identities),
    Pass("restore softmax", "Turn Softmax of old opsets into one operator.", restore_softmax),
    Pass("constant shapes", "Make shapes taken from a tensor itself constant.", simplify_reshapes),
    Pass("dead code", "Remove what no output depends on.", remove_dead_code),
    Pass("recognise pooling", "Turn means over all positions into pooling.", recognise_pooling),
    Pass("module names", "Name layers after the PyTorch module they come from.", name_by_scope),
    Pass("merge padding", "Merge zero padding into the convolution after it.", merge_padding),
    Pass("normalise Gemm", "Multiply Gemm's factors into its constants.", normalise_gemm),
    Pass("merge bias", "Turn constants added to a layer into its bias.", merge_bias),
    Pass(
        "fold batch norm", "Fold batch normalization into the layer next to it.", fold_batch_norms
    ),
    Pass("separate biases", "Give each layer its own bias.", separate_biases),
    Pass("shared weights", "Write down which layers share weights.", note_shared_weights),
)


def _run(step: Pass, model: ir.Model, graph: ModelGraph) -> list[Change]:
    try:
        return step.run(model)
    except Exception as error:  # the model contradicts itself in a way no check foresaw
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"{graph.source.path.name} cannot be prepared (step {step.name!r}): {reason}",
            "Check the model with onnx.checker, or export it again.",
        ) from error


def prepare(graph: ModelGraph) -> ModelGraph:
    """A prepared copy of `graph`, with what was done in `changes` and what was not in `warnings`.

    The outputs are those of `graph` to within float rounding. Preparing twice changes nothing more.
    """
    model = graph.ir.clone()
    done = list(graph.changes)
    for _ in range(MAX_ROUNDS):
        found: list[Change] = []
        for step in PREPARATION:
            before = {id(node): node.name or "" for node in model.graph}
            new = _run(step, model, graph)
            renamed = {before[id(n)]: n.name or "" for n in model.graph if id(n) in before}
            found = [replace(c, layer=renamed.get(c.layer, c.layer)) for c in found] + new
        done += found
        if not found:
            break
    warnings = [*graph.warnings]
    warnings += [w for w in unfolded_batch_norms(model) if w not in warnings]
    return ModelGraph(model, graph.source, tuple(done), tuple(warnings))
