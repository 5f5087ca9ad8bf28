"""How a worker ends.

SIGTERM, SIGINT, SIGHUP or Celery's ``control shutdown`` (`worker.jobs.remote_control`): no more jobs are taken, and
those that run have ``NAMESHOT_DRAIN_TIMEOUT`` seconds to finish. A second one later on, or SIGQUIT: everything goes
back to the queues, at once. SIGHUP stays ignored under nohup. A supervisor's SIGKILL afterwards loses nothing either;
the jobs then wait for the lease to end, and none is to blame, for the worker says first that it is leaving.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from producer.processes.queued_signals import SAME_REQUEST_S
from worker.delivery.marks import Marks

logger = logging.getLogger(__name__)


class Shutdown:
    """Ends the process in time.

    Args:
        drain_timeout_s: seconds for running jobs to finish.
        marks: says that the worker is leaving.
        leave: returns what is still held; called once, right before the process ends.
    """

    def __init__(self, *, drain_timeout_s: float, marks: Marks, leave: Callable[[], None]) -> None:
        self._drain_timeout_s = drain_timeout_s
        self._marks = marks
        self._leave = leave
        self._leaving_since_s: float | None = None
        self._drained = threading.Event()
        # Before Celery puts a handler there, which restarts the program.
        self._hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def install(self, stop_taking: Callable[[int], None]) -> None:
        """Put our handlers in the place of Celery's. From the main thread, once Celery has its own there.

        Args:
            stop_taking: takes the signal's number, and has the worker end once what runs has finished.
        """
        drain = self._drain_first(stop_taking)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, drain)
        signal.signal(signal.SIGHUP, drain if self._hangs_up else signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, lambda *_: self._in_a_thread(0.0))

    def drained(self) -> None:
        """All jobs have finished: the process may end as it likes."""
        self._drained.set()
        self._marks.close()

    def leave_now(self) -> None:
        """End the process; what it holds goes back to the queues, and blames nobody."""
        if self._leaving_since_s is None:
            self._leaving_since_s = time.monotonic()
            self._in_a_thread(0.0)

    def fail(self) -> None:
        """End after an error that nothing here mends: what runs has the usual time to finish, and the status is 70."""
        if self._leaving_since_s is None:
            self._leaving_since_s = time.monotonic()
            self._in_a_thread(self._drain_timeout_s, os.EX_SOFTWARE)

    def _drain_first(self, stop_taking: Callable[[int], None]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, _frame: FrameType | None) -> None:
            now_s = time.monotonic()
            if self._leaving_since_s is not None:
                if now_s - self._leaving_since_s > SAME_REQUEST_S:
                    self._in_a_thread(0.0)
                return
            self._leaving_since_s = now_s
            stop_taking(number)
            self._in_a_thread(self._drain_timeout_s)

        return handle

    def _in_a_thread(self, delay_s: float, status: int = os.EX_OK) -> None:
        # A handler interrupts the main thread wherever it is, with whatever locks it holds.
        threading.Thread(target=self._end_process, args=(delay_s, status), name="shutdown", daemon=True).start()

    def _end_process(self, delay_s: float, status: int) -> None:
        ends_s = time.monotonic() + delay_s
        if delay_s:
            logger.info("Warm shutdown: no more jobs are taken, and those that run have %g s to finish", delay_s)
        self._marks.drain()
        if delay_s and self._drained.wait(max(0.0, ends_s - time.monotonic())):
            return
        logger.warning("leaving: what still runs goes back to the queues")
        self._marks.close()
        self._leave()
        logging.shutdown()
        os._exit(status)
