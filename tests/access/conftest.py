"""The null workers and pictures of the tests in `tests/delivery`."""

from tests.delivery.conftest import COMMAND, origin, start_worker

__all__ = ["START", "origin", "start_worker"]

START = (*COMMAND, "-n", "in-a-role@%h")
