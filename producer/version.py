"""The version of this package."""

from __future__ import annotations


def own_version() -> str | None:
    """Return the version of nameshot; None if it is not installed, but runs from its sources."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nameshot")
    except PackageNotFoundError:
        return None
