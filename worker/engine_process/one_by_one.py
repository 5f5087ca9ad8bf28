"""Images that were on the device when an engine died, and ride alone until one of them is found to have done it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from producer.contract import Queue
from worker.engine.batcher import BatchResult
from worker.engine_process.frames import Array
from worker.model.interface import Prepared

Submit = Callable[[Prepared, Queue], Future[BatchResult[Array]]]


class OneByOne:
    """Lets suspects of all fronts onto the device one after another, so that a second death has one culprit.

    That nothing else runs beside it sees `worker.engine_process.rides` to.

    Args:
        submit: queues an image; no two images that came through here are to share a batch.
    """

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._lock = threading.Lock()
        self._waiting = deque[tuple[Prepared, Queue, Future[BatchResult[Array]]]]()
        self._runs = False

    def add(self, image: Prepared, queue: Queue) -> Future[BatchResult[Array]]:
        """Its ride; cancelling the future takes it out before its turn."""
        future: Future[BatchResult[Array]] = Future()
        with self._lock:
            self._waiting.append((image, queue, future))
        self._advance()
        return future

    def _advance(self) -> None:
        while True:
            with self._lock:
                if self._runs or not self._waiting:
                    return
                image, queue, outer = self._waiting.popleft()
                if not outer.set_running_or_notify_cancel():
                    continue
                self._runs = True
            try:
                self._submit(image, queue).add_done_callback(partial(self._done, outer))
                return
            except Exception as error:  # the engine ends
                with self._lock:
                    self._runs = False
                outer.set_exception(error)

    def _done(self, outer: Future[BatchResult[Array]], inner: Future[BatchResult[Array]]) -> None:
        with self._lock:
            self._runs = False
        if (error := inner.exception()) is None:
            outer.set_result(inner.result())
        else:
            outer.set_exception(error)
        self._advance()
