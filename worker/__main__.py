"""The worker process that ``nameshot worker`` starts: ``python -m worker``, or ``python -m worker SOCKET FRONTS``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from worker.celery import app, lifecycle
from worker.service import Front


def run(arguments: Sequence[str]) -> int:
    """Run the worker until a signal stops it or an error ends it.

    Args:
        arguments: empty, or the path of an engine process's socket and the number of its fronts.

    Returns:
        The exit status, which `Celery.worker_main` does not return.
    """
    if arguments:
        app.front = Front(Path(arguments[0]), int(arguments[1]))
    # The process id makes the names of several workers on one machine differ.
    app.worker_main(["worker", "-n", f"nameshot-{os.getpid()}@%h", "--without-heartbeat"])
    return lifecycle.exit_status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
