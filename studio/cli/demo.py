"""`quant-studio demo`: the bundled example from start to end without a screen."""

from __future__ import annotations

from pathlib import Path

from studio.cli.output import ProgressLine, print_evaluation, print_export, print_json


def run_demo(out: Path, as_json: bool) -> int:
    """Calibrate, evaluate, export and verify the digits example, and take a picture of the window.

    Everything is written to `out`.
    """
    from studio.jobs import CancelToken
    from studio.project import steps
    from studio.project.example import open_digits

    with ProgressLine(as_json) as emit:
        document = open_digits(emit, CancelToken())
        document = steps.calibrate(document, emit=emit)
        document = steps.evaluate(document, emit=emit)
        document = steps.export(document, out, emit=emit)
    from studio.app.picture import save_picture

    picture = out / "window.png"
    save_picture(document, picture)
    assert document.evaluation is not None
    assert document.export is not None
    if as_json:
        print_json(
            {"evaluation": document.evaluation, "export": document.export, "picture": picture}
        )
    else:
        print_evaluation(document.evaluation)
        print_export(document.export)
        print(f"\npicture of the window: {picture}")
    return 0
