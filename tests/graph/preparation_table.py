"""The table of preparation rules for the docs.

python tests/graph/preparation_table.py > resources/docs/preparation.md
"""

from __future__ import annotations

import inspect

from studio.graph.patterns.rule import Rule
from studio.graph.prepare import PREPARATION, Pass

INTRODUCTION = """\
# Preparation

Whatever a model came from, it is brought into one form before anything is quantized. {count} rules
run in this order, again and again until none finds anything to do. The output of the model stays
what it was, to within the rounding of floats. The Preparation tab and `quant-studio inspect` show
what each rule did to a model, layer by layer.

A rule with a switch can be left out: untick it in the Preparation tab (Ctrl+Z ticks it again), or
name it on the command line as often as needed:

    quant-studio inspect model.onnx --without 'fold batch norm' --without 'move transposes'

Recipes and projects remember it. Rules without a switch are what the studio cannot do without.
Rules called *recognise ...*, pooling apart, leave the graph as it is and only mark what belongs
together ([recognised layers](layers.md)).

| Rule | What it does | When it applies, in detail | Switch |
|---|---|---|---|
"""


def document() -> str:
    """The page."""
    rows = "".join(f"{_row(step)}\n" for step in PREPARATION)
    return INTRODUCTION.format(count=len(PREPARATION)) + rows


def _row(step: Pass) -> str:
    switch = f"`--without '{step.name}'`" if step.optional else "always done"
    cells = (step.name, step.description, _when(step), switch)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _when(step: Pass) -> str:
    """What the code says of itself."""
    owner = getattr(step.run, "__self__", None)
    if isinstance(owner, Rule):
        *others, last = sorted(owner.needs)
        listed = f"{', '.join(others)} or {last}" if others else last
        return f"Where {listed} is found in such a form and nothing else reads what is inside."
    text = inspect.getdoc(step.run if owner is None else type(owner)) or ""
    return " ".join(text.split())


if __name__ == "__main__":
    print(document(), end="")
