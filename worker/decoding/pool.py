"""A pool of decoder processes, at most one per core and one more for ``high``; it replaces processes that end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final

from producer.contract.names import Queue
from producer.errors import JobFailed, SettingsError
from producer.processes.child import how_it_ended
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.shares import of_decoders
from worker.decoding.decoder import DecoderInterrupted, DecoderLost, DecoderOptions, DecoderProcess, PreparedPicture
from worker.decoding.images import Decoded, refusal
from worker.decoding.protocol import ENDED_BY_ITS_IMAGE

logger = logging.getLogger(__name__)

#: A decoder normally starts in half a second; a machine that swaps or starts many processes at once needs more time.
START_TIMEOUT_S: Final = 60.0
#: The pause after a failed start doubles from the first to the second bound, so that a machine without free memory has
#: few starts.
BACK_OFF_S: Final = (0.1, 5.0)
#: If the pool has had no process for this long, an image whose start of one fails does not wait for another try. Its
#: clock is the only one that runs, so otherwise the images behind it would each wait for their whole time.
WITHOUT_PROCESS_S: Final = 10.0
#: A process that has closed its socket ends within milliseconds; the pool waits this long for its exit status.
DYING_S: Final = 1.0


class DecoderPool:
    """Decodes images in processes.

    Args:
        options: the options of the processes.
        processes: the maximum number of processes. The pool starts each on demand, and one more when an image of
            ``high`` would otherwise wait for images of other queues.
        budget: the bytes that all images together may use while they are decoded.
    """

    def __init__(self, options: DecoderOptions, *, processes: int, budget: Budget) -> None:
        self.options = options
        self._budget = budget
        self._places = Budget(of_decoders(processes))
        self._idle = deque[DecoderProcess]()
        self._all = set[DecoderProcess]()
        self._lock = threading.Lock()
        self._back_off_s = 0.0
        #: Since when starts have failed while no process lives, by ``time.monotonic()``.
        self._without_since_s: float | None = None
        self._closed = False
        # One thread that lives as long as the worker starts all processes, because Linux kills them with that thread.
        self._starter = ThreadPoolExecutor(1, "decoder-starter")

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that have not ended."""
        with self._lock:
            return [process.pid for process in self._all]

    def start(self) -> None:
        """Start the first process.

        Raises:
            SettingsError: no process can be started.
        """
        scope = CancelScope(time.monotonic() + START_TIMEOUT_S)
        try:
            process = self._started(scope)
        except (DecoderLost, TimeoutError, OSError) as error:
            self.close()
            how = str(error) or type(error).__name__
            raise SettingsError(
                f"NAMESHOT_DECODER=process: no decoder process can be started ({how}); see docs/security.md, or set "
                "NAMESHOT_DECODER=thread to decode in the worker's own process."
            ) from None
        if not process.filters_system_calls:
            logger.info("libseccomp cannot be used here: decoder processes have limits, but may use every system call")
        self._idle.append(process)

    def decode(self, data: bytes, scope: CancelScope, queue: Queue = "default") -> PreparedPicture | Decoded:
        """Decode an image, and prepare it if the options have a geometry.

        If the process is suspended or ended from outside, another process decodes the image; this happens only once.

        Args:
            queue: the queue whose share of the processes and of the bytes the image uses.

        Raises:
            JobFailed: the image is refused; or, with ``deadline_exceeded``, the deadline has passed or the second
                process was interrupted too.
            Cancelled: the scope was cancelled.
        """
        with suppress(DecoderInterrupted):
            return self._decoded(data, scope, queue)
        try:
            return self._decoded(data, scope, queue)
        except DecoderInterrupted:
            raise _too_late() from None

    def _decoded(self, data: bytes, scope: CancelScope, queue: Queue) -> PreparedPicture | Decoded:
        with self._process(scope, queue) as process, _killed_by(scope, process):
            try:
                memory_bytes = process.open(data, scope)
                with self._budget.reserve(memory_bytes, scope, queue):
                    return process.decode(scope)
            except TimeoutError:
                scope.check()
                raise _too_late() from None
            except DecoderInterrupted:  # the process neither answers nor computes
                scope.check()
                logger.warning("a decoder process was frozen while it had an image: replacing the process")
                raise
            except DecoderLost:
                scope.check()
                raise self._error_after(process) from None

    def close(self) -> None:
        """End all processes; images in them fail."""
        with self._lock:
            self._closed = True
            processes = list(self._all)
            self._all.clear()
        for process in processes:
            process.kill()
        for process in processes:
            process.end()
        self._starter.shutdown(wait=False)

    @contextmanager
    def _process(self, scope: CancelScope, queue: Queue) -> Iterator[DecoderProcess]:
        with self._places.reserve(1, scope, queue):
            process = self._idle_or_started(scope)
            try:
                yield process
            finally:
                if process.is_idle:
                    self._idle.append(process)
                else:
                    self._forget(process)

    def _idle_or_started(self, scope: CancelScope) -> DecoderProcess:
        """Return an idle process, or start one; after a failed start, try both again until the scope ends.

        Once the pool has had no process for `WITHOUT_PROCESS_S`, one failed start is enough.
        """
        while not scope.is_over and not self._closed:
            with suppress(IndexError):
                while True:
                    process = self._idle.pop()
                    if process.is_running():
                        return process
                    self._forget(process)  # it was killed while idle, so no image is at fault
            try:
                return self._started(scope)
            except (DecoderLost, TimeoutError, OSError) as error:
                least_s, most_s = BACK_OFF_S
                self._back_off_s = min(most_s, max(least_s, 2 * self._back_off_s))
                logger.warning("a decoder process did not start: %s", error or type(error).__name__)
                if self._has_long_been_without():
                    break
                scope.sleep(self._back_off_s)
        scope.check()
        raise JobFailed("deadline_exceeded", "no decoder process could be started.")

    def _has_long_been_without(self) -> bool:
        """Return, after a failed start, whether no process has lived for `WITHOUT_PROCESS_S`."""
        with self._lock:
            if self._all:
                self._without_since_s = None
                return False
            now_s = time.monotonic()
            self._without_since_s = self._without_since_s or now_s
            return now_s - self._without_since_s >= WITHOUT_PROCESS_S

    def _started(self, scope: CancelScope) -> DecoderProcess:
        process = self._starter.submit(DecoderProcess, self.options).result()
        with self._lock:
            self._all.add(process)
        try:
            process.greet(scope)
        except DecoderLost:
            raise DecoderLost(how_it_ended(self._forget(process, DYING_S))) from None
        except BaseException:
            self._forget(process)
            raise
        self._back_off_s = 0.0
        self._without_since_s = None
        return process

    def _forget(self, process: DecoderProcess, grace_s: float = 0.0) -> int:
        with self._lock:
            self._all.discard(process)
        return process.end(grace_s)

    def _error_after(self, process: DecoderProcess) -> JobFailed | DecoderInterrupted:
        """Reap a process that ended while it had an image; return the image's failure, or `DecoderInterrupted`."""
        status = self._forget(process, DYING_S)
        how = how_it_ended(status)
        if status < 0 and -status not in {*ENDED_BY_ITS_IMAGE, signal.SIGKILL}:
            logger.warning("a decoder process %s from outside while it had an image: replacing the process", how)
            return DecoderInterrupted()
        logger.warning("a decoder process %s while it had an image; the image has failed", how)
        # The kernel's OOM killer sends SIGKILL, and the image may be fine.
        return refusal("out_of_memory" if status == -signal.SIGKILL else "damaged")


@contextmanager
def _killed_by(scope: CancelScope, process: DecoderProcess) -> Iterator[None]:
    """Kill the process if the scope is cancelled within this context."""
    lock = threading.Lock()
    ours = True

    def kill() -> None:
        with lock:
            if ours:
                process.kill()

    scope.on_cancel(kill)
    try:
        yield
    finally:
        with lock:
            ours = False


def _too_late() -> JobFailed:
    return JobFailed("deadline_exceeded", "the image was not decoded within the job's time.")
