"""Files that come with the studio: icons, fonts, target rules, the example."""

from __future__ import annotations

from pathlib import Path

from studio.errors import StudioError

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries the checkout's `resources` folder inside the package (setup.py).
_ROOTS = (_PACKAGE / "_resources", _PACKAGE.parent / "resources")


def resource(*parts: str) -> Path:
    """Path of `resources/<parts...>`, in a checkout and in an installed package alike.

    Raises StudioError if the installation lacks it.
    """
    for root in _ROOTS:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise StudioError(
        f"The file {'/'.join(parts)} is missing from this installation of the studio.",
        "Install it again.",
    )
