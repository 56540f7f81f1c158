"""A program written by torch.export.save (`.pt2`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from studio.errors import ModelError
from studio.graph.model import ModelGraph
from studio.graph.sources.explain import decisive_line, describe
from studio.graph.sources.interface import flat_outputs, output_names
from studio.graph.sources.recurrences import whole_recurrences
from studio.graph.sources.sizes import rename_sizes, size_names
from studio.graph.sources.source import ExampleInput, ModelSource

if TYPE_CHECKING:
    import torch

SAVE_AGAIN = "Export it again, with the version of PyTorch that the studio has."


def capture_program(source: ModelSource) -> ModelGraph:
    """Load and translate. Sizes are dynamic where the program has them so.

    The caller has the user's consent: torch evaluates expressions in the file, and unpickles.
    Raises ModelError.
    """
    import torch

    from studio.graph.torch_module import finish, quiet

    path = source.path
    assert path is not None
    with quiet():
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise ModelError(
                f"{path.name} cannot be loaded: {describe(error)}",
                f"This is PyTorch {torch.__version__.split('+')[0]}. {SAVE_AGAIN}",
            ) from error
        names = list(program.graph_signature.user_inputs)
        found = [_input(program, str(name)) for name in names]
        inputs = tuple(item for item in found if item is not None)
        outputs = _output_names(program)
        try:
            with torch.no_grad(), whole_recurrences():
                exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
        except Exception as error:
            raise ModelError(
                f"{path.name} cannot be translated: {decisive_line(error)}",
                "Replace the part named in the model's code, and export it again.",
            ) from error
    assert exported is not None
    model = exported.model
    finish(model, [item.name or "" for item in inputs], outputs)
    if len(inputs) == len(model.graph.inputs):
        rename_sizes(model, size_names(inputs, model))
    notes = _notes(program, inputs)
    if any(item.shape not in [own.shape for own in inputs] for item in source.inputs):
        notes = (*notes, "The inputs given were not used: the program was exported with its own.")
    return ModelGraph(model, replace(source, inputs=inputs), (), notes)


def _input(program: torch.export.ExportedProgram, name: str) -> ExampleInput | None:
    """One input with the sizes it was exported with; None if it is no tensor."""
    import torch

    for node in program.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" and node.name == name else None
        if isinstance(value, torch.Tensor):
            shape = tuple(_hint(size) for size in value.shape)
            return ExampleInput(shape, name, str(value.dtype).removeprefix("torch."))
    return None


def _hint(size: Any) -> int:
    """The size at the time of the export."""
    if isinstance(size, int):
        return size
    hint = getattr(getattr(size, "node", None), "hint", None)
    return int(hint) if hint is not None else 2


def _output_names(program: torch.export.ExportedProgram) -> list[str | None]:
    """Keys of dictionaries that the program returns."""
    import torch

    spec = program.call_spec.out_spec
    if spec is None:
        return []
    count = spec.num_leaves
    leaves = [torch.tensor(float(place)) for place in range(count)]
    tree = torch.utils._pytree.tree_unflatten(leaves, spec)
    named = list(flat_outputs(tree))
    return output_names(named) if len(named) == count else []


def _notes(
    program: torch.export.ExportedProgram, inputs: tuple[ExampleInput, ...]
) -> tuple[str, ...]:
    notes = []
    training = [
        str(node.target)
        for node in program.graph.nodes
        if node.op == "call_function"
        and "dropout" in str(node.target)
        and any(argument is True for argument in node.args)
    ]
    if training:
        notes.append(
            "The program was exported in training mode (it has active dropout); export it after"
            " model.eval()."
        )
    fixed = [item for item in inputs if item.shape and not _is_open(program, item.name or "")]
    if inputs and len(fixed) == len([item for item in inputs if item.shape]):
        notes.append(
            "The program was exported with a fixed batch"
            f" ({fixed[0].shape[0] if fixed else 1}); dynamic_shapes of torch.export opens it."
        )
    return tuple(notes)


def _is_open(program: torch.export.ExportedProgram, name: str) -> bool:
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name == name:
            return not isinstance(node.meta["val"].shape[0], int)
    return False
