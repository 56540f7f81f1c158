"""Small pieces of HTML. Plain strings are escaped on the way in; `Markup` goes in as it is."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Control characters and lone surrogates have no place in a document, only in careless names.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_SEPARATORS = re.compile(r"(?<=[./_:])(?=[^./_:])")
_UNBROKEN = 36
_LONG = '<details class="long">'
_OPENED = '<details class="long" open="">'

LONGEST_OPEN = 24
"""Rows of a table that is shown at once; a longer one is opened by a click."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


class Cell(NamedTuple):
    """A table cell with a CSS class."""

    content: str
    css: str


class Column(NamedTuple):
    """A table's column; numbers stand at the right. `hint` explains the title."""

    title: str
    numeric: bool = False
    hint: str = ""


Row = Sequence[str | Cell]


def escape(text: str) -> Markup:
    """`text` as HTML; Markup unaltered."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)))


def breakable(name: str) -> Markup:
    """A long name that may break after its separators; a short one stays in one line."""
    if len(name) <= _UNBROKEN:
        return escape(name)
    return Markup("<wbr/>".join(escape(part) for part in _SEPARATORS.split(name)))


def join(parts: Iterable[str], between: str = "") -> Markup:
    return Markup(escape(between).join(escape(part) for part in parts))


def tag(name: str, *content: str, **attributes: str) -> Markup:
    """An element; `class_` gives the attribute class, `data_x` gives data-x."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{join(content)}</{name}>")


def section(identity: str, title: str, *content: str) -> Markup:
    """A part of the page that the table of contents links to."""
    return tag("section", tag("h2", title), *content, id=identity)


def note(*content: str) -> Markup:
    return tag("p", *content, class_="note")


def table(columns: Sequence[Column], rows: Iterable[Row], css: str = "") -> Markup:
    """A table in a box that scrolls.

    Alignment is a class of the table (`n3`: the third column holds numbers), not of every cell,
    which keeps tables of many thousand rows small. The css class `tools` asks for sorting and a
    filter where scripts run. Tables of more than `LONGEST_OPEN` rows are closed at first.
    """
    numeric = " ".join(f"n{index}" for index, column in enumerate(columns, 1) if column.numeric)
    titles = (
        tag("th", column.title, scope="col", title=column.hint)
        if column.hint
        else tag("th", column.title, scope="col")
        for column in columns
    )
    lines = [
        "<tr>"
        + "".join(
            f'<td class="{cell.css}">{escape(cell.content)}</td>'
            if isinstance(cell, Cell)
            else f"<td>{escape(cell)}</td>"
            for cell in row
        )
        + "</tr>\n"
        for row in rows
    ]
    box = Markup(
        f'<div class="box" tabindex="0"><table class="{f"{css} {numeric}".strip()}">'
        f"<thead><tr>{join(titles)}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody></table></div>"
    )
    if len(lines) <= LONGEST_OPEN:
        return box
    count = f"{len(lines):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return Markup(f"{_LONG}{tag('summary', f'{count} rows')}{box}</details>")


def opened(page: str) -> str:
    """`page` with every table open: for paper, where nobody can click."""
    return page.replace(_LONG, _OPENED)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """A list of names and values."""
    rows = (tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs)
    return tag("dl", *rows)
