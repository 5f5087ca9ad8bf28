"""Prints each thread's stack on SIGUSR1, as Celery's workers do once they run."""

from __future__ import annotations

import faulthandler
import signal
import sys


def print_stacks_on_sigusr1() -> None:
    """Have SIGUSR1, which otherwise ends a process, print to standard error even while native code runs."""
    faulthandler.register(signal.SIGUSR1, file=sys.stderr)
