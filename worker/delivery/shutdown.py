"""How a worker ends.

SIGTERM, SIGINT or Celery's ``control shutdown`` (`worker.remote_control`): no more jobs are taken, and those that run
have ``NAMESHOT_DRAIN_TIMEOUT`` seconds to finish. A second one later on, or SIGQUIT: everything goes back to the
queues, at once. A supervisor's SIGKILL afterwards loses nothing either; the jobs then wait for the lease to end, and
none is to blame, for the worker says first that it is leaving.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from worker.delivery.marks import Marks
from worker.stopping import SAME_REQUEST_S

logger = logging.getLogger(__name__)


class Departure:
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

    def install(self) -> None:
        """Put our handlers before Celery's. From the main thread, once Celery has its own in place."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._drain_first(signal.getsignal(number)))
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

    def _drain_first(self, celerys: Any) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            now_s = time.monotonic()
            if self._leaving_since_s is not None:
                if now_s - self._leaving_since_s > SAME_REQUEST_S:
                    self._in_a_thread(0.0)
                return
            self._leaving_since_s = now_s
            self._in_a_thread(self._drain_timeout_s)
            celerys(number, frame)

        return handle

    def _in_a_thread(self, delay_s: float, status: int = os.EX_OK) -> None:
        # A handler interrupts the main thread wherever it is, with whatever locks it holds.
        threading.Thread(target=self._depart, args=(delay_s, status), name="departure", daemon=True).start()

    def _depart(self, delay_s: float, status: int) -> None:
        ends_s = time.monotonic() + delay_s
        self._marks.drain()
        if delay_s and self._drained.wait(max(0.0, ends_s - time.monotonic())):
            return
        logger.warning("leaving: what still runs goes back to the queues")
        self._marks.close()
        self._leave()
        logging.shutdown()
        os._exit(status)
