"""Applying a technique in the background, and its checkpoint if one was left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.app.edits import EditCommand
from studio.app.tasks import leave_one_core
from studio.jobs import CancelToken, Emit

if TYPE_CHECKING:
    from studio.app.session import Session
    from studio.project.document import Document
    from studio.techniques.technique import Options, Technique

STEP = "Improving"
CHECKPOINTS = "checkpoints"
"""The option of techniques that take long: the folder they keep their checkpoint in."""


def in_a_sentence(title: str) -> str:
    """`Quantization-aware training` -> `quantization-aware training`; names stay as they are."""
    first = title.split("-")[0].split()[0]
    return title[:1].lower() + title[1:] if first[1:].islower() else title


def checkpoint_folder(document: Document) -> Path | None:
    """Where the window keeps checkpoints: beside the project, so nowhere before it is saved."""
    path = document.path
    return None if path is None else path.absolute().with_name(f"{path.stem}.training")


def improve(session: Session, technique: Technique, options: Options, *, anew: bool) -> bool:
    """Apply `technique` as one undoable edit; `anew`: not from its checkpoint. False if a job is
    running already."""
    before = session.document
    if before is None:
        return False
    words = f"by {in_a_sentence(technique.title)}"

    def improved(document: Document) -> None:
        session.undo_stack.push(EditCommand(session, f"Improve {words}", before, document))

    work = _apply(before, technique, options, anew)
    return session.start(f"{STEP} {words}", work, improved)


def _apply(
    document: Document, technique: Technique, options: Options, anew: bool
) -> Callable[[Emit, CancelToken], Document]:
    def work(emit: Emit, cancel: CancelToken) -> Document:
        from studio.project import steps
        from studio.project.techniques import apply_technique

        leave_one_core()
        folder = getattr(options, CHECKPOINTS, None)
        own = options
        if folder is None and CHECKPOINTS in type(options).model_fields:
            folder = checkpoint_folder(document)
            own = options.model_copy(update={CHECKPOINTS: folder})
        if folder is not None and anew:
            _remove(folder)
        current = steps.refresh_encodings(document, emit=emit, cancel=cancel)
        improved = apply_technique(current, technique.name, own, emit=emit, cancel=cancel)
        if folder is not None:
            _remove(folder)  # it would be taken for the start of the next training
        # The folder beside the project is this machine's business, not the recipe's.
        *earlier, last = improved.applied
        last = replace(last, options=options.model_dump(mode="json"))
        return replace(improved, applied=(*earlier, last))

    return work


def _remove(folder: Path) -> None:
    from studio.qat import checkpoint

    checkpoint.remove(folder)


def find_checkpoint(folder: Path) -> Callable[[Emit, CancelToken], Any]:
    """The work of looking what checkpoint is in `folder`: a `Saved`, or None."""

    def work(emit: Emit, cancel: CancelToken) -> Any:
        from studio.qat import checkpoint

        return checkpoint.saved(folder)

    return work
