"""A null worker that one message kills, once, before any job of the worker runs.

Environment:
    FRAGILE: a file; while it exists, the next message kills the worker, which deletes the file first.
"""

import os
import signal
from pathlib import Path

from celery import signals

from tests.chaos.null_worker import app

__all__ = ["app"]


def _die(**_: object) -> None:
    fragile = Path(os.environ["FRAGILE"])
    if fragile.exists():
        fragile.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


signals.task_received.connect(_die)
