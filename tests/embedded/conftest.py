"""Fixtures of the tests in this folder."""

from tests.cli.interruptible import children_can_be_interrupted

__all__ = ["children_can_be_interrupted"]
