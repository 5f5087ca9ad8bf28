"""Runs images that were on the device when an engine died one by one, so that the next death convicts its image."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from producer.contract.names import Queue
from worker.engine.batch_queue import BatchResult
from worker.engine_process.frames import Array
from worker.model.interface import Prepared

Submit = Callable[[Prepared, Queue], Future[BatchResult[Array]]]


class OneByOne:
    """Submits the suspects of all fronts one after another, so that a second death has one culprit.

    `worker.engine_process.device_use` keeps other batches off the device while a suspect runs.

    Args:
        submit: queues an image.
    """

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._lock = threading.Lock()
        self._waiting = deque[tuple[Prepared, Queue, Future[BatchResult[Array]]]]()
        self._runs = False

    def add(self, image: Prepared, queue: Queue) -> Future[BatchResult[Array]]:
        """Queue a suspect; cancelling the future before its turn removes it."""
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
            except Exception as error:  # the engine is shutting down
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
