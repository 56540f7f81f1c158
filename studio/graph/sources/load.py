"""Read a source of whatever kind, with the user's consent where that executes something."""

from __future__ import annotations

from dataclasses import replace

from studio.graph.model import ModelGraph
from studio.graph.sources.kinds import CONSENT, Kind, OpeningConsentError, kind_of
from studio.graph.sources.source import ModelSource


def load(source: ModelSource, *, trust: bool) -> ModelGraph:
    """The graph of `source`, not prepared yet; its `source.inputs` are those it was traced with.

    Raises ConsentRequiredError unless `trust` if anything would be executed, and ModelError.
    """
    kind = kind_of(source)
    if not trust and kind in CONSENT:
        raise OpeningConsentError(source, kind)
    if kind is Kind.ONNX:
        from studio.graph.onnx_file import load_onnx

        assert source.path is not None
        return replace(load_onnx(source.path), source=source)
    if kind in (Kind.PYTHON, Kind.PACKAGE):
        from studio.graph.sources.python_source import capture_python

        return capture_python(source)
    if kind is Kind.PICKLE:
        from studio.graph.sources.pickled import capture_pickled

        return capture_pickled(source)
    if kind is Kind.PROGRAM:
        from studio.graph.sources.exported_program import capture_program

        return capture_program(source)
    from studio.graph.sources.torchscript import capture_script

    return capture_script(source)
