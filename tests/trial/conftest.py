"""A user of the command."""

from tests.cli.conftest import home

__all__ = ["home"]
