"""The window's tests run without a screen, with real widgets."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture(autouse=True)
def _dark_theme(qapp):  # type: ignore[no-untyped-def]
    """Every test starts in the dark theme."""
    from studio.app.theme import DARK, apply_theme, current_theme

    if current_theme() is not DARK or not qapp.styleSheet():
        apply_theme(qapp, DARK)
