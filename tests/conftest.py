"""What the tests of all packages share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The optional folder of photographs and models beside the checkout; skips without it."""
    folder = (Path(__file__).parents[1] / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip("the optional sample data folder is not there")
    return folder
