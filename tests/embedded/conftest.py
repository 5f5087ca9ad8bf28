"""What the tests of this folder share."""

from tests.cli.interruptible import children_can_be_interrupted

__all__ = ["children_can_be_interrupted"]
