"""Threads that leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_short_lived_thread(work: Callable[[], T], name: str = "loading") -> T:
    """Call it where PyTorch's helper threads end with it.

    OpenMP gives each thread that computes on all cores helpers of its own, and never takes them back. Once there are
    more of them than cores it lets them sleep between two layers, and not only while there is nothing to do: a lone
    image took a quarter longer. So the only thread that keeps such helpers is the batcher's first.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # the caller raises it
            outcome.set_exception(error)

    # A daemon, so that a signal ends a start that takes minutes; joined, so that its helpers have ended.
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join()
    return outcome.result()
