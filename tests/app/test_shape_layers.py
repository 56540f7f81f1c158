"""Layers that only compute sizes: out of sight in table and graph until asked for."""

from __future__ import annotations

import pytest
import small_models

from studio.app.layers.columns import LAYER
from studio.project import steps

SIZES = ["shape", "side", "sizes"]


@pytest.fixture
def workspace(window, tmp_path):  # type: ignore[no-untyped-def]
    window.session.show(steps.open_document(small_models.open_sizes(tmp_path / "sizes.onnx")))
    return window.workspace


def rows(workspace) -> list[str]:  # type: ignore[no-untyped-def]
    table = workspace.layers.filter
    return [table.index(row, LAYER).data() for row in range(table.rowCount())]


def boxes(workspace) -> list[str]:  # type: ignore[no-untyped-def]
    return list(workspace.graph.view._items)


def test_they_are_neither_listed_nor_drawn_nor_counted(workspace) -> None:  # type: ignore[no-untyped-def]
    assert rows(workspace) == boxes(workspace) == ["x", "conv", "reshape"]
    assert workspace.bottom.title("layers") == "Layers 3"
    assert workspace.layers.sizes.text() == "3 of sizes"


def test_the_filter_and_the_command_show_them(workspace, window) -> None:  # type: ignore[no-untyped-def]
    workspace.layers.sizes.click()
    assert rows(workspace) == boxes(workspace) == ["x", "conv", *SIZES, "reshape"]
    assert ("shape", "side") in {(e.source, e.target) for e in workspace.graph.view._edges}
    window.actions_table["sizes"].trigger()
    assert rows(workspace) == boxes(workspace) == ["x", "conv", "reshape"]


def test_a_model_without_them_has_no_filter(window, digits) -> None:  # type: ignore[no-untyped-def]
    window.session.show(digits)
    assert window.workspace.layers.sizes.isHidden()
    assert not window.actions_table["sizes"].isEnabled()
    assert window.actions_table["sizes"].toolTip() == "The model computes no sizes."
