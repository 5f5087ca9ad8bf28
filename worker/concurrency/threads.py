"""Runs a function in a thread of its own, which ends with the function, and starts the threads of a pool early."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_in_short_lived_thread(work: Callable[[], T], name: str = "loading") -> T:
    """Return the result of `work`, run in a thread that ends afterwards, so that the thread's OpenMP helpers end too.

    PyTorch's OpenMP starts helper threads for each thread that computes on all cores, and keeps them while that thread
    lives. Once there are more helpers than cores, they sleep even between two layers, and a single image takes a
    quarter longer. So only the batcher's first thread, which computes most batches, keeps helpers.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # the caller raises it
            outcome.set_exception(error)

    # As a daemon, the thread does not delay the end of a process that is stopped during a start of several minutes.
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join()  # OpenMP has ended the thread's helpers then
    return outcome.result()


def start_all_threads(pool: ThreadPoolExecutor, count: int) -> None:
    """Start all threads of a pool now, because the system may allow no more threads when the pool has work for them.

    Args:
        count: the pool's largest number of threads.

    Raises:
        RuntimeError: the system allows too few threads.
    """
    all_started = threading.Event()
    try:
        for _ in range(count):
            pool.submit(all_started.wait)  # occupies its thread, so that the next call starts another one
    finally:
        all_started.set()
