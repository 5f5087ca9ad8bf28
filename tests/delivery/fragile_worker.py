"""A null worker that dies of a message before any job of it runs, once.

Environment:
    FRAGILE: a file that exists while the next message kills.
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
