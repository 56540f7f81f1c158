"""The page with the results, for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from .steps import EQUAL, OTHER_BATCH, Result

HEAD = f"""# The zoo

Architectures of many families, taken through the whole studio with random weights: opened from
their PyTorch file, prepared, compared with PyTorch, quantized to 8-bit weights and activations for
`onnxruntime`, exported, and the exported file verified against the simulation layer by layer.
Each has the structure of its paper at reduced width, depth and input size. The files are in
`tests/zoo`; `python -m tests.zoo --json zoo.json --table resources/docs/zoo.md` writes this page.

- **nodes → layers**: operators of the graph as captured, and layers after preparation, as the
  layer table shows them (the computation of open sizes is among both).
- **PyTorch**, **other batch**, **other size**: largest difference of the prepared graph's outputs
  (in both engines) from the source module's, relative to the output's largest value; with one
  sample, with {OTHER_BATCH}, and with images (sequences) of another size. **engines**: the largest
  difference of the torch engine from onnxruntime in all those runs. At most {EQUAL:.0e} passes.
- **quantized**, **float**: tensors with an encoding, and without one but with a stated reason.
- **layers verified**, **identical**, **steps**: layers of the exported file run in onnxruntime and
  compared with the simulation on equal inputs; the smallest share of equal integers of a layer, and
  the largest difference in steps. More than one does not pass. **all identical**: of the integers
  of all layers together.
- **file, dB**, **file, class**: the exported file in onnxruntime, optimisations off, against the
  simulation, the whole network, for the output that differs most: SQNR (∞: bit for bit equal), and
  the share of samples with the same class where the output is a class score. **levels, dB**,
  **levels, class**: the same of onnxruntime with its optimisations on against itself with them off.
  Single steps that float sums flip add up, so the figures say how much of the file's distance is
  that alone.
- **integer**: layers that onnxruntime runs in integers; all layers run as was forecast before the
  export (one that does not, does not pass).
- **SQNR**: of the quantized model's first output against float, on random weights and smooth random
  data; this says how a structure takes 8 bits, not what a trained model loses.
- **s**: seconds for everything, on one thread.

"""
EQUAL_DB = 999.0
"""What stands for equal in the file of results."""

COLUMNS = (
    "name", "family", "nodes → layers", "PyTorch", "engines", "other batch", "other size",
    "quantized", "float", "layers verified", "identical", "all identical", "steps", "file, dB",
    "file, class", "levels, dB", "levels, class", "integer", "SQNR, dB", "s",
)  # fmt: skip


def page(results: Sequence[Result]) -> str:
    """Markdown."""
    passed = sum(result.passed for result in results)
    lines = [f"{passed} of {len(results)} pass all steps.", ""]
    lines += [_row(COLUMNS), _row(["---"] * len(COLUMNS))]
    lines += [_row(_cells(result)) for result in results]
    failed = [result for result in results if not result.passed]
    if failed:
        lines += ["", "## Not passed", ""]
        lines += [
            f"- **{result.name}**, {step}: {' '.join(error.split())}"
            for result in failed
            for step, error in result.failures.items()
        ]
    fixed = [result for result in results if result.note]
    if fixed:
        lines += ["", "## Notes", ""]
        lines += [f"- {result.name}: {result.note}." for result in fixed]
    return HEAD + "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(result: Result) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    return [
        result.name if result.passed else f"**{result.name}**",
        result.family,
        f"{number(result.source_nodes, 'd')} → {number(result.layers, 'd')}",
        number(result.torch_difference, ".0e"),
        number(result.engine_difference, ".0e"),
        number(result.batch_difference, ".0e"),
        number(result.size_difference, ".0e"),
        number(result.quantized, "d"),
        number(result.floating, "d"),
        number(result.verified_layers, "d"),
        "–" if result.identical is None else percent(result.identical),
        "–" if result.all_identical is None else percent(result.all_identical),
        number(result.steps, "d"),
        _decibels(result.exported_db),
        number(result.exported_top1, ".0f"),
        _decibels(result.levels_db),
        number(result.levels_top1, ".0f"),
        number(result.integer_layers, "d"),
        number(result.sqnr_db, ".1f"),
        number(result.seconds, ".1f"),
    ]


def _decibels(value: float | None) -> str:
    if value is None:
        return "–"
    return "∞" if value >= EQUAL_DB else f"{value:.1f}"


def percent(share: float) -> str:
    """Rounded down: 100 % means all."""
    return "100 %" if share == 1 else f"{int(share * 10000) / 100:.2f} %"
