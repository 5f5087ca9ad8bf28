"""Runs work in a thread that ends with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_short_lived_thread(work: Callable[[], T], name: str = "loading") -> T:
    """Run `work` in a short-lived thread, so that the OpenMP threads that PyTorch spawns for it end too.

    OpenMP gives each thread that computes on all cores helper threads of its own, and keeps them while that thread
    lives. Once there are more helpers than cores, OpenMP lets them sleep even between two layers, and a single image
    took a quarter longer. So only the batcher's first thread keeps helpers.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # the caller raises it
            outcome.set_exception(error)

    # A daemon thread, so that a signal can end a start that takes minutes; joined, so that its helpers have ended.
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join()
    return outcome.result()
