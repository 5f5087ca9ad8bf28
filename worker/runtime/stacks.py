"""Has a process print the stacks of all its threads on SIGUSR1, as Celery's running workers do."""

from __future__ import annotations

import faulthandler
import signal
import sys


def print_stacks_on_sigusr1() -> None:
    """Print all threads' stacks to standard error on SIGUSR1, even while native code runs; do not end the process."""
    faulthandler.register(signal.SIGUSR1, file=sys.stderr)
