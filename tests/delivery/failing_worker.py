"""A null worker whose event loop raises an unexpected error.

Environment:
    FAILS: a file; once it exists, the next tick of the loop fails.
"""

import os
import sys
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks

from tests.chaos.null_worker import app
from worker.__main__ import run

__all__ = ["app"]


class Failing(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """Looks for the file at each tick of the event loop."""

    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        """Register `look` with the event loop."""
        consumer.hub.on_tick.add(self.look)

    def look(self) -> None:
        """Raise an error if the file exists."""
        if Path(os.environ["FAILS"]).exists():
            raise RuntimeError("something unexpected")


app.steps["consumer"].add(Failing)

if __name__ == "__main__":
    sys.exit(run([]))
