"""Shuts a worker down: drains it, requeues what is left, and ends the process.

On SIGTERM, SIGINT, SIGHUP or Celery's ``control shutdown`` (`worker.jobs.remote_control`) the worker takes no more
jobs, and running jobs have ``NAMESHOT_DRAIN_TIMEOUT`` seconds to finish. On a second signal more than `SAME_REQUEST_S`
later, or on SIGQUIT, it requeues all messages at once. Under nohup SIGHUP stays ignored. If a supervisor then sends
SIGKILL, no job is lost: the jobs wait, at most until the lease expires. The death counts against none of them but a
suspect that runs alone, since the worker first marks its shutdown in Redis.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType

from producer.processes.queued_signals import SAME_REQUEST_S
from worker.delivery.marks import Marks

logger = logging.getLogger(__name__)


class Shutdown:
    """Ends the process within the drain timeout.

    Args:
        drain_timeout_s: seconds for running jobs to finish.
        marks: records that the worker is shutting down.
        leave: requeues all messages that are still held; called once, right before the process ends.
    """

    def __init__(self, *, drain_timeout_s: float, marks: Marks, leave: Callable[[], None]) -> None:
        self._drain_timeout_s = drain_timeout_s
        self._marks = marks
        self._leave = leave
        self._leaving_since_s: float | None = None
        self._drained = threading.Event()
        self._requests: SimpleQueue[tuple[float, int]] = SimpleQueue()
        # Start the threads now, because the system may allow no more threads when the process must end. One waits for
        # running jobs, while the other may have to end the process at once.
        for _ in range(2):
            threading.Thread(target=self._serve, name="shutdown", daemon=True).start()
        # Read the handler before Celery replaces it with its own, which restarts the program.
        self._hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def install(self, stop_taking: Callable[[int], None]) -> None:
        """Replace Celery's signal handlers. Call this from the main thread, after Celery has installed its own.

        Args:
            stop_taking: called with the signal's number; makes the worker end once running jobs have finished.
        """
        drain = self._drain_handler(stop_taking)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, drain)
        signal.signal(signal.SIGHUP, drain if self._hangs_up else signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, lambda *_: self._end_from_thread(0.0))

    def drained(self) -> None:
        """Record that all jobs have finished, so that the process may end normally."""
        self._drained.set()
        self._marks.close()

    def leave_now(self) -> None:
        """Unless a shutdown has begun, requeue all messages without counting a death, and end the process at once."""
        if self._leaving_since_s is None:
            self._leaving_since_s = time.monotonic()
            self._end_from_thread(0.0)

    def fail(self) -> None:
        """End with exit status 70 after an unrecoverable error; running jobs have the drain timeout to finish."""
        if self._leaving_since_s is None:
            self._leaving_since_s = time.monotonic()
            self._end_from_thread(self._drain_timeout_s, os.EX_SOFTWARE)

    def _drain_handler(self, stop_taking: Callable[[int], None]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, _frame: FrameType | None) -> None:
            now_s = time.monotonic()
            if self._leaving_since_s is not None:
                if now_s - self._leaving_since_s > SAME_REQUEST_S:
                    self._end_from_thread(0.0)
                return
            self._leaving_since_s = now_s
            stop_taking(number)
            self._end_from_thread(self._drain_timeout_s)

        return handle

    def _end_from_thread(self, delay_s: float, status: int = os.EX_OK) -> None:
        # A signal handler cannot wait for a lock, since the main thread that it interrupts may hold that lock. It may
        # put a request into a SimpleQueue, though.
        self._requests.put((delay_s, status))

    def _serve(self) -> None:
        while True:
            self._end_process(*self._requests.get())

    def _end_process(self, delay_s: float, status: int) -> None:
        ends_s = time.monotonic() + delay_s
        if delay_s:
            logger.info("Warm shutdown: this worker takes no more jobs; running jobs have %g s to finish", delay_s)
        self._marks.drain()
        if delay_s and self._drained.wait(max(0.0, ends_s - time.monotonic())):
            return
        logger.warning("shutting down: requeueing the jobs that still run")
        self._marks.close()
        self._leave()
        logging.shutdown()
        os._exit(status)
