"""The fixture `home` of tests/cli: a user of the command line."""

from tests.cli.conftest import home

__all__ = ["home"]
