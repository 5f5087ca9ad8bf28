"""A user of the command line, as in its own tests."""

from tests.cli.conftest import home

__all__ = ["home"]
